"""Connections that came and went, or never were, leave no descriptor, no thread and no memory.

HOLEPUNCH_TEST_CONNECTIONS says how many of each kind; 100 without.
"""

import asyncio
import os
import threading
import time
from typing import Callable, Dict

import pytest

import holepunch
from conftest import descriptors
from holepunch import aio

COUNT = int(os.environ.get("HOLEPUNCH_TEST_CONNECTIONS", "100"))

GROWTH = 2048
"""KiB by which memory may grow after the first connections have made what is kept: allocators' caches. A thousand
connections that left a page each would be 4,000."""


def resident() -> int:
    """Memory of this process that is in use, in KiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def held() -> "tuple[int, int]":
    """How many descriptors and threads this process has."""
    return len(descriptors()), len(os.listdir("/proc/self/task"))


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def datagrams(server: str, near: holepunch.Endpoint, far: holepunch.Endpoint, name: str, count: int) -> None:
    with far.listen(name) as listener:

        def echo() -> None:
            for _ in range(count):
                with listener.accept_datagram(timeout=20) as accepted:
                    accepted.send(accepted.recv(timeout=20))
                    with pytest.raises(holepunch.ClosedError):
                        accepted.recv(timeout=20)

        thread = in_thread(echo)
        for _ in range(count):
            with near.connect_datagram(name) as connection:
                connection.send(b"x")
                assert connection.recv(timeout=20) == b"x"
        thread.join()


def streams(server: str, near: holepunch.Endpoint, far: holepunch.Endpoint, name: str, count: int) -> None:
    with far.listen(name) as listener:

        def greet() -> None:
            for _ in range(count):
                with listener.accept(timeout=20) as accepted:
                    accepted.sendall(b"x")
                    assert accepted.recv(timeout=20) == b""

        thread = in_thread(greet)
        for _ in range(count):
            with near.connect(name) as stream:
                assert stream.recv(timeout=20) == b"x"
        thread.join()


def failures(server: str, near: holepunch.Endpoint, far: holepunch.Endpoint, name: str, count: int) -> None:
    for _ in range(count):
        with pytest.raises(holepunch.NotFoundError):
            near.connect_datagram(name, wait=0)
        with pytest.raises(holepunch.NotFoundError):
            near.connect(name, wait=0)


def with_asyncio(server: str, near: holepunch.Endpoint, far: holepunch.Endpoint, name: str, count: int) -> None:
    async def main() -> None:
        async with aio.Endpoint(server, bind="127.0.0.1") as one, aio.Endpoint(server, bind="127.0.0.1") as other:
            async with other.listen(name) as listener:
                for _ in range(count):
                    opening = asyncio.ensure_future(one.connect(name))
                    async with await listener.accept(timeout=20) as accepted, await opening as stream:
                        await accepted.sendall(b"x")
                        assert await stream.recv(timeout=20) == b"x"
                    with pytest.raises(holepunch.NotFoundError):
                        await one.connect_datagram(f"{name}-nobody", wait=0)

    asyncio.run(main())


KINDS: "Dict[str, Callable[[str, holepunch.Endpoint, holepunch.Endpoint, str, int], None]]" = {
    "datagrams": datagrams,
    "streams": streams,
    "failures": failures,
    "asyncio": with_asyncio,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_nothing_is_left(
    server: str,
    endpoint: holepunch.Endpoint,
    other_endpoint: holepunch.Endpoint,
    name: str,
    make: Callable[[str, holepunch.Endpoint, holepunch.Endpoint, str, int], None],
) -> None:
    before = held()
    make(server, endpoint, other_endpoint, name, COUNT // 2)

    def settle() -> None:
        # The ends of connections and listeners, also those of earlier tests, are told in the background.
        deadline = time.monotonic() + 20
        while any(now > then for now, then in zip(held(), before)) and time.monotonic() < deadline:
            os.sched_yield()
        now = held()
        assert now[0] <= before[0] and now[1] <= before[1], (now, before)

    settle()
    before = held()
    memory = resident()
    make(server, endpoint, other_endpoint, name, COUNT)
    settle()
    growth = resident() - memory
    print(f"{COUNT} {make.__name__}: {growth} KiB more")
    assert growth < GROWTH
