"""How a peer that knows only the 2015 protocol is met: both are told one port, bind it, and send to each other.

Datagrams. `*` goes out at once, which opens the own firewall for what the peer sends, and again with growing pauses
until something of the peer arrives, at most 20 times in 3 s; then once more, since what was sent before may have come
before the peer had opened its own. What arrived stays readable. A silent peer is no error: the program talks first.

Streams. Both connect to each other from the port that both were told; where the two SYNs cross, that is a simultaneous
open. A refusal (RST) tells that the peer is not there yet. If it comes in less than 4 ms, crossing takes luck, so the
port listens as well, on the concrete local address (on the wildcard it would catch the own connect), and the connects
go on every 150 to 250 ms, to leave the peer's time. If it comes later, SYNs cross easily, a listener would only get in
the way, and the next connect leaves after 5 to 20 ms. Both pauses are random, for two peers in step would miss each
other for ever. Measured: 216 of 216 on loopback, on a LAN and over 20 ms. Nothing is sent on the stream.
"""

import ctypes
import errno
import ipaddress
import random
import socket
import struct
import sys
import time
import weakref
from typing import Any, List, NoReturn, Optional, Tuple

from .errors import NoPathError
from .message import Message
from ._waiting import Waiting

__all__ = ["SelfConnectError", "meet_datagram", "meet_stream"]

SockAddr = Tuple[str, int]

_KNOCK = b"*"
_KNOCKS = 20
"""Datagrams at most: the 2015 code sent one, and whoever reads them without knowing them must not drown."""
_KNOCKING = 3.0
"""Seconds until a silent peer is left to the program; `open` has to return within 5."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.025, 0.2
"""Seconds between two of them, doubling."""

_NEAR = 0.004
"""Seconds: a refusal that comes earlier is of a peer so near that SYNs hardly cross. Measured."""
_NEAR_PAUSE = (0.15, 0.25)
_FAR_PAUSE = (0.005, 0.02)
"""Seconds between two connects. Measured."""
_ATTEMPT = 1.0
"""Seconds until a connect that nothing answered gets a fresh SYN: when Linux would repeat it the first time."""
_FAILED_PAUSE = (0.15, 0.25)
"""Seconds after any other error of a connect, which may pass (no route yet, the former connection still closing)."""

_HOPELESS = {errno.EACCES, errno.EADDRINUSE, errno.EAFNOSUPPORT, errno.EINVAL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_sessions: "weakref.WeakValueDictionary[Tuple[int, SockAddr], socket.socket]" = weakref.WeakValueDictionary()
"""The datagram sockets of this process by own port and peer."""


class SelfConnectError(NoPathError):
    """The peer's address is the own one: both programs are on one machine, or the server sees both as one.

    `args[0]` is the Message that named the address.
    """

    def __init__(self, answer: Message, message: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.args = (answer,)


def meet_datagram(source: SockAddr, dest: SockAddr, waiting: Waiting) -> socket.socket:
    """A socket on the source's address and port, through which the peer was greeted."""
    _refuse_oneself(source, dest)
    sock = _datagram_socket(source, dest)
    try:
        _knock(sock, dest, waiting)
    except BaseException:
        sock.close()
        raise
    _sessions[(sock.getsockname()[1], dest)] = sock
    return sock


def _datagram_socket(source: SockAddr, dest: SockAddr) -> socket.socket:
    """Binds; a port that other sockets have too is told apart by peer, by connecting, so that none gets another's datagrams."""
    other = _sessions.get((source[1], dest))
    if other is not None and other.fileno() >= 0:
        raise OSError(errno.EADDRINUSE, f"this program has a session with {dest[0]} on port {source[1]} already")
    sock = socket.socket(_family(dest), socket.SOCK_DGRAM)
    try:
        try:
            # Without the options first: only so does the system tell that somebody has the port.
            sock.bind(_bindable(source, dest))
            shared = False
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            shared = True
        _share(sock)
        if shared:
            sock.bind(_bindable(source, dest))
            sock.connect(dest)
    except BaseException:
        sock.close()
        raise
    return sock


def _knock(sock: socket.socket, dest: SockAddr, waiting: Waiting) -> None:
    end = time.monotonic() + waiting.left(_KNOCKING)
    pause = _FIRST_PAUSE
    for _ in range(_KNOCKS - 1):
        _greet(sock, dest)
        until = min(end, time.monotonic() + pause)
        while waiting.ready([sock], at_most=max(0.0, until - time.monotonic())):
            if _heard(sock, dest):
                _greet(sock, dest)
                return
        if time.monotonic() >= end:
            return
        pause = min(2 * pause, _LONGEST_PAUSE)


def _greet(sock: socket.socket, dest: SockAddr) -> None:
    try:
        sock.sendto(_KNOCK, dest)
    except OSError as error:
        # What the network says now (refused, unreachable, filtered) may be otherwise at the next one.
        if error.errno in _HOPELESS - {errno.ENOBUFS}:
            raise


