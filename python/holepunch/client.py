"""The clients of the 2015 package: two programs, introduced by a server, talk to each other directly.

    listener = holepunch.client.Client()
    listener.open()                         # waits for somebody who connects

    connector = holepunch.client.Client()
    connector.open("198.51.100.7")          # the listener's public address

`Client` and `TCPClient` give a stream, `UDPClient` datagrams. After `open`, `sock` is a socket of the system with
nothing of this package on it, and `addr` is the peer's address.

A server is asked what it speaks. Through a current one, two current peers find their way as everybody does who uses this
package (on any of their addresses, from the port of `config.HOLEPUNCH_PORT` where it is free), and old ones are met as
ever. The text of 2015 is all there is toward an old server, and for a client with a hook that a program has overridden.

`open` without `timeout` tries until it is interrupted; it is paced, ends at once on Ctrl-C, and raises OSError when
another thread closes the client. One thread may send while another receives. Nothing here starts a thread that outlives
a call, so a client may cross a fork.

Errors of `open`: an unreachable server is the OSError of the system. What the server refuses is an exception with the
answer, a `Message`, as `args[0]`: `ListenerNotFoundError` (method `?`), `AnswerError` (end of the stream, method `.`,
or an answer that makes no sense), `SelfConnectError` (the peer's address is the own one). A deadline that has passed is
`holepunch.TimeoutError`. Before `open`, the calls that need a socket raise `NotConnectedError`, an AttributeError.
"""

import errno
import ipaddress
import logging
import socket
import threading
import time
from types import TracebackType
from typing import Any, Callable, Optional, Tuple, Type, TypeVar, Union

from . import config
from ._native import decide, meet_current
from .errors import (
    HolepunchError,
    LegacyPeerError,
    LostError,
    NoPathError,
    NotConnectedError,
    NotFoundError,
    RefusedError,
    ServerRefusedError,
    ServerSilentError,
)
from .message import Message
from ._meeting import SelfConnectError, meet_datagram, meet_stream
from ._waiting import Waiting, resolve

__all__ = ["AnswerError", "Client", "ListenerNotFoundError", "SelfConnectError", "Server", "TCPClient", "UDPClient"]

_log = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="Client")

_MAX_DATA = 65535
"""Bytes of one `recv`: the largest datagram."""
_MAX_ANSWER = 1024
"""Bytes of an answer that does not end."""
_FAREWELL = 0.1
"""Seconds that the server has for ending the stream after this side did: a round trip, mostly over by then."""
_KEEPALIVE = 25
"""Seconds: a listener's connection to the server must not fall out of a NAT's memory, and must end with the server."""


