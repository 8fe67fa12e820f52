"""What `connect` and `listen` return: a coroutine that may be entered with `async with`, too."""

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generator, Optional, Protocol, Type, TypeVar

__all__ = ["Opening"]


class _Closable(Protocol):
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


_Opened = TypeVar("_Opened", bound=_Closable)


class Opening(Coroutine[Any, Any, _Opened]):
    """Await it, make a task of it, or enter it with `async with`, which closes what it gave. Good for one use."""

    def __init__(self, coroutine: Coroutine[Any, Any, _Opened]) -> None:
        self._coroutine = coroutine
        self._opened: Optional[_Opened] = None

    def __await__(self) -> Generator[Any, Any, _Opened]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Runs it on, as of every coroutine."""
        return self._coroutine.send(value)

    def throw(self, *arguments: Any) -> Any:
        """Runs it on with an exception, as of every coroutine."""
        return self._coroutine.throw(*arguments)

    def close(self) -> None:
        """Ends it, as of every coroutine."""
        self._coroutine.close()

    async def __aenter__(self) -> _Opened:
        self._opened = await self._coroutine
        return self._opened

    async def __aexit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            await self._opened.wait_closed()
