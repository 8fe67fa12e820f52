"""Meeting a peer that knows only the 2015 protocol: what the Rust core does (`src/legacy`), with the exceptions of 2015."""

import ipaddress
import socket
from typing import Callable, Tuple

from . import _native
from .errors import NoPathError
from .message import Message
from ._waiting import Waiting, resolve

__all__ = ["SelfConnectError", "meet_datagram", "meet_stream"]

SockAddr = Tuple[str, int]


class SelfConnectError(NoPathError):
    """The peer's address is the own one: both programs are on one machine, or the server sees both as one.

    `args[0]` is the Message that named the address.
    """

    def __init__(self, answer: Message, message: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.args = (answer,)


def meet_datagram(source: SockAddr, dest: SockAddr, waiting: Waiting) -> socket.socket:
    """A socket on the source's address and port, through which the peer was greeted."""
    return _meet(_native.meet_datagram, source, dest, waiting)


def meet_stream(source: SockAddr, dest: SockAddr, waiting: Waiting) -> socket.socket:
    """A stream to the peer from the source's address and port; tries until the wait ends."""
    return _meet(_native.meet_stream, source, dest, waiting)


def _meet(how: Callable[..., socket.socket], source: SockAddr, dest: SockAddr, waiting: Waiting) -> socket.socket:
    try:
        return waiting.call(how, _literal(source, waiting), _literal(dest, waiting))
    except NoPathError as error:
        raise SelfConnectError(Message(f"*{dest!r}"), error.message, error.hint) from None


def _literal(addr: SockAddr, waiting: Waiting) -> SockAddr:
    """The address with an IP address for a host name, which programs may give to the hook."""
    host, port = addr
    try:
        if host:
            ipaddress.ip_address(host)
        return addr
    except ValueError:
        found: str = resolve(host, port, 0, waiting)[0][1][0]
        return found, port
