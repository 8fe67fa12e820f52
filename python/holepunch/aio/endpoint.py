"""`Endpoint` and `Listener`: where streams and connections come from, awaited.

What is started goes on in the endpoint's thread. The endpoint's descriptor becomes readable when something has changed;
then everybody who waits polls what it started.
"""

import asyncio
import warnings
from types import TracebackType
from typing import Any, Awaitable, Callable, Generic, List, Optional, Type, TypeVar, Union, cast
from weakref import WeakSet

from .. import _native
from ..address import Address
from ..arguments import Bind, Family, Role, Secret, Servers
from ..errors import ClosedError, TimeoutError
from .agent import Agent
from .channels import Connection, Stream
from .child import Child
from .opening import Opening
from .readiness import Readiness, deadline

__all__ = ["Endpoint", "Listener"]

_Result = TypeVar("_Result")
_Accepted = TypeVar("_Accepted", Stream, Connection)


class Endpoint:
    """Where listeners and connections come from; arguments as of `holepunch.Endpoint`.

    It is made while an event loop runs, and belongs to that.
    """

    def __init__(
        self,
        servers: Optional[Servers] = None,
        *,
        bind: Optional[Bind] = None,
        family: Optional[Family] = None,
        secret: Optional[Secret] = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._children: "WeakSet[Any]" = WeakSet()
        self._lasting = True
        self._closing: Optional[Awaitable[None]] = None
        self._native = _native.Endpoint(servers, bind=bind, family=family, secret=secret, _wakeup=True)
        self._closed = False
        self._changes = Readiness(
            self._loop,
            self._native._wakeup_fileno(),
            self._loop.add_reader,
            self._loop.remove_reader,
            self._native._clear_wakeup,
        )

    def listen(self, name: Optional[str] = None, *, timeout: Optional[float] = 30.0) -> "Opening[Listener[Stream]]":
        """Registers a listener, once a server has it. Iterating it gives streams. Await it, or enter it with `async with`."""
        return Opening(self._listen(Listener[Stream], name, False, timeout))

    def listen_datagram(
        self, name: Optional[str] = None, *, timeout: Optional[float] = 30.0
    ) -> "Opening[Listener[Connection]]":
        """As `listen`, but iterating the listener gives connections for datagrams."""
        return Opening(self._listen(Listener[Connection], name, True, timeout))

    def connect(self, target: str, *, wait: Optional[float] = 10.0, timeout: Optional[float] = 30.0) -> Opening[Stream]:
        """Connects to a listener, for a stream of bytes. Await it, or enter it with `async with`."""
        return Opening(self._connect(target, wait, timeout))

    def connect_datagram(
        self, target: str, *, wait: Optional[float] = 10.0, timeout: Optional[float] = 30.0
    ) -> Opening[Connection]:
        """As `connect`, but for datagrams."""
        return Opening(self._connect_datagram(target, wait, timeout))

    def agent(
        self, role: Role, *, stun_servers: Optional[Servers] = None, timeout: Optional[float] = 30.0
    ) -> Opening[Agent]:
        """Begins a negotiation of ICE with signalling of the program's own. Await it, or enter it with `async with`."""
        return Opening(self._agent(role, stun_servers, timeout))

    def close(self) -> None:
        """Closes the endpoint with all that came from it. Peers and servers are told in the background. Any number of times."""
        if self._closed:
            return
        self._closed = True
        # At once, and then without blocking the loop until the peers know.
        self._native._end()
        for child in list(self._children):
            child.close()
        self._changes.close()
        if self._loop.is_closed():
            self._native.close()
        else:
            self._closing = self._loop.run_in_executor(None, self._native.close)

    async def wait_closed(self) -> None:
        """After `close`, waits until the peers know, 3 seconds at most."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        await self.wait_closed()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self)
            self.close()

    def __repr__(self) -> str:
        return repr(self._native).replace("<holepunch.", "<holepunch.aio.", 1)

    # --- An endpoint for one thing lives as long as what came of that

    @classmethod
    def _for_one(
        cls,
        servers: Optional[Servers],
        bind: Optional[Bind],
        family: Optional[Family],
        secret: Optional[Secret],
    ) -> "Endpoint":
        endpoint = cls(servers, bind=bind, family=family, secret=secret)
        endpoint._lasting = False
        return endpoint

    async def _alone(self, opening: Awaitable[_Result]) -> _Result:
        """What was opened with an endpoint for it; where that fails, the endpoint is closed."""
        try:
            return await opening
        except BaseException:
            self.close()
            raise

    def _left(self, child: object) -> None:
        """One of its children was closed."""
        self._children.discard(child)
        if not self._lasting and not self._children:
            self.close()

    async def _wait_left(self) -> None:
        if not self._lasting:
            await self.wait_closed()

    # --- Starting things

    async def _listen(
        self, kind: "Type[Listener[_Accepted]]", name: Optional[str], datagrams: bool, timeout: Optional[float]
    ) -> "Listener[_Accepted]":
        until = deadline(self._loop, timeout)
        native = await self._start(
            lambda cancel: self._native._start_listen(name, datagrams, timeout, cancel), self._native._looks_up_names()
        )
        try:
            await self._until(lambda: native._poll_listening() or None, until, "no server has answered")
        except BaseException:
            native._close()
            raise
        return kind(self, native, datagrams)

    async def _connect(self, target: str, wait: Optional[float], timeout: Optional[float]) -> Stream:
        return Stream(self, cast(_native.Stream, await self._reach(target, False, wait, timeout)))

    async def _connect_datagram(self, target: str, wait: Optional[float], timeout: Optional[float]) -> Connection:
        return Connection(self, cast(_native.Connection, await self._reach(target, True, wait, timeout)))

    async def _reach(
        self, target: str, datagrams: bool, wait: Optional[float], timeout: Optional[float]
    ) -> Union[_native.Stream, _native.Connection]:
        connecting = await self._start(
            lambda cancel: self._native._start_connect(target, datagrams, wait, timeout, cancel),
            self._native._looks_up_names(),
        )
        try:
            return await self._until(connecting.poll, None, "")
        finally:
            connecting.close()

    async def _agent(self, role: Role, stun_servers: Optional[Servers], timeout: Optional[float]) -> Agent:
        native = await self._start(
            lambda cancel: self._native.agent(role, stun_servers=stun_servers, timeout=timeout, cancel=cancel),
            stun_servers is not None,
        )
        return Agent(self, native)

    async def _start(self, start: Callable[[Optional[_native.Cancel]], _Result], looks_up: bool) -> _Result:
        """Runs a call that starts something, in a thread where it may look up names."""
        self._check_loop()
        return await self._in_thread(start) if looks_up else start(None)

    async def _until(self, poll: Callable[[], Optional[_Result]], until: Optional[float], late: str) -> _Result:
        """What a poll finds, once it finds something; `late` says what it has not, when the loop's time is over."""
        self._check_loop()
        while True:
            outcome = poll()
            if outcome is not None:
                return outcome
            if not await self._changes.wait(until):
                raise TimeoutError(f"{late} in time", "allow more time")

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the endpoint belongs to another event loop")

    async def _in_thread(self, call: Callable[[_native.Cancel], _Result]) -> _Result:
        """Runs a call that blocks in a thread of the loop's executor, and ends it when the task is cancelled."""
        cancel = _native.Cancel()
        try:
            return await self._loop.run_in_executor(None, call, cancel)
        finally:
            cancel.cancel()


class Listener(Child, Generic[_Accepted]):
    """A listener: registered with the servers, it accepts many peers, until it is closed.

    `accept` and `accept_datagram` may both be used, by several tasks at once. `async for` accepts streams (one from `listen`)
    or connections for datagrams (one from `listen_datagram`), and ends when the listener is closed. Then its name is free
    again at once, and connections live on.
    """

    def __init__(self, endpoint: Endpoint, native: "_native.Listener[_native.Stream]", datagrams: bool) -> None:
        super().__init__(endpoint, native)
        self._native = native
        self._datagrams = datagrams

    async def accept(self, timeout: Optional[float] = None) -> Stream:
        """Waits for a peer and returns the stream to it. A peer that could not be met ends nothing."""
        native = await self._endpoint._changes.retry(lambda: self._native.accept(0), timeout)
        return Stream(self._endpoint, native)

    async def accept_datagram(self, timeout: Optional[float] = None) -> Connection:
        """Waits for a peer and returns the connection with it, for datagrams. A peer that could not be met ends nothing."""
        native = await self._endpoint._changes.retry(lambda: self._native.accept_datagram(0), timeout)
        return Connection(self._endpoint, native)

    @property
    def name(self) -> Optional[str]:
        """The name that it is found by; None when it is found by its public address."""
        return self._native.name

    @property
    def mapped(self) -> List[Address]:
        """Our addresses as the servers see them."""
        return self._native.mapped

    def __aiter__(self) -> "Listener[_Accepted]":
        return self

    async def __anext__(self) -> _Accepted:
        try:
            accepted = await (self.accept_datagram() if self._datagrams else self.accept())
        except ClosedError:
            raise StopAsyncIteration from None
        return cast(_Accepted, accepted)
