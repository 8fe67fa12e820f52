"""`holepunch.aio`: the same as without asyncio, cancelled at any await, with nothing left behind."""

import asyncio
import gc
import os
import socket
import time
import warnings
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Awaitable, Callable, Coroutine, List, Tuple, TypeVar

import pytest

import holepunch
from holepunch import aio
from conftest import descriptors

_Result = TypeVar("_Result")

AT_ONCE = 1.0
"""Seconds that something immediate may take on a busy machine; what it must not wait for takes 5 and more."""


def run(test: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Runs a test in a loop of its own, which reports what asyncio's debug mode finds."""

    async def limited() -> _Result:
        return await asyncio.wait_for(test(), 40)

    return asyncio.run(limited())


async def cancelled(task: "asyncio.Future[Any]") -> float:
    """Cancels a task that waits, and returns how long that took."""
    # The task has run until its first real wait, however many steps of the loop that takes.
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


@asynccontextmanager
async def endpoints(server: str) -> AsyncIterator[Tuple[aio.Endpoint, aio.Endpoint]]:
    """One to connect, one to listen."""
    async with aio.Endpoint(server, bind="127.0.0.1") as endpoint, aio.Endpoint(server, bind="127.0.0.1") as other:
        yield endpoint, other


async def streams(server: str, name: str) -> Tuple[aio.Stream, aio.Stream]:
    """Two ends of a stream: the connector's and the listener's."""
    async with aio.listen(name, servers=server, bind="127.0.0.1") as listener:
        connector = await aio.connect(name, servers=server, bind="127.0.0.1")
        return connector, await listener.accept()


def test_streams(server: str, name: str) -> None:
    async def serve(listener: "aio.Listener[aio.Stream]") -> None:
        async for stream in listener:
            async with stream:
                while True:
                    data = await stream.recv()
                    if not data:
                        break
                    await stream.sendall(data.upper())

    async def test() -> None:
        async with aio.listen(name, servers=server, bind="127.0.0.1") as listener:
            assert listener.name == name and listener.mapped[0].host == "127.0.0.1"
            serving = asyncio.create_task(serve(listener))
            for _ in range(3):
                async with aio.connect(name, servers=server, bind="127.0.0.1") as stream:
                    await stream.sendall(b"hello")
                    assert await stream.recv(timeout=5) == b"HELLO"
                    stream.shutdown()
                    assert await stream.recv(timeout=5) == b""
                    assert stream.path.remote.host == "127.0.0.1" and stream.rtt >= 0 and len(stream.session) > 8
                assert stream.fileno() == -1
                with pytest.raises(holepunch.ClosedError):
                    await stream.recv()
        await serving  # the closed listener ends the loop

    run(test)


def test_datagrams(server: str, name: str) -> None:
    async def test() -> None:
        async with aio.listen_datagram(name, servers=server, bind="127.0.0.1") as listener:
            connector = await aio.connect_datagram(name, servers=server, bind="127.0.0.1")
            accepted = await listener.__anext__()
        async with connector, accepted:
            await connector.send(b"one")
            assert await accepted.recv(timeout=5) == b"one"
            receiving = asyncio.create_task(connector.recv())
            await asyncio.sleep(0)
            await accepted.send(bytearray(b"two"))
            assert await receiving == b"two"
            with pytest.raises(holepunch.TimeoutError):
                await accepted.recv(timeout=0.01)
            with pytest.raises(holepunch.MessageTooLargeError):
                await accepted.send(bytes(1201))
            await connector.end()
            with pytest.raises(holepunch.ClosedError):
                await accepted.recv(timeout=5)

    run(test)


def test_what_connect_returns_is_a_coroutine_too(server: str, name: str) -> None:
    async def test() -> None:
        async with endpoints(server) as (endpoint, other), other.listen(name) as listener:
            for start in (asyncio.create_task, asyncio.ensure_future):
                connecting: Any = start(endpoint.connect(name))
                accepted, stream = await asyncio.gather(listener.accept(), connecting)
                stream.close()
                assert await accepted.recv() == b""
            stream, accepted = await asyncio.gather(endpoint.connect(name), listener.accept(timeout=5))
            assert "holepunch.aio.Stream to 127.0.0.1" in repr(stream)

    run(test)


def test_a_hundred_at_once(server: str, name: str) -> None:
    async def test() -> None:
        async with endpoints(server) as (endpoint, other):
            async with other.listen(name) as listener:

                async def meet(number: int) -> int:
                    async with endpoint.connect(name) as stream:
                        await stream.sendall(b"%d" % number)
                        return int(await stream.recv(timeout=20))

                async def echo() -> None:
                    async with await listener.accept() as stream:
                        await stream.sendall(await stream.recv())

                echoes = [asyncio.create_task(echo()) for _ in range(100)]
                assert await asyncio.gather(*map(meet, range(100))) == list(range(100))
                await asyncio.gather(*echoes)

    run(test)


def test_waiting_takes_no_threads(silent_server: str) -> None:
    async def test() -> None:
        async with aio.Endpoint(silent_server, bind="127.0.0.1") as endpoint:
            before = len(os.listdir("/proc/self/task"))
            waiting = [asyncio.create_task(endpoint.connect(f"nobody-{number}")) for number in range(50)]
            assert await cancelled(asyncio.create_task(endpoint.listen("me"))) < AT_ONCE
            assert len(os.listdir("/proc/self/task")) == before
            for task in waiting:
                assert await cancelled(task) < AT_ONCE

    run(test)


def test_errors_are_the_same(server: str, silent_server: str, name: str) -> None:
    async def test() -> None:
        with pytest.raises(holepunch.NotFoundError):
            await aio.connect(name, servers=server, wait=0)
        with pytest.raises(holepunch.NotFoundError):
            async with aio.connect_datagram(name, servers=server, wait=0):
                raise AssertionError("nobody listens")
        with pytest.raises(holepunch.UnresolvableError):
            await aio.connect(name, servers="nowhere.invalid")
        with pytest.raises(holepunch.InvalidArgumentError):
            await aio.listen("No Such Name!", servers=server)
        with pytest.raises(holepunch.InvalidArgumentError):
            await aio.listen(name, servers=server, bind="no address")
        with pytest.raises(holepunch.TimeoutError):
            await aio.listen(name, servers=silent_server, timeout=0.05)
        async with aio.listen(name, servers=server, bind="127.0.0.1") as listener:
            with pytest.raises(holepunch.NameTakenError):
                await aio.listen(name, servers=server, bind="127.0.0.1")
            with pytest.raises(holepunch.TimeoutError):
                await listener.accept(timeout=0.01)
            with pytest.raises(holepunch.InvalidArgumentError):
                await listener.accept(timeout=-1)

    run(test)


def test_names_of_servers_are_looked_up(server: str, name: str) -> None:
    by_name = f"localhost:{server.rpartition(':')[2]}"

    async def test() -> None:
        async with aio.listen(name, servers=by_name, bind="127.0.0.1") as listener:
            async with aio.connect(name, servers=by_name, bind="127.0.0.1") as stream, await listener.accept() as accepted:
                await stream.sendall(b"found")
                assert await accepted.recv() == b"found"

    run(test)


@pytest.mark.parametrize("what", ["connect", "connect_datagram", "listen", "listen_datagram"])
def test_cancelled_while_opening(silent_server: str, what: str) -> None:
    async def test() -> None:
        opening = getattr(aio, what)("somebody", servers=silent_server, bind="127.0.0.1")
        assert await cancelled(asyncio.create_task(opening)) < AT_ONCE
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(getattr(aio, what)("somebody", servers=silent_server), 0.01)

    run(test)
    before = descriptors()
    run(test)
    gc.collect()
    assert len(descriptors()) <= len(before)


def test_a_cancelled_connect_was_never_made(server: str, name: str) -> None:
    """The name has no listener yet; one that comes after the cancellation sees nobody."""

    async def test() -> None:
        async with endpoints(server) as (endpoint, other):
            assert await cancelled(asyncio.create_task(endpoint.connect(name, wait=30))) < AT_ONCE
            async with other.listen(name) as listener:
                # Who comes now is the first, though the other had asked before.
                async with endpoint.connect(name) as stream:
                    accepted = await listener.accept()
                    assert accepted.session == stream.session
                with pytest.raises(holepunch.TimeoutError):
                    await listener.accept(timeout=0)

    run(test)


def test_cancelled_accept_and_recv_lose_nothing(server: str, name: str) -> None:
    async def test() -> None:
        async with endpoints(server) as (endpoint, other), other.listen(name) as listener:
            assert await cancelled(asyncio.create_task(listener.accept())) < AT_ONCE
            async with endpoint.connect(name) as stream, await listener.accept() as accepted:
                assert await cancelled(asyncio.create_task(stream.recv())) < AT_ONCE
                await accepted.sendall(b"still here")
                assert await stream.recv() == b"still here"
            async with endpoint.connect_datagram(name) as one, await listener.accept_datagram() as two:
                assert await cancelled(asyncio.create_task(two.recv())) < AT_ONCE
                await one.send(b"here too")
                assert await two.recv(timeout=5) == b"here too"

    run(test)


def test_sending_waits_for_the_reader(server: str, name: str) -> None:
    async def test() -> None:
        stream, accepted = await streams(server, name)
        async with stream, accepted:
            data = os.urandom(20_000_000)
            # Nobody reads: it fills the buffers and waits, and a timeout ends that.
            with pytest.raises(holepunch.TimeoutError):
                await stream.sendall(bytes(20_000_000), timeout=0.05)
            assert await cancelled(asyncio.create_task(stream.sendall(bytes(20_000_000)))) < AT_ONCE
            sending = asyncio.create_task(accepted.sendall(data))
            received = bytearray()
            while len(received) < len(data):
                received += await stream.recv(1 << 18)
            await sending
            assert received == data

    run(test)


def test_close_ends_what_waits(server: str, name: str) -> None:
    async def waits_for(close: Callable[[], None], *waiting: Awaitable[Any]) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waiting]
        for _ in range(5):
            await asyncio.sleep(0)
        close()
        close()
        for task in tasks:
            with pytest.raises(holepunch.ClosedError):
                await asyncio.wait_for(task, AT_ONCE)

    async def test() -> None:
        async with endpoints(server) as (endpoint, other):
            listener = await other.listen(name)
            stream, accepted = await asyncio.gather(endpoint.connect(name), listener.accept())
            one, two = await asyncio.gather(endpoint.connect_datagram(name), listener.accept_datagram())
            await waits_for(stream.close, stream.recv(), stream.recv(), stream.sendall(bytes(20_000_000)))
            await waits_for(one.close, one.recv(), one.recv())
            stream, accepted = await asyncio.gather(endpoint.connect(name), listener.accept())
            one, two = await asyncio.gather(endpoint.connect_datagram(name), listener.accept_datagram())
            await waits_for(listener.close, listener.accept(), listener.accept_datagram())
            await waits_for(other.close, two.recv(), accepted.recv(), other.connect("nobody", wait=30))
            endpoint.close()
            with pytest.raises(holepunch.ClosedError):
                await endpoint.connect(name)

    run(test)


