"""Types of the arguments that may be written in more than one way."""

from typing import Iterable, Literal, Tuple, Union

__all__ = ["Bind", "BytesLike", "Family", "LocalAddress", "Role", "Secret", "Servers"]

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
