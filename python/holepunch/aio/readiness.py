"""Waiting on the event loop until a descriptor is ready.

The loop watches a descriptor only while somebody waits for it, so what nobody waits for costs nothing and is freed like any
other object.
"""

import asyncio
from typing import Any, Callable, Dict, Optional, TypeVar

from ..arguments import checked
from ..errors import TimeoutError

__all__ = ["Readiness", "deadline"]

_Result = TypeVar("_Result")

_STREAK = 16
"""So many calls in a row that need not wait let the other tasks have their turn, and a cancellation take effect."""


def deadline(loop: asyncio.AbstractEventLoop, timeout: Optional[float]) -> Optional[float]:
    """The loop's time at which a timeout in seconds is over."""
    return None if timeout is None else loop.time() + checked(timeout)


class Readiness:
    """Who waits for a descriptor to be readable, or for one to be writable."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        add: Callable[..., Any],
        remove: Callable[[int], Any],
        clear: Optional[Callable[[], None]] = None,
    ) -> None:
        self._loop = loop
        self._number = number
        self._add, self._remove, self._clear = add, remove, clear
        self._waiters: Dict["asyncio.Future[bool]", None] = {}
        self._closed = False
        self._streak = 0

    async def wait(self, until: Optional[float]) -> bool:
        """Waits until the descriptor may be ready; False if the time came first."""
        waiter: "asyncio.Future[bool]" = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _settle, waiter, False)
        if not self._waiters and not self._closed:
            self._add(self._number, self._ready)
        self._waiters[waiter] = None
        if self._closed:
            _settle(waiter, True)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            del self._waiters[waiter]
            if not self._waiters and not self._closed:
                self._remove(self._number)

    async def retry(self, call: Callable[[], _Result], timeout: Optional[float]) -> _Result:
        """Repeats a call that does not block until it does not raise `TimeoutError` any more, or the time is over."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this belongs to another event loop")
        until = deadline(self._loop, timeout)
        self._streak += 1
        if self._streak >= _STREAK:
            self._streak = 0
            await asyncio.sleep(0)
        while True:
            try:
                return call()
            except TimeoutError:
                if until is not None and until <= self._loop.time():
                    raise
            self._streak = 0
            await self.wait(until)

    def close(self) -> None:
        """The descriptor is about to be closed: everybody looks again, and the loop watches it no more."""
        if self._closed:
            return
        self._closed = True
        if self._waiters and not self._loop.is_closed():
            self._remove(self._number)
            self._wake()

    def _ready(self) -> None:
        if self._clear is not None:
            self._clear()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            _settle(waiter, True)


def _settle(waiter: "asyncio.Future[bool]", ready: bool) -> None:
    if not waiter.done():
        waiter.set_result(ready)