def _heard(sock: socket.socket, dest: SockAddr) -> bool:
    """Whether the first datagram is the peer's; one of anybody else is thrown away."""
    try:
        _, sender = sock.recvfrom(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if sender[0] == dest[0]:
            return True
        sock.recvfrom(1, socket.MSG_DONTWAIT)
    except OSError:
        pass  # an answer of the network to an earlier datagram, or nothing after all
    return False


def meet_stream(source: SockAddr, dest: SockAddr, waiting: Waiting) -> socket.socket:
    """A stream to the peer from the source's address and port; tries until the wait ends."""
    _refuse_oneself(source, dest)
    listener: Optional[socket.socket] = None
    try:
        while True:
            waiting.check()
            begin = time.monotonic()
            sock, failure = _attempt(source, dest, listener, waiting)
            if sock is not None:
                break
            if failure == errno.ECONNREFUSED:
                if listener is None and time.monotonic() - begin < _NEAR:
                    listener = _listener(source, dest)
                pause = random.uniform(*(_FAR_PAUSE if listener is None else _NEAR_PAUSE))
            elif failure is None:
                continue
            else:
                pause = random.uniform(*_FAILED_PAUSE)
            sock = _accepted(listener, dest, waiting, pause)
            if sock is not None:
                break
    finally:
        if listener is not None:
            listener.close()
    sock.setblocking(True)
    return sock


def _attempt(
    source: SockAddr, dest: SockAddr, listener: Optional[socket.socket], waiting: Waiting
) -> Tuple[Optional[socket.socket], Optional[int]]:
    """One connect: the stream, made by it or accepted meanwhile, or the error number, None if nothing answered."""
    sock = _stream_socket(source, dest)
    done = False
    try:
        failure = sock.connect_ex(dest)
        end = time.monotonic() + _ATTEMPT
        while failure in (errno.EINPROGRESS, errno.EAGAIN):
            listening: List[socket.socket] = [] if listener is None else [listener]
            ready = waiting.ready(listening, [sock], end - time.monotonic())
            if sock in ready:
                failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            elif ready and listener is not None:
                accepted = _accept(listener, dest)
                if accepted is not None:
                    return accepted, None
            elif time.monotonic() >= end:
                return None, None
        if failure:
            if failure in _HOPELESS:
                raise OSError(failure, f"connecting to {dest[0]} port {dest[1]}")
            return None, failure
        if sock.getsockname()[:2] == sock.getpeername()[:2]:
            _oneself(dest)
        done = True
        return sock, None
    finally:
        if not done:
            sock.close()


def _accepted(listener: Optional[socket.socket], dest: SockAddr, waiting: Waiting, pause: float) -> Optional[socket.socket]:
    """Pauses, and accepts the peer meanwhile."""
    if listener is None:
        waiting.pause(pause)
        return None
    end = time.monotonic() + pause
    while time.monotonic() < end:
        if waiting.ready([listener], at_most=end - time.monotonic()):
            sock = _accept(listener, dest)
            if sock is not None:
                return sock
    return None


def _accept(listener: socket.socket, dest: SockAddr) -> Optional[socket.socket]:
    """The peer, if it is the peer: its port may be another where a NAT chose it."""
    try:
        sock, sender = listener.accept()
    except OSError:
        return None  # it went away again
    if sender[0] == dest[0]:
        _from_all(sock)
        return sock
    sock.close()
    return None


def _stream_socket(source: SockAddr, dest: SockAddr) -> socket.socket:
    sock = socket.socket(_family(dest), socket.SOCK_STREAM)
    try:
        _share(sock)
        sock.setblocking(False)
        sock.bind(_bindable(source, dest))
    except BaseException:
        sock.close()
        raise
    return sock


def _listener(source: SockAddr, dest: SockAddr) -> socket.socket:
    sock = _stream_socket((_local_host(source, dest), source[1]), dest)
    try:
        _only_from(sock, dest[0])
        sock.listen(8)
    except BaseException:
        sock.close()
        raise
    return sock


# Linux, asm-generic/socket.h; not in the socket module.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27


def _only_from(sock: socket.socket, host: str) -> None:
    """Lets the system drop what others send to a port that two sessions of this host listen on.

    With SO_REUSEPORT it hands each connection to one of the listeners, whichever it is for; a SYN that a filter drops is
    repeated, and found by the other. Where there are no such filters, or the peer has an IPv6 address, the wrong one
    is closed when it was accepted.
    """
    if sys.platform != "linux" or ":" in host:
        return
    source = int(ipaddress.IPv4Address(host))
    program = [  # classic BPF: accept if the IPv4 source is the host
        (0x20, 0, 0, 0xFFF0000C),  # load a word at 12 from the network header
        (0x15, 0, 1, source),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    try:
        address = ctypes.addressof(buffer)
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), address))
    except OSError:
        pass  # a system that forbids it


def _from_all(sock: socket.socket) -> None:
    """Takes the listener's filter off a connection, which is the program's."""
    if sys.platform == "linux":
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        except OSError:
            pass  # there was none


def _share(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _family(dest: SockAddr) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in dest[0] else socket.AF_INET


def _bindable(source: SockAddr, dest: SockAddr) -> Any:
    return (source[0] or ("::" if ":" in dest[0] else "0.0.0.0"), source[1])


def _local_host(source: SockAddr, dest: SockAddr) -> str:
    """The concrete local address of packets to the peer. Connecting a datagram socket sends nothing."""
    with socket.socket(_family(dest), socket.SOCK_DGRAM) as probe:
        probe.bind(_bindable((source[0], 0), dest))
        probe.connect(dest)
        host: str = probe.getsockname()[0]
        return host


def _refuse_oneself(source: SockAddr, dest: SockAddr) -> None:
    """A stream connects to itself if it is asked to, and greetings come back: neither is a peer."""
    if source[1] != dest[1]:
        return
    try:
        local = _local_host(source, dest)
    except OSError:
        return  # no route now; the attempts will tell
    if local == dest[0]:
        _oneself(dest)


def _oneself(dest: SockAddr) -> NoReturn:
    raise SelfConnectError(
        Message(f"*{dest!r}"),
        f"the peer's address {dest[0]} port {dest[1]} is this program's own",
        "two programs on one machine need two addresses: give each its own bind address",
    )
