"""The rendezvous server of the 2015 package: it tells two clients each other's address, and steps out of the way.

    holepunch.server.Server().run()

That is the server of `python -m holepunch server`, which speaks the current protocol besides, over UDP and TCP at the
same port. Subclasses override `accept_client`, `find_client`, `append_client` and `remove_client`, and `run` uses them: then
it is the loop of this module, which speaks the protocol of 2015 alone.

One thread waits for all clients. Requests may come in pieces or several at once. A listener is told of one connector,
the oldest listener of an address first. A host that nothing ended yet is looked up as soon as no digit can follow it,
else after 20 ms, and `?` is said only after 100 ms of silence. What comes after `<` in the same piece is an announcement, and
ignored; other bytes that are no request get one `?`. A client that does not read its answers is not read either. One that
neither listens nor says anything for a minute is closed; when descriptors run out, so is the one that has been silent
longest and never said anything.
"""

import errno
import ipaddress
import logging
import re
import selectors
import socket
import time
from collections import OrderedDict
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple, Type, Union

from . import config
from ._native import Server as _Loop
from .errors import HolepunchError, NotConnectedError
from .message import Message

__all__ = ["Client", "Server"]

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_READ = 4096
"""Bytes read from one client before the others have their turn."""
_MAX_HOST = 255
"""Bytes of a host that a client may ask for."""
_MAX_UNSENT = 4096
"""Bytes of answers that a client may leave unread."""
_PREFIX_PAUSE = 0.02
"""Seconds after which a host that could go on is taken as it is."""
_SILENCE = 0.1
"""Seconds without a byte before a host is said not to be found."""
_ACCEPT_PAUSE = 0.1
"""Seconds without accepting after the system refused another descriptor."""
_IDLE = 60.0
"""Seconds that a client may be silent unless it listens."""
_SLICE = 0.05
"""Seconds after which the Rust loop's caller looks at signals, and at the environment's punch port."""
_KEEPALIVE = (30, 10, 3)
"""TCP keepalive: seconds of silence, seconds between probes, probes. Silently dead listeners are gone after a minute."""

_HOOKS = ("accept_client", "find_client", "append_client", "remove_client", "fileno", "sock", "addr")
"""What a subclass may override so that `run` uses it."""

_START = re.compile(rb"[<>]")
_END = re.compile(rb"[<>\s\x00]")


