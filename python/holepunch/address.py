"""A transport address: the `(host, port)` that sockets take, printed as people write it."""

from typing import NamedTuple

__all__ = ["Address"]


class Address(NamedTuple):
    """An IP address and a port. A tuple, so `socket.sendto(data, address)` takes it; `str` gives `ip:port` or `[v6]:port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
