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
from ..arguments import Bind, Family, Secret, Servers
from ..errors import ClosedError, TimeoutError
from .channels import Connection, Stream
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
        native = await self._start(lambda cancel: self._native._start_listen(name, datagrams, timeout, cancel))
        try:
            while not native._poll_listening():
                if not await self._changes.wait(until):
                    raise TimeoutError("no server has answered in time", "allow more time")
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
            lambda cancel: self._native._start_connect(target, datagrams, wait, timeout, cancel)
        )
        try:
            while True:
                outcome = connecting.poll()
                if outcome is not None:
                    return outcome
                await self._changes.wait(None)
        finally:
            connecting.close()

    async def _start(self, start: Callable[[Optional[_native.Cancel]], _Result]) -> _Result:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the endpoint belongs to another event loop")
        if self._native._looks_up_names():
            return await self._in_thread(start)
        return start(None)

    async def _in_thread(self, call: Callable[[_native.Cancel], _Result]) -> _Result:
        """Runs a call that blocks in a thread of the loop's executor, and ends it when the task is cancelled."""
        cancel = _native.Cancel()
        try:
            return await self._loop.run_in_executor(None, call, cancel)
        finally:
            cancel.cancel()


class Listener(Generic[_Accepted]):
    """A listener: registered with the servers, it accepts many peers, until it is closed.

    `accept` and `accept_datagram` may both be used, by several tasks at once. `async for` accepts streams (one from `listen`)
    or connections for datagrams (one from `listen_datagram`), and ends when the listener is closed.
    """

    def __init__(self, endpoint: Endpoint, native: "_native.Listener[_native.Stream]", datagrams: bool) -> None:
        self._endpoint = endpoint
        self._native = native
        self._datagrams = datagrams
        self._closed = False
        endpoint._children.add(self)

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

    def close(self) -> None:
        """Closes the listener; its name is free again at once. What waits fails with `ClosedError`, connections live on."""
        if not self._closed:
            self._closed = True
            self._native._close()
            self._endpoint._left(self)

    async def wait_closed(self) -> None:
        """Waits until all is closed that an endpoint made for this listener alone had to close; 3 seconds at most."""
        await self._endpoint._wait_left()

    async def __aenter__(self) -> "Listener[_Accepted]":
        return self

    async def __aexit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()
        await self.wait_closed()

    def __aiter__(self) -> "Listener[_Accepted]":
        return self

    async def __anext__(self) -> _Accepted:
        try:
            accepted = await (self.accept_datagram() if self._datagrams else self.accept())
        except ClosedError:
            raise StopAsyncIteration from None
        return cast(_Accepted, accepted)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self)
            self.close()

    def __repr__(self) -> str:
        return repr(self._native).replace("<holepunch.", "<holepunch.aio.", 1)