class ListenerNotFoundError(NotFoundError):
    """No listener is at that address. `args[0]` is the server's answer."""

    def __init__(self, answer: Message, message: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.args = (answer,)


class AnswerError(ServerRefusedError):
    """The server ended the stream, answered what makes no sense, or refused. `args[0]` is that answer, or stands for it."""

    def __init__(self, answer: Message, message: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.args = (answer,)


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

_REFUSALS, _AT_ONCE = 100, 0.001
"""So many refusals in a row, each within so many seconds, are no answers to earlier datagrams any more."""


class Server:
    """A client's view of the rendezvous server: one TCP connection with the 2015 protocol on it."""

    def __init__(self, host: Optional[str] = None, port: Optional[int] = None, *, bind: Optional[str] = None) -> None:
        default_host, default_port = config._client_server()
        if host is not None:
            host, named = config._host_and_port(host, default_port)
            port = named if port is None else port
        self._addr: Tuple[str, int] = (host or default_host, default_port if port is None else port)
        self._bind = config._bind_host() if bind is None else bind
        self._ip = ""
        self._sock: Any = None
        self._received = b""
        self._waiting: Optional[Waiting] = None

    def open(self) -> None:
        """Connects to the server."""
        self._open(self._connect)

    def _open_unless_current(self) -> Optional[Tuple[str, int]]:
        """Connects to a server of 2015; where it speaks the current protocol, its address, and no connection."""
        return self._open(self._decide)

    def _open(self, how: Callable[[int, Any, Waiting], Optional[socket.socket]]) -> Optional[Tuple[str, int]]:
        host, port = self._addr
        if not 0 <= port <= 0xFFFF:
            raise OverflowError(f"the server's port must be 0-65535, not {port}")
        # As a destination, "every address" means this machine.
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        family = 0 if not self._bind else socket.AF_INET6 if ":" in self._bind else socket.AF_INET
        with _Turn(self) as waiting:
            failure: Optional[OSError] = None
            for family, address in resolve(host, port, family, waiting):
                try:
                    sock = how(family, address, waiting)
                except OSError as error:
                    waiting.check()
                    failure = error
                    continue
                _log.info("Open server socket %s:%s", *self._addr)
                self._ip = address[0]
                if sock is None:
                    return address[0], address[1]
                self._sock, self._received = sock, b""
                return None
        raise failure or OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} fits the bind address {self._bind!r}")

    def _decide(self, family: int, address: Any, waiting: Waiting) -> Optional[socket.socket]:
        if len(address) == 4 and address[3]:
            return self._connect(family, address, waiting)  # of one link, for which the core has no words
        sock = waiting.call(decide, address[:2], self._bind)
        if sock is not None:
            sock.setblocking(False)
        return sock

    def _connect(self, family: int, address: Any, waiting: Waiting) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._bind:
                sock.bind((self._bind, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
            failure = sock.connect_ex(address)
            if failure == errno.EINPROGRESS:
                waiting.ready(writing=[sock])
                failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise OSError(failure, f"connecting to the server {self._addr[0]} port {self._addr[1]}")
            return sock
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Leaves the server with an end of stream, and waits a moment for its own.

        What it sent meanwhile is read, for what comes to a closed socket is answered with a reset, and that kills an old
        server.
        """
        sock = self._sock
        if sock is None or sock.fileno() < 0:
            return
        self._leave()
        try:
            with Waiting() as waiting:
                end = time.monotonic() + _FAREWELL
                while (left := end - time.monotonic()) > 0 and waiting.ready([sock], at_most=left):
                    if not sock.recv(_MAX_DATA):
                        break
        except OSError:
            pass  # it is gone
        finally:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for it
            except OSError:
                pass
            sock.close()
        _log.info("Close server socket %s:%s", *self._addr)

    def _leave(self) -> None:
        """Says goodbye and keeps the socket, so that nothing that the server still sends is answered with a reset."""
        try:
            self._opened().shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server left first

    def fileno(self) -> int:
        """The descriptor, -1 after `close`."""
        number: int = self._opened().fileno()
        return number

    def send(self, data: Union[bytes, str, Message]) -> None:
        """Sends one message, in one write."""
        sock = self._connected()
        left = bytes(data if isinstance(data, Message) else Message(data)) if not isinstance(data, bytes) else data
        with _Turn(self) as waiting:
            while left:
                waiting.ready(writing=[sock])
                left = left[sock.send(left) :]

    def recv(self) -> Message:
        """Waits for one message. The end of the stream is a message too, with method `.`."""
        sock = self._connected()
        with _Turn(self) as waiting:
            while True:
                message = self._next()
                if message is not None:
                    return message
                waiting.ready([sock])
                try:
                    data = sock.recv(_MAX_ANSWER)
                except BlockingIOError:
                    continue
                if not data:
                    self._received = b""
                    return Message(b"")
                self._received += data

    def _next(self) -> Optional[Message]:
        """The first whole message received: an address ends with its parenthesis, everything else is one character."""
        data = self._received
        if not data:
            return None
        if data[:1] == b"*":
            end = data.find(b")") + 1
            if not end and len(data) < _MAX_ANSWER:
                return None
            end = end or len(data)
        else:
            end = 1 if data[:1] in (b"?", b".") else len(data)
        self._received = data[end:]
        return Message(data[:end])

    def listen_request(self) -> Message:
        """Asks to be told who connects, and waits for the answer."""
        self.send(b"<")
        return self.recv()

    def connect_request(self, host: str) -> Message:
        """Asks for the listener at an address, and waits for the answer."""
        self.send(f">{host}".encode())
        return self.recv()

    def _opened(self) -> Any:
        if self._sock is None:
            raise NotConnectedError("no connection to the server yet", "call open() first")
        return self._sock

    def _connected(self) -> Any:
        sock = self._opened()
        if sock.fileno() < 0:
            raise OSError(errno.EBADF, "the connection to the server is closed")
        return sock


class Client:
    """A stream to a peer. Subclasses may make another connection by overriding `_holepunch`."""

    def __init__(
        self, *, server: Optional[str] = None, port: Optional[int] = None, bind: Optional[str] = None
    ) -> None:
        """Reads the configuration; `server` is `host` or `host:port`, `bind` the local address to use."""
        self._bind = config._bind_host() if bind is None else bind
        self._server = Server(server, port, bind=self._bind)
        self._sock: Any = None
        self._addr: Any = None
        self._waiting: Optional[Waiting] = None
        self._lock = threading.RLock()
        self._calls = 0

    @property
    def sock(self) -> Any:
        """The socket to the peer, None before `open`. It may be set."""
        return self._sock

    @sock.setter
    def sock(self, sock: Any) -> None:
        self._sock = sock

    @property
    def addr(self) -> Any:
        """The peer's address, None before `open` and after `close`. It may be set."""
        return self._addr

    @addr.setter
    def addr(self, addr: Any) -> None:
        self._addr = addr

    def open(self, dest_host: Optional[str] = None, *, timeout: Optional[float] = None) -> None:
        """Connects to the listener at an address, or without one listens and waits for a peer.

        `timeout` is in seconds, for everything together; without it the call tries until it is interrupted.
        """
        with Waiting(timeout, "listening" if dest_host is None else f"connecting to {dest_host}") as waiting:
            with self._lock:
                if self._waiting is not None:
                    raise OSError(errno.EALREADY, "another thread is in open()")
                self._waiting = waiting
            try:
                sock, addr = self._introduced(dest_host, waiting)
                with self._lock:
                    self._sock, self._addr, self._waiting = sock, addr, None
                if waiting._cancelled:
                    self.close()
                    raise OSError(errno.EBADF, "closed by another thread")
            finally:
                self._waiting = None

    def _introduced(self, dest_host: Optional[str], waiting: Waiting) -> Tuple[Any, Any]:
        """Asks the server, and meets the peer that it names.

        A server that is not known yet is asked what it speaks. Where a program has put something of its own in the place
        of a part, nothing is asked and the text of 2015 is spoken, which every server and every peer speaks.
        """
        server = self._server
        server._waiting = waiting
        try:
            if self._is_plain() and (dest_host is None or _is_address(dest_host)):
                current = server._open_unless_current()
                if current is not None:
                    return self._current(current, dest_host, waiting)
            else:
                server.open()
            answer = server.listen_request() if dest_host is None else server.connect_request(dest_host)
            host, port = _introduction(answer, dest_host, getattr(server, "_ip", ""))
            # The end of our stream tells the server now; the socket stays until the peer is met, or something in
            # flight would be answered with a reset.
            server._leave()
            _log.info("Open client socket to %s:%s", host, port)
            sock, addr = self._holepunch((self._bind, port), (host, port))
            return sock, addr
        finally:
            server._waiting = None
            server.close()

    def _current(self, server: Tuple[str, int], dest_host: Optional[str], waiting: Waiting) -> Tuple[Any, Any]:
        """Meets the peer that a current server introduces; one of 2015 as such."""
        source = (self._bind, config._punch_port())
        datagrams = getattr(self._holepunch, "__func__", None) is UDPClient._holepunch
        try:
            sock, addr = waiting.call(meet_current, server, source, dest_host, datagrams)
            _log.info("Open client socket to %s:%s", *addr)
            return sock, addr
        except LegacyPeerError as error:
            host, port = error.peer or ("", 0)
        except HolepunchError as error:
            raise _as_of_2015(error) from error
        finally:
            _log.info("Close server socket %s:%s", *self._server._addr)
        _log.info("Open client socket to %s:%s", host, port)
        sock, addr = self._holepunch((self._bind, port), (host, port))
        return sock, addr

    def _is_plain(self) -> bool:
        """Whether no hook of 2015 is overridden."""
        hook = getattr(self._holepunch, "__func__", None)
        return hook in (Client._holepunch, UDPClient._holepunch) and type(self._server) is Server

    def _holepunch(self, source_addr: Tuple[str, int], dest_addr: Tuple[str, int]) -> Tuple[Any, Any]:
        """Meets the peer at `dest_addr` from `source_addr`; returns the socket and the peer's address. A hook."""
        with _Turn(self) as waiting:
            return meet_stream(source_addr, dest_addr, waiting), dest_addr

    def close(self) -> None:
        """Closes the socket, which stays in `sock`. May be called at any time, from any thread, and again."""
        with self._lock:
            if self._waiting is not None:
                self._waiting.cancel()
            sock, self._addr = self._sock, None
            if sock is None:
                return
            was_open = self.fileno() != -1 if hasattr(sock, "fileno") else True
            if self._calls and was_open and isinstance(sock, socket.socket):
                # Closing alone would not wake a thread that waits in a call.
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # never connected, which wakes it all the same
            sock.close()
        if was_open:
            _log.info("Close client socket")

    def send(self, data: bytes) -> None:
        """Sends everything."""
        sock = self._opened()
        with _Call(self):
            getattr(sock, "sendall", sock.send)(data)

    def recv(self) -> bytes:
        """Waits for data and returns at most 65535 bytes of it; none at the end of the stream."""
        sock = self._opened()
        with _Call(self):
            data: bytes = sock.recv(_MAX_DATA)
        _refuse_closed(sock, data)
        return data

    def fileno(self) -> int:
        """The descriptor, for `select`; -1 after `close`."""
        number: int = self._opened().fileno()
        return number

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _opened(self) -> Any:
        if self._sock is None:
            raise NotConnectedError(f"this {type(self).__name__} is not open yet", "call open() first")
        return self._sock


class TCPClient(Client):
    """A TCP connection to a peer."""


class UDPClient(Client):
    """Datagrams to and from a peer; they may be lost, doubled or come in another order.

    `open` returns within 5 seconds of the introduction also if the peer is silent. What the peer may have sent to open
    its firewall, datagrams `*`, is there to read.
    """

    def _holepunch(self, source_addr: Tuple[str, int], dest_addr: Tuple[str, int]) -> Tuple[Any, Any]:
        with _Turn(self) as waiting:
            return meet_datagram(source_addr, dest_addr, waiting), dest_addr

    def send(self, data: bytes) -> None:
        """Sends one datagram: to where the program connected the socket, else to the peer."""
        sock = self._opened()
        with _Call(self):
            try:
                _despite_refusal(lambda: sock.send(data))
            except OSError as error:
                if error.errno not in (errno.EDESTADDRREQ, errno.ENOTCONN) or self._addr is None:
                    raise
                sock.sendto(data, self._addr)

    def recv(self) -> bytes:
        """Waits for one datagram and returns it."""
        sock = self._opened()
        with _Call(self):
            data: bytes = _despite_refusal(lambda: sock.recv(_MAX_DATA))
        _refuse_closed(sock, data)
        return data


class _Turn:
    """The wait of the `open` that is under way, or, for a call by itself, one without a deadline."""

    def __init__(self, owner: Union[Client, Server]) -> None:
        self._under_way = owner._waiting
        self._waiting = self._under_way or Waiting(None, "waiting")

    def __enter__(self) -> Waiting:
        return self._waiting

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._under_way is None:
            self._waiting.__exit__(kind, value, traceback)


class _Call:
    """Counts the calls that may be waiting, for `close`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        with self._client._lock:
            self._client._calls += 1

    def __exit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        with self._client._lock:
            self._client._calls -= 1


def _despite_refusal(call: Any) -> Any:
    """Repeats a datagram call that failed with what the network answered to an earlier datagram, which says nothing of this one."""
    at_once = 0
    while True:
        began = time.monotonic()
        try:
            return call()
        except ConnectionRefusedError:
            # One that refuses again and again without waiting means it.
            at_once = at_once + 1 if time.monotonic() - began < _AT_ONCE else 0
            if at_once >= _REFUSALS:
                raise


def _refuse_closed(sock: Any, data: bytes) -> None:
    """A call that `close` woke fails as one that came after it."""
    if not data and isinstance(sock, socket.socket) and sock.fileno() < 0:
        raise OSError(errno.EBADF, "closed by another thread")


def _ip(host: str) -> Union[None, ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """The IP address that a text is; one of IPv4 that is mapped into IPv6 is one of IPv4."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_address(host: str) -> bool:
    """Whether it can be told in the current protocol; only the text has room for anything else."""
    return "%" not in host and _ip(host) is not None


def _as_of_2015(error: HolepunchError) -> Exception:
    """What the core says of a current server and its listeners, as an exception of this module."""
    if isinstance(error, NotFoundError):
        return ListenerNotFoundError(Message(b"?"), error.message, error.hint)
    if isinstance(error, ServerSilentError):
        return OSError(errno.ETIMEDOUT, error.message)
    if isinstance(error, (ServerRefusedError, RefusedError)):
        return AnswerError(Message(b"."), error.message, error.hint)
    if isinstance(error, (NoPathError, LostError)):
        error.args = (Message(b"."),)
    return error


def _introduction(answer: Message, dest_host: Optional[str], server: str) -> Tuple[str, int]:
    """The peer's address in an answer of the server at an IP address, or the exception that the answer is."""
    if answer.method == "*" and isinstance(answer.body, tuple):
        host, port = answer.body
        peer, here = _ip(host), _ip(server)
        if peer and peer.is_loopback and here and not here.is_loopback:
            # To a server elsewhere nobody can have come from there.
            text = f"the server {server} names this machine itself as the peer ({host})"
            raise AnswerError(answer, text, "check that it is a holepunch server")
        if peer and not (peer.is_multicast or peer.is_unspecified or peer == _BROADCAST):
            return str(peer), port
    if answer.method == "?":
        raise ListenerNotFoundError(
            answer, f"no listener is at {dest_host}", "the listener has to be there first, and its address is the public one"
        )
    if answer.method == ".":
        raise AnswerError(answer, "the server ended the connection", "it may have been stopped; try again")
    raise AnswerError(answer, f"the server answered {answer!r:.100}", "check that it is a holepunch server")
