"""Types of the arguments that may be written in more than one way, and what a timeout may be."""

from typing import Iterable, Literal, Tuple, Union

from .errors import InvalidArgumentError

__all__ = ["Bind", "BytesLike", "Family", "LocalAddress", "Role", "Secret", "Servers", "checked"]

BytesLike = Union[bytes, bytearray, memoryview]
"""What can be sent. Everything else with the buffer protocol works too."""

Servers = Union[str, Iterable[str]]
"""One server or several, each `host[:port]` or `[v6]:port`."""

LocalAddress = Union[str, Tuple[str, int]]
"""`ip`, `ip:port`, `[v6]:port` or `(ip, port)`; port 0 or none leaves the choice to the system."""

Bind = Union[LocalAddress, Iterable[LocalAddress]]
"""One local address or several, at most one of each family."""

Family = Literal[4, 6]
"""The only address family to use."""

Role = Literal["controlling", "controlled"]
"""Which side of a negotiation of ICE makes the choice."""

Secret = Union[str, BytesLike]
"""At least 16 bytes that both peers know and the server does not; a str counts as UTF-8."""


def checked(timeout: float) -> float:
    """The timeout, in seconds, if it is one; the core checks those that it is given in the same way."""
    if not timeout >= 0:
        hint = "a timeout is a number of seconds, not negative; None waits for ever"
        raise InvalidArgumentError(f"{timeout:g} s is no timeout", hint)
    return timeout