def test_both_ends_learn_of_the_others_end(server: str, name: str) -> None:
    async def test() -> None:
        stream, accepted = await streams(server, name)
        received = asyncio.create_task(accepted.recv())
        stream.close()
        assert await received == b""
        async with accepted:
            pass

    run(test)


def test_accepted_streams_outlive_the_listener(server: str, name: str) -> None:
    async def test() -> None:
        stream, accepted = await streams(server, name)
        async with stream, accepted:
            await stream.sendall(b"without a listener")
            assert await accepted.recv() == b"without a listener"

    run(test)


def test_asyncios_own_reader_and_writer(server: str, name: str) -> None:
    async def test() -> None:
        stream, accepted = await streams(server, name)
        reader, writer = await stream.into_streams()
        with pytest.raises(holepunch.ClosedError):
            await stream.recv()
        sock = accepted.into_socket()
        assert type(sock) is socket.socket
        sock.setblocking(False)
        writer.write(b"line one\nline two\n")
        await writer.drain()
        loop = asyncio.get_running_loop()
        received = b""
        while received.count(b"\n") < 2:
            received += await loop.sock_recv(sock, 100)
        assert received == b"line one\nline two\n"
        await loop.sock_sendall(sock, b"back\n")
        sock.close()
        assert await reader.readline() == b"back\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    run(test)