class Client:
    """One client of the server."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._sock: Any = None
        self._addr: Any = None
        self._received = bytearray()
        self._unsent = bytearray()
        self._skipping = False
        self._announcing = False
        self._listening = False
        self._has_spoken = False
        self._asked = 0.0
        self._due: Optional[float] = None

    @property
    def sock(self) -> Any:
        """The connection to the client."""
        return self._sock

    @sock.setter
    def sock(self, sock: Any) -> None:
        self._sock = sock

    @property
    def addr(self) -> Any:
        """The client's address."""
        return self._addr

    @addr.setter
    def addr(self, addr: Any) -> None:
        self._addr = addr

    def open(self, sock: socket.socket, addr: Tuple[str, int]) -> None:
        """Takes an accepted connection, and joins the server's clients."""
        self._sock, self._addr = sock, addr
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), _KEEPALIVE):
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            pass  # it is gone already, which the next read tells
        self._server.append_client(self)

    def close(self) -> None:
        """Closes the connection, and leaves the server's clients."""
        self._server.remove_client(self)
        self._server._forget(self)
        if self._sock is not None:
            self._sock.close()

    def fileno(self) -> int:
        """The descriptor, -1 after `close`."""
        if self._sock is None:
            raise NotConnectedError("this client is not open yet", "call open() first")
        number: int = self._sock.fileno()
        return number

    def send(self, data: Union[bytes, str, Message]) -> None:
        """Sends one message, in one write unless the client reads too slowly."""
        message = data if isinstance(data, bytes) else bytes(Message(data))
        if not self._unsent:
            try:
                message = message[self._sock.send(message) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it is gone, which the next read tells
        if message:
            self._unsent += message
            self._server._watch(self)

    def recv(self) -> bytes:
        """Reads what is there; nothing at the end of the stream."""
        data: bytes = self._sock.recv(_READ)
        return data

    def handle(self) -> None:
        """Reads, and answers the requests that are complete. `run` calls it when the client has sent something."""
        try:
            data = self.recv()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._received += data
        self._asked = time.monotonic()
        self._has_spoken = True
        self._server._heard(self)
        self._answer(ended=not data)
        if not data:
            self.close()

    def _answer(self, ended: bool = False) -> None:
        """Answers every request in what was received, as far as the client reads its answers."""
        data, at = self._received, 0
        self._due = None
        while at < len(data) and len(self._unsent) < _MAX_UNSENT:
            if self._announcing and data[at] not in b"<>":
                at = len(data)
            elif self._skipping:
                found = _START.search(data, at)
                at = found.start() if found else len(data)
                self._skipping = found is None
            elif data[at] == ord("<"):
                at += 1
                self._announcing = True
                self._server._listen(self)
            elif data[at] == ord(">"):
                found = _END.search(data, at + 1, at + 2 + _MAX_HOST)
                end = found.start() if found else len(data)
                too_long = end - at - 1 > _MAX_HOST
                if not self._found(bytes(data[at + 1 : end]), too_long or ended or found is not None):
                    break  # more may follow
                at = end
                self._announcing, self._skipping = False, True
            else:
                # The first line of clients that speak another protocol too; they take silence for a no.
                if data[at] != ord("H"):
                    self.send(b"?")
                self._skipping = True
        del data[:at]
        self._server._expect(self)

    def _found(self, name: bytes, whole: bool) -> bool:
        """Answers a request for a host, unless it is to be waited for."""
        host = name.decode("utf-8", "replace")
        silent = time.monotonic() - self._asked
        address = _ipv4(host)
        goes_on = not (address and int(host.rpartition(".")[2]) > 25)
        if whole or silent >= (_PREFIX_PAUSE if goes_on else 0.0):
            if self._server._introduce(self, host):
                return True
        if whole or silent >= _SILENCE:
            self.send(b"?")
            return True
        self._due = self._asked + (_PREFIX_PAUSE if goes_on and silent < _PREFIX_PAUSE else _SILENCE)
        return False

    def _alive(self) -> bool:
        """Whether the client is still there, as far as this side knows."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False


class Server:
    """The server. It reads the configuration when it is made, and the port that it tells clients for each answer."""

    def __init__(self, host: Optional[str] = None, port: Optional[int] = None) -> None:
        self._addr: Any = (
            config.SERVER_HOST if host is None else host,
            config.SERVER_PORT if port is None else port,
        )
        self._sock: Any = None
        self._rlist: List[Any] = []
        self._wlist: List[Any] = []
        self._xlist: List[Any] = []
        self._selector: Optional[selectors.BaseSelector] = None
        self._registered: Dict[Any, int] = {}
        self._listeners: Dict[str, "OrderedDict[Client, None]"] = {}
        self._expecting: Dict[Client, float] = {}
        self._silent: "OrderedDict[Client, float]" = OrderedDict()
        self._requester: Optional[Client] = None
        self._accepting_from: Optional[float] = None
        self._waker: Optional[Tuple[socket.socket, socket.socket]] = None
        self._loop: Optional[_Loop] = None
        self._closing = False

    @property
    def sock(self) -> Any:
        """The listening socket, None before `open`."""
        return self._sock

    @sock.setter
    def sock(self, sock: Any) -> None:
        self._sock = sock

    @property
    def addr(self) -> Any:
        """The address that the server listens on."""
        return self._addr

    @addr.setter
    def addr(self, addr: Any) -> None:
        self._addr = addr

    def open(self) -> None:
        """Listens. A port that another server has is an OSError (EADDRINUSE)."""
        host, port = self._addr
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Not SO_REUSEPORT: it would let a second server take half of the clients.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._sock, self._addr = sock, sock.getsockname()[:2]
        self._rlist.append(self)
        self._closing = False
        _log.info("Open server socket %s:%s", *self._addr)

    def close(self) -> None:
        """Closes the server and its clients. From another thread it ends `run`."""
        self._closing = True
        loop, waker = self._loop, self._waker
        if loop is not None:
            loop.stop()
            return
        if waker is not None:
            try:
                waker[1].send(b"x")
            except OSError:
                pass  # it is ending, or was woken already
            return
        self._shut()

    def run(self) -> None:
        """Serves until it is interrupted (Ctrl-C), or closed by another thread."""
        if self._sock is None or self._sock.fileno() < 0:
            self.open()
        try:
            if self._has_hooks():
                self._run_here()
            else:
                self._run_loop()
        except KeyboardInterrupt:
            pass
        finally:
            self._shut()

    def accept_client(self) -> Any:
        """Accepts one client. A hook: `run` calls it when somebody connects."""
        sock, addr = self._sock.accept()
        client = Client(self)
        # On a socket of both families IPv4 addresses come as ::ffff:203.0.113.2, by which nobody asks for them.
        host = addr[0].replace("::ffff:", "", 1) if "." in addr[0] else addr[0]
        client.open(sock, (host, addr[1]))
        return client

    def find_client(self, sock: Any = None, host: Optional[str] = None, port: Optional[int] = None) -> Any:
        """The connected client with this socket, host and port, as far as they are given; None if there is none.

        Where several fit it is the oldest that listens and does not itself ask, else the oldest. A hook: `run` calls it
        with the host that a client asks for, and introduces the two if the one found listens.
        """
        first = None
        for client in self._rlist:
            if not isinstance(client, Client):
                continue
            if sock is not None and client._sock is not sock:
                continue
            at_host, at_port = client._addr[:2] if client._addr else (None, None)
            if host is not None and at_host != host or port is not None and at_port != port:
                continue
            if client._listening and client is not self._requester:
                return client
            first = first or client
        return first

    def append_client(self, client: Any) -> None:
        """Adds a client. A hook."""
        if client in self._registered or self._selector is None and client in self._rlist:
            return
        self._rlist.append(client)
        if self._selector is not None:
            self._register_one(client)

    def remove_client(self, client: Any) -> None:
        """Removes a client. A hook."""
        for clients in (self._rlist, self._wlist, self._xlist):
            if client in clients:
                clients.remove(client)

    def fileno(self) -> int:
        """The listening descriptor, -1 after `close`."""
        if self._sock is None:
            raise NotConnectedError("the server is not open yet", "call open() first")
        number: int = self._sock.fileno()
        return number

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    # --- The Rust loop

    def _has_hooks(self) -> bool:
        """Whether something is overridden that only the loop of this module calls."""
        overridden = any(getattr(type(self), hook) is not getattr(Server, hook) for hook in _HOOKS)
        return overridden or not vars(self).keys().isdisjoint(_HOOKS) or Client is not _OWN_CLIENT or self._has_clients()

    def _has_clients(self) -> bool:
        """Whether the program has accepted or appended clients itself, or put something else in the socket's place."""
        return self._rlist != [self] or not isinstance(self._sock, socket.socket)

    def _run_loop(self) -> None:
        try:
            loop = _Loop(self._sock.fileno(), config._punch_port())
        except HolepunchError:
            if self._closing:
                return  # another thread has closed the socket meanwhile
            raise

        def follow() -> None:
            try:
                loop.set_punch_port(config._punch_port())
            except (OverflowError, TypeError, ValueError):
                pass  # no port: not for the thread that assigns it, but for `run` to say

        try:
            with config._told(follow):
                self._loop = loop
                while not self._closing and not loop.wait(_SLICE):
                    loop.set_punch_port(config._punch_port())  # the environment may have changed
        finally:
            self._loop = None
            loop.close()

    # --- The loop of this module

    def _run_here(self) -> None:
        try:
            self._waker = socket.socketpair()
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._waker[0], selectors.EVENT_READ)
            while not self._closing:
                self._turn()
        finally:
            waker, self._waker = self._waker, None
            self._shut()
            if self._selector is not None:
                self._selector.close()
                self._selector = None
            for end in waker or ():
                end.close()

    def _turn(self) -> None:
        selector = self._selector
        assert selector is not None
        if len(self._registered) != len(self._rlist):
            self._register()
        for key, events in selector.select(self._until_next()):
            if key.data is self:
                self._accept()
            elif key.data is not None and key.data in self._registered:
                if events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if events & selectors.EVENT_READ:
                    key.data.handle()
        now = time.monotonic()
        for client in [client for client, due in self._expecting.items() if due <= now]:
            client._answer()
        while self._silent and next(iter(self._silent.values())) + _IDLE <= now:
            self._silent.popitem(last=False)[0].close()
        if self._accepting_from is not None and self._accepting_from <= now:
            self._accepting_from = None
            self._forget(self)  # and so it is registered again

    def _until_next(self) -> Optional[float]:
        times = list(self._expecting.values())
        if self._accepting_from is not None:
            times.append(self._accepting_from)
        if self._silent:
            times.append(next(iter(self._silent.values())) + _IDLE)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _register(self) -> None:
        """Makes the selector wait for what is in `_rlist`, which hooks may change as they like."""
        for member in list(self._rlist):
            if member not in self._registered:
                self._register_one(member)
        if len(self._registered) != len(self._rlist):
            for member in set(self._registered).difference(self._rlist):
                self._forget(member)

    def _register_one(self, member: Any) -> None:
        number = member.fileno()
        if number < 0:
            self._rlist.remove(member)  # closed, and a hook kept it
        elif self._selector is not None:
            try:
                self._selector.register(number, selectors.EVENT_READ, member)
            except KeyError:
                # A hook closed the socket of another behind our back, and its descriptor's number is used again.
                former = self._selector.get_key(number).data
                self._forget(former)
                self.remove_client(former)
                self._selector.register(number, selectors.EVENT_READ, member)
            self._registered[member] = number
            if isinstance(member, Client):
                self._heard(member)

    def _heard(self, client: Client) -> None:
        """It said something, or may be silent from now on; a listener may be as long as it likes."""
        self._silent.pop(client, None)
        if client in self._registered and not client._listening:
            self._silent[client] = time.monotonic()

    def _forget(self, member: Any) -> None:
        """Nothing of the loop speaks of it any more."""
        number = self._registered.pop(member, None)
        if number is not None and self._selector is not None:
            try:
                self._selector.unregister(number)
            except KeyError:
                pass  # not waited for at the moment
        self._expecting.pop(member, None)
        self._silent.pop(member, None)
        if isinstance(member, Client):
            self._unlisten(member)

    def _accept(self) -> None:
        try:
            self.accept_client()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                return  # it went away before it was accepted
            mute = next((client for client in self._silent if not client._has_spoken), None)
            if mute is not None:
                mute.close()  # and its descriptor is for who comes next
                return
            _log.warning("No more clients for a moment: %s", error.strerror)
            self._accepting_from = time.monotonic() + _ACCEPT_PAUSE
            if self._selector is not None:
                self._selector.unregister(self._registered[self])

    def _flush(self, client: Any) -> None:
        try:
            del client._unsent[: client._sock.send(client._unsent)]
        except BlockingIOError:
            return
        except OSError:
            client.close()
            return
        if not client._unsent:
            if client in self._wlist:
                self._wlist.remove(client)
            client._answer()
        self._watch(client)

    def _watch(self, client: Client) -> None:
        """Waits for a client to read its answers, or to send something, whichever it owes."""
        if client._unsent and client not in self._wlist:
            self._wlist.append(client)
        if self._selector is not None and client in self._registered:
            events = selectors.EVENT_WRITE if client._unsent else selectors.EVENT_READ
            try:
                self._selector.modify(self._registered[client], events, client)
            except (KeyError, OSError):
                self._forget(client)  # a hook has closed its socket

    def _expect(self, client: Client) -> None:
        if client._due is None:
            self._expecting.pop(client, None)
        else:
            self._expecting[client] = client._due

    # --- Introductions

    def _listen(self, client: Client) -> None:
        client._listening = True
        self._silent.pop(client, None)
        self._listeners.setdefault(client._addr[0], OrderedDict())[client] = None

    def _unlisten(self, client: Client) -> None:
        client._listening = False
        same = self._listeners.get(client._addr[0] if client._addr else "")
        if same is not None:
            same.pop(client, None)
            if not same:
                del self._listeners[client._addr[0]]

    def _introduce(self, requester: Client, host: str) -> bool:
        """Tells the requester, then the listener, where to meet; False where there is no listener."""
        while True:
            listener = self._find(requester, host)
            if listener is None:
                return False
            self._unlisten(listener)
            if listener._alive():
                break
            listener.close()
        port = config._punch_port()
        requester.send(Message(f"*{(listener._addr[0], port)!r}"))
        listener.send(Message(f"*{(requester._addr[0], port)!r}"))
        self._heard(listener)
        return True

    def _find(self, requester: Client, host: str) -> Optional[Client]:
        """The listener to introduce to; an overridden `find_client` decides, but only listeners are told anything."""
        if self._overridden():
            self._requester = requester
            try:
                found = self.find_client(None, host, None)
            finally:
                self._requester = None
            suits = isinstance(found, Client) and found._listening and found is not requester
            return found if suits else None
        # The same without looking at every client.
        return next((client for client in self._listeners.get(host, ()) if client is not requester), None)

    def _overridden(self) -> bool:
        return getattr(self.find_client, "__func__", None) is not Server.find_client

    def _shut(self) -> None:
        for member in list(self._rlist):
            if member is not self:
                member.close()
        self._forget(self)
        self._accepting_from = None
        if self in self._rlist:
            self._rlist.remove(self)
        if self._sock is not None and self._sock.fileno() >= 0:
            self._sock.close()
            _log.info("Close server socket %s:%s", *self._addr)


_OWN_CLIENT = Client


def _ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
        return True
    except ValueError:
        return False
