"""One wait of the 2015 modules: for sockets or the core, until a deadline, until Ctrl-C, or until another thread ends it.

Everything in these modules that can block waits here. Python runs signal handlers while a selector waits, and the core
runs them in its waits, so Ctrl-C is answered at once.
"""

import errno
import math
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Any, Callable, List, Optional, Sequence, Tuple, Type, TypeVar

from ._native import Cancel
from .arguments import checked
from .errors import HolepunchError, TimeoutError

__all__ = ["Waiting", "resolve"]

_Result = TypeVar("_Result")

_LONGEST = 86_400.0
"""Seconds that the system is asked to wait at once: it takes no more than some 24 days."""


class Waiting:
    """A deadline and a wake-up for everything that one call does. A context manager."""

    def __init__(self, timeout: Optional[float] = None, what: str = "open") -> None:
        self._deadline = math.inf if timeout is None else time.monotonic() + checked(timeout)
        self._timeout = timeout
        self._what = what
        self._lock = threading.RLock()
        self._token: Optional[Cancel] = Cancel()
        self._cancelled = False

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(
        self,
        _type: Optional[Type[BaseException]],
        _value: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        with self._lock:
            self._token = None

    def cancel(self) -> None:
        """Ends the wait of another thread, whose call raises OSError (EBADF), as every call on what is closed."""
        with self._lock:
            self._cancelled = True
            if self._token is not None:
                self._token.cancel()

    def check(self) -> None:
        """Raises if the call was ended, or its deadline has passed."""
        if self._cancelled:
            raise OSError(errno.EBADF, f"{self._what}: closed by another thread")
        if time.monotonic() >= self._deadline:
            raise TimeoutError(f"{self._what}: not done within {self._timeout:g} s", "allow more time")

    def left(self, at_most: float = math.inf) -> float:
        """Seconds until the deadline, or `at_most`."""
        return max(0.0, min(at_most, self._deadline - time.monotonic()))

    def ready(
        self,
        reading: Sequence[socket.socket] = (),
        writing: Sequence[socket.socket] = (),
        at_most: float = math.inf,
    ) -> List[socket.socket]:
        """Waits for the first of the sockets to be ready; empty after `at_most` seconds."""
        until = time.monotonic() + at_most
        with selectors.DefaultSelector() as selector:
            selector.register(self._token, selectors.EVENT_READ)  # type: ignore[arg-type]
            for sock in reading:
                selector.register(sock, selectors.EVENT_READ)
            for sock in writing:
                selector.register(sock, selectors.EVENT_WRITE)
            while True:
                events = selector.select(min(_LONGEST, self.left(until - time.monotonic())))
                found = [key.fileobj for key, _ in events if key.fileobj is not self._token]
                if found and not self._cancelled:
                    return [sock for sock in found if isinstance(sock, socket.socket)]
                if time.monotonic() >= until and not self._cancelled:
                    return []
                self.check()

    def call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Runs a call of the core for as long as this wait lasts. What the system said is an OSError, as in 2015."""
        self.check()
        seconds = self.left()
        try:
            return function(*arguments, timeout=None if seconds == math.inf else seconds, cancel=self._token)
        except HolepunchError as error:
            self.check()
            if error.os_errno is None:
                raise
            raise OSError(error.os_errno, error.message) from error


def resolve(host: str, port: int, family: int, waiting: Waiting) -> List[Tuple[int, Any]]:
    """The families and socket addresses of a host, IPv4 first.

    Looking up a name can take long, so a thread does it, which the wait leaves behind.
    """
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        found = _look_up(host, port, family, waiting)
    return sorted(((entry[0], entry[4]) for entry in found), key=lambda entry: entry[0] != socket.AF_INET)


def _look_up(host: str, port: int, family: int, waiting: Waiting) -> List[Any]:
    reader, writer = socket.socketpair()
    results: List[Any] = []

    def work() -> None:
        with writer:
            try:
                results.append(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                results.append(error)

    with reader:
        threading.Thread(target=work, name="holepunch-resolve", daemon=True).start()
        waiting.ready([reader])
    result = results[0]
    if isinstance(result, UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, f"no host name: {host!r}") from result
    if isinstance(result, Exception):
        raise result
    found: List[Any] = result
    return found
