"""Direct connections between two programs behind NATs or firewalls, in one call.

A small public server introduces the two; then they talk to each other directly.

    python -m holepunch server                     # on a host that both can reach

    with holepunch.listen("bob", servers="example.org") as listener:        # behind one NAT
        for stream in listener:
            print(stream.recv())

    with holepunch.connect("bob", servers="example.org") as stream:         # behind another
        stream.sendall(b"hello")

`connect` and `accept` give a `Stream`, whose bytes arrive complete and in order, as TCP's; `Stream.into_socket` makes a
plain socket of it, which has `makefile` and all else. Datagrams are asked for by name: `listen_datagram`,
`connect_datagram` and `accept_datagram` give a `Connection`, whose datagrams may be lost or come in another order, as
UDP's; its `into_socket` gives a plain socket too. Without `servers` the server is that of the environment's HOLEPUNCH_SERVER.

With asyncio it is the same under `holepunch.aio`, awaited.

Programs with signalling of their own, and peers that speak ICE but not holepunch: `agent` gives an `Agent`.

Every wait takes a timeout in seconds, ends at once on Ctrl-C, and can be ended from another thread, by a `Cancel` or by
`close()`. Every error is a `HolepunchError` (see `holepunch.errors`), but an argument of the wrong type. Log records go to
the logger "holepunch", which prints nothing unless the program configures `logging`.
"""

import logging as _logging
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import errors
from ._native import Agent, Cancel, Connection, Endpoint, Listener, Path, Stream, __version__
from .address import Address
from .endpoint import agent, connect, connect_datagram, listen, listen_datagram
from .errors import *

if _TYPE_CHECKING:
    from . import aio

__all__ = [
    "Address",
    "Agent",
    "Cancel",
    "Connection",
    "Endpoint",
    "Listener",
    "Path",
    "Stream",
    "__version__",
    "agent",
    "aio",
    "connect",
    "connect_datagram",
    "listen",
    "listen_datagram",
]
__all__ += errors.__all__


def __getattr__(name: str) -> _Any:
    """Imports `holepunch.aio` when it is used: programs without asyncio need not wait for that."""
    if name == "aio":
        import importlib

        return importlib.import_module("holepunch.aio")
    raise AttributeError(f"module 'holepunch' has no attribute {name!r}")


_logging.getLogger("holepunch").addHandler(_logging.NullHandler())
