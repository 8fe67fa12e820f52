"""The settings of the 2015 modules: where the server is, which port peers meet on, which local address to use.

A program assigns to them while it runs. `SERVER_HOST` and `SERVER_PORT` are read when a client or a server is made;
`HOLEPUNCH_PORT` is read by the server for each answer; `BIND_HOST` is read when a client is made. An argument of a
constructor comes before a value that the program assigned, that before the environment (`HOLEPUNCH_SERVER=host[:port]`,
`HOLEPUNCH_BIND=address`, `HOLEPUNCH_PORT=port`), and that before what stands here.
"""

import contextlib
import os
import sys
import types
from typing import Callable, Iterator, List, Set, Tuple

__all__ = ["BIND_HOST", "HOLEPUNCH_PORT", "SERVER_HOST", "SERVER_PORT"]

SERVER_HOST: str = "0.0.0.0"
"""The server's host name or address: a server listens there, a client connects there (0.0.0.0 is this machine)."""

SERVER_PORT: int = 20000
"""The server's TCP port."""

HOLEPUNCH_PORT: int = 20001
"""The port on which the server tells two peers to meet."""

BIND_HOST: str = ""
"""The local address of a client, toward the server and toward its peer; empty leaves it to the system."""

_assigned: Set[str] = set()
_listening: List[Callable[[], None]] = []


class _Settings(types.ModuleType):
    """A module that knows which of its values the program assigned, because those come before the environment."""

    def __setattr__(self, name: str, value: object) -> None:
        _assigned.add(name)
        super().__setattr__(name, value)
        for tell in tuple(_listening):
            tell()


sys.modules[__name__].__class__ = _Settings


@contextlib.contextmanager
def _told(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` after each assignment, in the thread that assigns."""
    _listening.append(tell)
    try:
        yield
    finally:
        _listening.remove(tell)


def _client_server() -> Tuple[str, int]:
    """The server that a client made now uses."""
    host, port = SERVER_HOST, SERVER_PORT
    environment = os.environ.get("HOLEPUNCH_SERVER", "")
    if environment:
        named_host, named_port = _host_and_port(environment, port)
        host = host if "SERVER_HOST" in _assigned else named_host
        port = port if "SERVER_PORT" in _assigned else named_port
    return host, port


def _bind_host() -> str:
    """The local address that a client made now uses; the environment may give a port, which is not for these modules."""
    environment = os.environ.get("HOLEPUNCH_BIND", "")
    if "BIND_HOST" in _assigned or not environment:
        return BIND_HOST
    return _host_and_port(environment, 0)[0]


def _punch_port() -> int:
    """The port that an answer given now names."""
    environment = os.environ.get("HOLEPUNCH_PORT", "")
    if "HOLEPUNCH_PORT" in _assigned or not environment:
        return HOLEPUNCH_PORT
    if not environment.isdecimal() or not 0 < int(environment) < 65536:
        raise ValueError(f"HOLEPUNCH_PORT is no port: {environment!r}; it is a number from 1 to 65535")
    return int(environment)


def _host_and_port(text: str, port: int) -> Tuple[str, int]:
    """Splits `host`, `host:port`, `v6` or `[v6]:port`."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or rest and not rest.startswith(":"):
            raise ValueError(f"no host, or host and port: {text!r}; an IPv6 address with a port is [v6]:port")
        given = rest[1:]
    elif text.count(":") == 1:
        host, given = text.split(":")
    else:
        host, given = text, ""
    if not given:
        return host, port
    if not given.isdecimal() or int(given) > 65535:
        raise ValueError(f"no port: {given!r} in {text!r}")
    return host, int(given)
