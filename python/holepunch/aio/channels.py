"""`Stream` and `Connection`: what goes to and comes from one peer, awaited."""

import asyncio
import socket
from typing import TYPE_CHECKING, Optional, Tuple, Union

from .. import _native
from .._native import Path
from ..arguments import BytesLike
from .child import Child
from .readiness import Readiness

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Connection", "Stream"]

_PIECE = 1 << 18
"""Bytes given to the system at once; each piece is copied."""


class _Common(Child):
    """What both have."""

    def __init__(self, endpoint: "Endpoint", native: Union[_native.Stream, _native.Connection]) -> None:
        super().__init__(endpoint, native)
        loop = endpoint._loop
        self._common = native
        self._reading = Readiness(loop, native.fileno(), loop.add_reader, loop.remove_reader)
        self._writing = Readiness(loop, native.fileno(), loop.add_writer, loop.remove_writer)

    @property
    def path(self) -> Path:
        """The path that was found."""
        return self._common.path

    @property
    def rtt(self) -> float:
        """The smoothed round-trip time, in seconds."""
        return self._common.rtt

    @property
    def session(self) -> str:
        """The session's identifier, the same on both sides, in hexadecimal."""
        return self._common.session

    def fileno(self) -> int:
        """The socket's descriptor; -1 once closed."""
        return self._common.fileno()

    def _before_close(self) -> None:
        self._reading.close()
        self._writing.close()


class Stream(_Common):
    """A stream of bytes to and from one peer, complete and in order: a TCP connection.

    One task may send while another receives.
    """

    def __init__(self, endpoint: "Endpoint", native: _native.Stream) -> None:
        super().__init__(endpoint, native)
        self._native = native

    async def recv(self, max: int = 65536, *, timeout: Optional[float] = None) -> bytes:
        """Waits for bytes and returns at most `max` of them; b"" at the end of the peer's data."""
        return await self._reading.retry(lambda: self._native.recv(max, timeout=0), timeout)

    async def send(self, data: BytesLike, *, timeout: Optional[float] = None) -> int:
        """Sends some bytes, as many as the system takes, and returns how many; waits only while it takes none."""
        return await self._writing.retry(lambda: self._native.send(data, timeout=0), timeout)

    async def sendall(self, data: BytesLike, *, timeout: Optional[float] = None) -> None:
        """Sends all of the bytes. After an exception, or a cancellation, it is not known how many were sent."""
        left = memoryview(data).cast("B")

        def some() -> bool:
            nonlocal left
            while left:
                left = left[self._native.send(left[:_PIECE], timeout=0) :]
            return True

        await self._writing.retry(some, timeout)

    def shutdown(self) -> None:
        """Ends our data: the peer receives what was sent, then b"". Receiving goes on."""
        self._native.shutdown()

    def into_socket(self) -> socket.socket:
        """Gives the socket away: connected, blocking, with nothing of this package on it. The stream is as good as closed."""
        self._closed = True
        self._before_close()
        given = self._native.into_socket()
        self._endpoint._left(self)
        return given

    async def into_streams(self, limit: int = 65536) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Makes asyncio's own reader and writer of the stream, which is as good as closed."""
        sock = self.into_socket()
        try:
            return await asyncio.open_connection(sock=sock, limit=limit)
        except BaseException:
            sock.close()
            raise


class Connection(_Common):
    """A connection with one peer, for datagrams of at most 1,200 bytes; like UDP itself it may lose or reorder them.

    One task may send while another receives.
    """

    def __init__(self, endpoint: "Endpoint", native: _native.Connection) -> None:
        super().__init__(endpoint, native)
        self._native = native

    async def send(self, data: BytesLike, *, timeout: Optional[float] = None) -> None:
        """Sends one datagram: any bytes-like object of at most 1,200 bytes. Waits only while the system has no room for it."""
        await self._writing.retry(lambda: self._native.send(data, timeout=0), timeout)

    async def recv(self, max: int = 65535, *, timeout: Optional[float] = None) -> bytes:
        """Waits for a datagram and returns it; after the peer's end comes `ClosedError`, after 30 silent seconds `LostError`."""
        return await self._reading.retry(lambda: self._native.recv(max, timeout=0), timeout)

    async def end(self, timeout: Optional[float] = None) -> None:
        """Announces the end of our data and waits until the peer has acknowledged it (3 seconds at most). Receiving goes on."""
        await self._endpoint._in_thread(lambda cancel: self._native.end(timeout, cancel=cancel))
