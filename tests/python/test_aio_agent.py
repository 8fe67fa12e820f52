"""`holepunch.aio.agent`: agents with signalling of the program's own, awaited."""

import asyncio
from contextlib import asynccontextmanager
from typing import AsyncIterator, Tuple

import pytest

import holepunch
from holepunch import aio

from test_aio import AT_ONCE, cancelled, run

PASSWORD = "0123456789012345678901"


@asynccontextmanager
async def agents() -> AsyncIterator[Tuple[aio.Agent, aio.Agent]]:
    async with aio.agent("controlling", bind="127.0.0.1") as one, aio.agent("controlled", bind="127.0.0.1") as other:
        yield one, other


def test_descriptions() -> None:
    async def test() -> None:
        async with agents() as (one, other):
            one.set_remote_description(await other.local_description())
            other.set_remote_description(await one.local_description(timeout=5))
            near, far = await asyncio.gather(one.connect(timeout=5), other.connect())
        async with near, far:  # they outlive their agents
            await near.send(b"hello")
            assert await far.recv(timeout=5) == b"hello"
            assert (near.session, near.path.role) == (one.session, "controlling")

    run(test)


def test_trickle() -> None:
    async def trickle(here: aio.Agent, there: aio.Agent) -> None:
        there.set_remote(here.ufrag, here.password)
        async for line in here:
            assert line.startswith("candidate:")
            there.add_remote_candidate(line)
        there.end_of_candidates()
        assert await here.next_candidate() is None

    async def test() -> None:
        async with agents() as (one, other), aio.Endpoint(bind="127.0.0.1") as endpoint:
            async with endpoint.agent("controlled", stun_servers=[]) as third:
                meetings = trickle(one, third), trickle(third, one), one.connect(timeout=5), third.connect(timeout=5)
                _, _, near, far = await asyncio.gather(*meetings)
                async with near, far:
                    await far.send(b"hello")
                    assert await near.recv(timeout=5) == b"hello"
                with pytest.raises(holepunch.ClosedError):
                    await one.connect()

    run(test)


def test_waits_end(silent_server: str) -> None:
    async def test() -> None:
        async with aio.agent("controlled", bind="127.0.0.1", stun_servers=silent_server) as agent:
            assert await agent.next_candidate() is not None
            for wait in (agent.next_candidate, agent.local_description, agent.connect):
                with pytest.raises(holepunch.TimeoutError):
                    await wait(timeout=0.01)
                with pytest.raises(holepunch.InvalidArgumentError):
                    await wait(timeout=-1)
                assert await cancelled(asyncio.ensure_future(wait())) < AT_ONCE
            waiting = asyncio.ensure_future(agent.connect())
            await asyncio.sleep(0)
            agent.close()
            with pytest.raises(holepunch.ClosedError):
                await waiting
        assert repr(agent) == f"<holepunch.aio.Agent {agent.ufrag} closed>"

    run(test)


def test_the_negotiations_own_end_is_told() -> None:
    async def test() -> None:
        async with aio.agent("controlled", bind="127.0.0.1", timeout=0.05) as agent:
            agent.set_remote("abcd", PASSWORD)
            for _ in range(2):
                with pytest.raises(holepunch.TimeoutError, match="after its description came"):
                    await agent.connect()

    run(test)


def test_wrong_arguments() -> None:
    async def test() -> None:
        for arguments in ({"role": "both"}, {"role": "controlled", "stun_servers": "a b"}):
            with pytest.raises(holepunch.InvalidArgumentError):
                await aio.agent(**arguments)  # type: ignore[arg-type]
        looking_up = asyncio.ensure_future(aio.agent("controlled", stun_servers="nowhere.invalid"))
        with pytest.raises(holepunch.UnresolvableError):
            await looking_up

    run(test)


def test_what_is_not_closed_is_told() -> None:
    async def test() -> None:
        agent = await aio.agent("controlled", bind="127.0.0.1")
        with pytest.warns(ResourceWarning, match="Agent"):
            del agent

    run(test)