def test_a_busy_task_lets_the_others_run(server: str, name: str) -> None:
    async def test() -> None:
        async with endpoints(server) as (endpoint, other), other.listen(name) as listener:
            one, two = await asyncio.gather(endpoint.connect_datagram(name), listener.accept_datagram())

            async def flood() -> None:
                while True:
                    await one.send(b"x")

            assert await cancelled(asyncio.create_task(flood())) < AT_ONCE
            two.close()

    run(test)


def test_a_loop_has_its_own(server: str, name: str) -> None:
    async def make() -> aio.Endpoint:
        return aio.Endpoint(server, bind="127.0.0.1")

    endpoint = run(make)

    async def test() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await endpoint.connect(name)

    run(test)
    endpoint.close()
    with pytest.raises(RuntimeError):
        aio.Endpoint(server)  # no loop at all


def test_what_was_forgotten_is_closed_and_said(server: str, name: str) -> None:
    async def test() -> List[str]:
        stream, accepted = await streams(server, name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del stream
            gc.collect()
        assert await accepted.recv() == b""
        accepted.close()
        return [str(warning.message) for warning in caught if warning.category is ResourceWarning]

    found = run(test)
    assert any("aio.Stream" in text and "was not closed" in text for text in found), found


def test_closing_leaves_no_descriptors(server: str, name: str) -> None:
    async def test() -> None:
        async with aio.listen(name, servers=server, bind="127.0.0.1") as listener:
            async with aio.connect(name, servers=server, bind="127.0.0.1") as stream, await listener.accept() as accepted:
                await stream.sendall(b"x")
                assert await accepted.recv() == b"x"

    run(test)
    gc.collect()
    before = descriptors()
    run(test)
    gc.collect()
    assert len(descriptors()) <= len(before)
