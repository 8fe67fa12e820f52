"""The messages of the 2015 protocol, which clients and the server exchange over TCP.

    >host             connect me to the listener at that address
    <                 listen: tell me who wants to connect to me
    *('host', port)   go and meet the peer there
    ?                 there is no such listener
    .                 the end of the stream; nothing of it is on the wire

Nothing received is ever evaluated, and no bytes make parsing raise: what is not one of these keeps its first character
as its method and, where it is a broken `*`, has no body.
"""

import re
from typing import Optional, Tuple, Union

__all__ = ["Body", "Message"]

Body = Union[None, str, Tuple[str, int]]
"""The host of `>`, the address of `*`, nothing otherwise."""

_ADDRESS = re.compile(r"""\(\s*(?:'([^'"\\]{1,255})'|"([^'"\\]{1,255})")\s*,\s*([0-9]{1,5})\s*\)\s*""")


class Message:
    """One message: its method, one character, and its body.

    `bytes()` is what goes over the wire, `str()` the same as text.
    """

    method: str
    """The first character; `.` for empty data."""
    body: Body
    """What the method speaks of: a host for `>`, a tuple of host and port for `*`, else None."""

    def __init__(self, data: Union[bytes, bytearray, memoryview, str, "Message"] = b"") -> None:
        self.parse(data)

    def parse(self, data: Union[bytes, bytearray, memoryview, str, "Message"]) -> None:
        """Becomes the message that the data is."""
        if isinstance(data, Message):
            text = str(data)
        elif isinstance(data, str):
            text = data
        else:
            # Every byte string has a text this way, and the text gives the same bytes again.
            text = bytes(memoryview(data)).decode("utf-8", "surrogateescape")
        self.method = text[:1] or "."
        self.body = None
        self._broken = ""
        if self.method == ">":
            self.body = text[1:]
        elif self.method == "*":
            self.body = _address(text[1:])
            if self.body is None:
                self._broken = text
        elif self.method not in "<?.":
            self.body = text[1:]

    def __str__(self) -> str:
        if self.method == "*" and self.body is None:
            return self._broken or "*"
        if self.method == "*":
            return f"*{self.body!r}"
        return self.method + (self.body if isinstance(self.body, str) else "")

    def __repr__(self) -> str:
        return f"Message({bytes(self)!r})"

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def _address(text: str) -> Optional[Tuple[str, int]]:
    """Reads `('host', port)`; None for everything else."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 65536:
        return None
    return found[1] or found[2], int(found[3])
