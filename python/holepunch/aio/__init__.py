"""The same with asyncio: listening, connecting, streams and datagrams that are awaited.

    async with holepunch.aio.listen("bob", servers="example.org") as listener:      # behind one NAT
        async for stream in listener:
            print(await stream.recv())

    async with holepunch.aio.connect("bob", servers="example.org") as stream:       # behind another
        await stream.sendall(b"hello")

Names, arguments and exceptions are those of `holepunch`; what they do is said there. `connect`, `listen` and `agent` may be
awaited or entered with `async with`, which closes what they gave. Every wait ends at once when its task is cancelled
(`asyncio.timeout`, a task group, Ctrl-C), and leaves nothing half-open.

Objects belong to the event loop that was running when they were made, and must be used there. Nothing blocks the loop, and
no wait needs a thread: an endpoint's own thread answers servers and peers even while the loop is busy, and wakes the loop.
Only looking up a server's name (an agent's STUN servers always) and `Connection.end` borrow a thread of the loop's
executor. `close()` returns at once, and `wait_closed()` waits until the peers know (3 seconds at most), as asyncio has it;
leaving `async with` does both.
"""

from typing import Optional

from .._native import Path
from ..arguments import Bind, Family, Role, Secret, Servers
from .agent import Agent
from .channels import Connection, Stream
from .endpoint import Endpoint, Listener
from .opening import Opening

__all__ = [
    "Agent",
    "Connection",
    "Endpoint",
    "Listener",
    "Opening",
    "Path",
    "Stream",
    "agent",
    "connect",
    "connect_datagram",
    "listen",
    "listen_datagram",
]


def listen(
    name: Optional[str] = None,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    timeout: Optional[float] = 30.0,
) -> Opening[Listener[Stream]]:
    """Registers a listener, with an endpoint of its own; iterating it gives streams. Await it, or enter it with `async with`.

    The endpoint lives as long as the listener and what it accepted.
    """

    async def opening() -> Listener[Stream]:
        endpoint = Endpoint._for_one(servers, bind, family, secret)
        return await endpoint._alone(endpoint._listen(Listener[Stream], name, False, timeout))

    return Opening(opening())


def connect(
    target: str,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    wait: Optional[float] = 10.0,
    timeout: Optional[float] = 30.0,
) -> Opening[Stream]:
    """Connects to a listener for a stream of bytes, with an endpoint of its own. Await it, or enter it with `async with`."""

    async def opening() -> Stream:
        endpoint = Endpoint._for_one(servers, bind, family, secret)
        return await endpoint._alone(endpoint._connect(target, wait, timeout))

    return Opening(opening())


def listen_datagram(
    name: Optional[str] = None,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    timeout: Optional[float] = 30.0,
) -> Opening[Listener[Connection]]:
    """As `listen`, but iterating the listener gives connections for datagrams."""

    async def opening() -> Listener[Connection]:
        endpoint = Endpoint._for_one(servers, bind, family, secret)
        return await endpoint._alone(endpoint._listen(Listener[Connection], name, True, timeout))

    return Opening(opening())


def connect_datagram(
    target: str,
    *,
    servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    secret: Optional[Secret] = None,
    wait: Optional[float] = 10.0,
    timeout: Optional[float] = 30.0,
) -> Opening[Connection]:
    """As `connect`, but for datagrams."""

    async def opening() -> Connection:
        endpoint = Endpoint._for_one(servers, bind, family, secret)
        return await endpoint._alone(endpoint._connect_datagram(target, wait, timeout))

    return Opening(opening())


def agent(
    role: Role,
    *,
    stun_servers: Optional[Servers] = None,
    bind: Optional[Bind] = None,
    family: Optional[Family] = None,
    timeout: Optional[float] = 30.0,
) -> Opening[Agent]:
    """Begins a negotiation of ICE with signalling of the program's own, with an endpoint of its own."""

    async def opening() -> Agent:
        endpoint = Endpoint._for_one(None, bind, family, None)
        return await endpoint._alone(endpoint._agent(role, stun_servers, timeout))

    return Opening(opening())
