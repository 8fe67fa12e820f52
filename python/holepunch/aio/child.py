"""What comes from an endpoint: it is closed by hand, with its endpoint, or at the end of an `async with`."""

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Protocol, Type, TypeVar

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Child"]

_Self = TypeVar("_Self", bound="Child")


class _Native(Protocol):
    def _close(self) -> None: ...


class Child:
    """What listeners, agents, streams and connections have in common."""

    def __init__(self, endpoint: "Endpoint", native: _Native) -> None:
        self._endpoint = endpoint
        self._closable = native
        self._closed = False
        endpoint._children.add(self)

    def close(self) -> None:
        """Closes it; what waits fails with `ClosedError`. Returns at once; any number of times."""
        if not self._closed:
            self._closed = True
            self._before_close()
            self._closable._close()
            self._endpoint._left(self)

    async def wait_closed(self) -> None:
        """Waits until its peer or server knows, where an endpoint was made for this alone; 3 seconds at most."""
        await self._endpoint._wait_left()

    def _before_close(self) -> None:
        """What is to be done while its descriptors are open."""

    async def __aenter__(self: _Self) -> _Self:
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
        return repr(self._closable).replace("<holepunch.", "<holepunch.aio.", 1)
