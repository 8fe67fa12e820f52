"""`Agent`: one negotiation of ICE with signalling of the program's own, awaited."""

from typing import TYPE_CHECKING, Callable, Optional, TypeVar

from .. import _native
from .channels import Connection
from .child import Child
from .readiness import deadline

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Agent"]

_Result = TypeVar("_Result")


class Agent(Child):
    """One negotiation of ICE with signalling of the program's own; what is said of `holepunch.Agent` holds here.

    `async for` gives our candidates as they are found. Closing the agent leaves the connection open.
    """

    def __init__(self, endpoint: "Endpoint", native: _native.Agent) -> None:
        super().__init__(endpoint, native)
        self._native = native

    @property
    def ufrag(self) -> str:
        """Our username fragment, for the peer."""
        return self._native.ufrag

    @property
    def password(self) -> str:
        """Our password, for the peer and nobody else."""
        return self._native.password

    @property
    def session(self) -> str:
        """The number that log records call the session by."""
        return self._native.session

    async def next_candidate(self, timeout: Optional[float] = None) -> Optional[str]:
        """Waits for the next of our candidates, a line `candidate:...`; None when there are no more. Each is given once."""
        return await self._until(self._native._poll_candidate, timeout, "no further candidate was found") or None

    async def local_description(self, timeout: Optional[float] = None) -> str:
        """Waits until all our candidates are known; returns them with the credentials as lines of SDP, the same each time."""
        return await self._until(self._native._poll_description, timeout, "not all candidates were found")

    def set_remote(self, ufrag: str, password: str) -> None:
        """Tells the peer's credentials; checks begin. To tell the same again changes nothing."""
        self._native.set_remote(ufrag, password)

    def add_remote_candidate(self, line: str) -> None:
        """Tells a candidate of the peer, a line of SDP with or without `a=` and `candidate:`; an empty one ends them."""
        self._native.add_remote_candidate(line)

    def end_of_candidates(self) -> None:
        """Tells that these were all candidates of the peer."""
        self._native.end_of_candidates()

    def set_remote_description(self, text: str) -> None:
        """Tells the peer's credentials and candidates, found among lines of SDP; a peer of ICE lite needs a controlling agent."""
        self._native.set_remote_description(text)

    async def connect(self, timeout: Optional[float] = None) -> Connection:
        """Waits for the connection, which is given once. After a timeout of the call it may be waited for again."""
        native = await self._until(self._native._poll_connect, timeout, "the agents have not met")
        return Connection(self._endpoint, native)

    def __aiter__(self) -> "Agent":
        return self

    async def __anext__(self) -> str:
        line = await self.next_candidate()
        if line is None:
            raise StopAsyncIteration
        return line

    async def _until(self, poll: Callable[[], Optional[_Result]], timeout: Optional[float], late: str) -> _Result:
        return await self._endpoint._until(poll, deadline(self._endpoint._loop, timeout), late)
