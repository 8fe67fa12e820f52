"""Listening and connecting in one call, with an endpoint made for it.

The endpoint lives as long as what it made. Programs that listen and connect, or connect to many peers, share one
`Endpoint` instead.
"""

from typing import Optional

from ._native import Agent, Cancel, Connection, Endpoint, Listener, Stream
from .arguments import Bind, Family, Role, Secret, Servers

__all__ = ["agent", "connect", "connect_datagram", "listen", "listen_datagram"]


def listen(
    name: Optional[str] = None,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    timeout: Optional[float] = 30.0,
    cancel: Optional[Cancel] = None,
) -> Listener[Stream]:
    """Registers a listener and returns when a server has it; iterating it gives streams.

    Arguments as of `Endpoint` and `Endpoint.listen`.
    """
    endpoint = Endpoint(servers, bind=bind, family=family, secret=secret)
    return endpoint.listen(name, timeout=timeout, cancel=cancel)


def connect(
    target: str,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    wait: Optional[float] = 10.0,
    timeout: Optional[float] = 30.0,
    cancel: Optional[Cancel] = None,
) -> Stream:
    """Connects to a listener, for a stream of bytes; arguments as of `Endpoint` and `Endpoint.connect`."""
    endpoint = Endpoint(servers, bind=bind, family=family, secret=secret)
    return endpoint.connect(target, wait=wait, timeout=timeout, cancel=cancel)


def listen_datagram(
    name: Optional[str] = None,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    timeout: Optional[float] = 30.0,
    cancel: Optional[Cancel] = None,
) -> Listener[Connection]:
    """As `listen`, but iterating the listener gives connections for datagrams."""
    endpoint = Endpoint(servers, bind=bind, family=family, secret=secret)
    return endpoint.listen_datagram(name, timeout=timeout, cancel=cancel)


def connect_datagram(
    target: str,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    wait: Optional[float] = 10.0,
    timeout: Optional[float] = 30.0,
    cancel: Optional[Cancel] = None,
) -> Connection:
    """As `connect`, but for datagrams."""
    endpoint = Endpoint(servers, bind=bind, family=family, secret=secret)
    return endpoint.connect_datagram(target, wait=wait, timeout=timeout, cancel=cancel)


def agent(
    role: Role,
    *,
    stun_servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    timeout: Optional[float] = 30.0,
    cancel: Optional[Cancel] = None,
) -> Agent:
    """Begins a negotiation of ICE with signalling of the program's own; arguments as of `Endpoint` and `Endpoint.agent`."""
    endpoint = Endpoint(bind=bind, family=family)
    return endpoint.agent(role, stun_servers=stun_servers, timeout=timeout, cancel=cancel)
