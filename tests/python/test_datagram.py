"""Listening, connecting, sending and receiving between two endpoints of this process."""

import gc
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List

import pytest

import holepunch
from conftest import Pair, descriptors

SECRET = b"a secret of at least 16 bytes"


def test_both_ways(pair: Pair) -> None:
    pair.connector.send(b"to the listener")
    assert pair.listener.recv(timeout=5) == b"to the listener"
    pair.listener.send(b"to the connector")
    assert pair.connector.recv(timeout=5) == b"to the connector"


@pytest.mark.parametrize("data", [b"", b"bytes", bytearray(b"bytearray"), memoryview(b"every second")[::2], bytes(1200)])
def test_bytes_like_objects(pair: Pair, data: bytes) -> None:
    pair.connector.send(data)
    assert pair.listener.recv(timeout=5) == bytes(data)


def test_text_is_no_bytes(pair: Pair) -> None:
    with pytest.raises(TypeError):
        pair.connector.send("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pair.connector.send(5)  # type: ignore[arg-type]


def test_datagram_too_large(pair: Pair) -> None:
    with pytest.raises(holepunch.MessageTooLargeError):
        pair.connector.send(bytes(1201))
    pair.connector.send(b"longer than four")
    with pytest.raises(holepunch.MessageTooLargeError):
        pair.listener.recv(4, timeout=5)


def test_path(pair: Pair) -> None:
    path = pair.connector.path
    assert path.remote.host == path.local.host == "127.0.0.1"
    assert (path.remote, path.local) == (pair.listener.path.local, pair.listener.path.remote)
    assert path.kind in ("host", "srflx", "prflx")
    assert path.strategy == "udp_simultaneous"
    assert (path.role, pair.listener.path.role) == ("controlling", "controlled")
    assert 0 < path.rtt < 1 and 0 < pair.connector.rtt < 1
    assert 0 < path.since_introduction < 5
    assert path.packets_sent >= 1 and path.sockets >= 1
    assert path == pair.connector.path and path != pair.listener.path
    with pytest.raises(AttributeError):
        path.kind = "relay"  # type: ignore[misc]
    assert pair.connector.session == pair.listener.session and len(pair.connector.session) == 32


def test_descriptor_can_be_selected(pair: Pair) -> None:
    assert pair.listener.fileno() >= 0
    pair.connector.send(b"wake up")
    assert select.select([pair.listener], [], [], 5)[0] == [pair.listener]
    assert pair.listener.recv(timeout=5) == b"wake up"


def test_end(pair: Pair) -> None:
    pair.connector.send(b"last words")
    pair.connector.end(5)
    assert pair.listener.recv(timeout=5) == b"last words"
    with pytest.raises(holepunch.ClosedError):
        pair.listener.recv(timeout=5)
    pair.listener.send(b"still on the line")
    assert pair.connector.recv(timeout=5) == b"still on the line"


def test_close_ends_the_peer(pair: Pair) -> None:
    pair.connector.close()
    pair.connector.close()
    with pytest.raises(holepunch.ClosedError):
        pair.listener.recv(timeout=5)
    for call in (pair.connector.recv, pair.connector.end, lambda: pair.connector.send(b""), lambda: pair.connector.rtt):
        with pytest.raises(holepunch.ClosedError):
            call()
    assert pair.connector.fileno() == -1
    assert "closed" in repr(pair.connector)


def test_closing_takes_no_time(server: str, name: str) -> None:
    """The last handle of an endpoint waits until the peer knows, which here is a matter of milliseconds."""
    listener = holepunch.listen_datagram(name, servers=server, bind="127.0.0.1")
    connector = holepunch.connect_datagram(name, servers=server, bind="127.0.0.1")
    accepted = listener.accept_datagram(timeout=5)
    begin = time.monotonic()
    for handle in (accepted, connector, listener):
        handle.close()
    assert time.monotonic() - begin < 0.4


def test_many_peers_on_one_listener(endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str) -> None:
    with endpoint.listen_datagram(name) as listener:
        assert listener.name == name
        assert [address.host for address in listener.mapped] == ["127.0.0.1"]
        connectors = [other_endpoint.connect_datagram(name) for _ in range(3)]
        for index, connector in enumerate(connectors):
            connector.send(bytes([index]))
        received = set()
        for accepted in listener:
            with accepted:
                received.add(accepted.recv(timeout=5))
                if len(received) == len(connectors):
                    listener.close()
        assert received == {b"\0", b"\1", b"\2"}
        for connector in connectors:
            connector.close()


def test_one_call_each(server: str, name: str) -> None:
    with holepunch.listen_datagram(name, servers=server, bind="127.0.0.1", secret=SECRET) as listener:
        with holepunch.connect_datagram(name, servers=[server], bind="127.0.0.1", secret=SECRET) as connector:
            gc.collect()  # nothing that a connection needs hangs on the endpoint object, which is gone
            connector.send(b"hello")
            with listener.accept_datagram(timeout=5) as accepted:
                assert accepted.recv(timeout=5) == b"hello"


def test_a_connection_outlives_its_listener_object(server: str, name: str) -> None:
    with holepunch.Endpoint(server, bind="127.0.0.1") as endpoint:
        connector = holepunch.connect_datagram
        with endpoint.listen(name) as listener, connector(name, servers=server, bind="127.0.0.1") as connection:
            accepted = listener.accept_datagram(timeout=5)
            listener.close()
            connection.send(b"hello")
            assert accepted.recv(timeout=5) == b"hello"
            accepted.close()


def test_timeouts(pair: Pair, endpoint: holepunch.Endpoint, name: str) -> None:
    with endpoint.listen(f"{name}.more") as listener:
        waits: List[Callable[[float], object]] = [
            lambda time: pair.listener.recv(timeout=time),
            lambda time: listener.accept_datagram(timeout=time),
        ]
        for wait in waits:
            for limit in (0, 0.02, 0.12):
                begin = time.monotonic()
                with pytest.raises(holepunch.TimeoutError) as caught:
                    wait(limit)
                assert isinstance(caught.value, TimeoutError)
                assert limit <= time.monotonic() - begin < limit + 0.5
                assert caught.value.kind == "timeout"


def test_unknown_name(endpoint: holepunch.Endpoint, name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(holepunch.NotFoundError, match=name):
        endpoint.connect_datagram(name, wait=0)
    assert time.monotonic() - begin < 2
    with pytest.raises(holepunch.NotFoundError, match=name):
        endpoint.connect_datagram(name, wait=0.3)
    assert time.monotonic() - begin < 4


def test_a_listener_that_comes_later(endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(endpoint.connect_datagram, name)
        with other_endpoint.listen(name) as listener, connecting.result(), listener.accept_datagram(timeout=5):
            pass


def test_name_taken(endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str) -> None:
    with endpoint.listen(name):
        with pytest.raises(holepunch.NameTakenError, match=name):
            other_endpoint.listen(name)
    with other_endpoint.listen(name):  # free again at once
        pass


def test_wrong_secret(server: str, name: str) -> None:
    with holepunch.listen_datagram(name, servers=server, bind="127.0.0.1", secret=SECRET) as listener:
        with pytest.raises(holepunch.WrongSecretError):
            holepunch.connect_datagram(name, servers=server, bind="127.0.0.1", secret=SECRET + b"?")
        # Nothing that a stranger does ends a listener.
        with holepunch.connect_datagram(name, servers=server, bind="127.0.0.1", secret=SECRET):
            listener.accept_datagram(timeout=5).close()


def test_silent_server(silent_server: str) -> None:
    with holepunch.Endpoint(silent_server, bind="127.0.0.1") as endpoint:
        begin = time.monotonic()
        with pytest.raises(holepunch.ServerSilentError, match=silent_server):
            endpoint.listen("bob")
        assert time.monotonic() - begin < 8
        with pytest.raises(holepunch.TimeoutError):
            endpoint.listen("bob", timeout=0.1)


def test_unresolvable_server() -> None:
    with pytest.raises(holepunch.UnresolvableError, match="nowhere.invalid"):
        holepunch.listen_datagram("bob", servers="nowhere.invalid")


def test_busy_port(server: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(holepunch.AddressInUseError) as caught:
            holepunch.listen_datagram("bob", servers=server, bind=sock.getsockname())
    assert str(sock.family) and caught.value.hint


def blocked(call: Callable[[], object]) -> "threading.Thread":
    """A thread that waits in `call`; its exception is in the attribute `error` afterwards."""

    def run() -> None:
        started.set()
        try:
            call()
        except holepunch.HolepunchError as error:
            thread.error = error  # type: ignore[attr-defined]

    started = threading.Event()
    thread = threading.Thread(target=run)
    thread.error = None  # type: ignore[attr-defined]
    thread.start()
    assert started.wait(5)
    return thread


def finish(thread: Any, error: type) -> None:
    begin = time.monotonic()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - begin < 0.5
    assert type(thread.error) is error, thread.error


def test_close_from_another_thread(pair: Pair, endpoint: holepunch.Endpoint, server: str, name: str) -> None:
    listener = endpoint.listen(f"{name}.more")
    receiving = [blocked(pair.listener.recv) for _ in range(2)]
    accepting = [blocked(listener.accept_datagram) for _ in range(2)]
    pair.listener.close()
    listener.close()
    for thread in receiving + accepting:
        finish(thread, holepunch.ClosedError)

    waiting_endpoint = holepunch.Endpoint(server, bind="127.0.0.1")
    waiting_listener = waiting_endpoint.listen(f"{name}.again")
    threads = [
        blocked(waiting_listener.accept_datagram),
        blocked(lambda: waiting_endpoint.connect_datagram(f"{name}.nobody", wait=60)),
    ]
    waiting_endpoint.close()
    for thread in threads:
        finish(thread, holepunch.ClosedError)


def test_cancel(pair: Pair, endpoint: holepunch.Endpoint, silent_server: str, name: str) -> None:
    cancel = holepunch.Cancel()
    listener = endpoint.listen(f"{name}.more")
    deaf_endpoint = holepunch.Endpoint(silent_server, bind="127.0.0.1")
    calls: List[Callable[[], object]] = [
        lambda: pair.listener.recv(cancel=cancel),
        lambda: listener.accept_datagram(cancel=cancel),
        lambda: endpoint.connect_datagram(f"{name}.nobody", wait=60, cancel=cancel),
        lambda: deaf_endpoint.listen("bob", cancel=cancel),
    ]
    threads = [blocked(call) for call in calls]
    cancel.cancel()
    for thread in threads:
        finish(thread, holepunch.CancelledError)
    for call in calls:  # it stays cancelled, on the main thread as well
        with pytest.raises(holepunch.CancelledError):
            call()
    # What was cancelled is as good as before.
    pair.connector.send(b"hello")
    assert pair.listener.recv(timeout=5) == b"hello"
    listener.close()
    deaf_endpoint.close()


def test_cancel_of_the_main_thread(endpoint: holepunch.Endpoint, name: str) -> None:
    cancel = holepunch.Cancel()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(cancel.cancel)
        with pytest.raises(holepunch.CancelledError):
            endpoint.connect_datagram(name, wait=60, cancel=cancel)


def test_many_threads_on_one_connection(pair: Pair) -> None:
    count = 200

    def echo() -> None:
        while True:
            data = pair.listener.recv(timeout=10)
            if data == b"stop":
                return
            pair.listener.send(data)

    def ask(index: int) -> None:
        pair.connector.send(index.to_bytes(2, "big"))
        received.add(pair.connector.recv(timeout=10))

    received: "set[bytes]" = set()
    with ThreadPoolExecutor(6) as pool:
        echoes = [pool.submit(echo) for _ in range(2)]
        for asked in [pool.submit(ask, index) for index in range(count)]:
            asked.result()
        for _ in echoes:
            pair.connector.send(b"stop")
        for done in echoes:
            done.result()
    assert received == {index.to_bytes(2, "big") for index in range(count)}


def test_other_threads_run_while_one_waits(pair: Pair) -> None:
    thread = blocked(pair.listener.recv)
    begin = time.monotonic()
    sum(range(100_000))
    assert time.monotonic() - begin < 5
    pair.listener.close()
    finish(thread, holepunch.ClosedError)


def test_without_a_thread(server: str, endpoint: holepunch.Endpoint, name: str) -> None:
    with holepunch.Endpoint(server, bind="127.0.0.1", thread=False) as quiet:
        listener = quiet.listen(name)
        with ThreadPoolExecutor(1) as pool:
            connecting = pool.submit(endpoint.connect_datagram, name)
            while not connecting.done():
                select.select([quiet], [], [], min(0.1, quiet.next_timeout() or 0.1))
                quiet.process()
            with connecting.result() as connector, listener.accept_datagram(timeout=5) as accepted:
                accepted.send(b"hello")
                assert connector.recv(timeout=5) == b"hello"


def test_nothing_is_left_open(server: str, silent_server: str, name: str) -> None:
    def life(index: int) -> None:
        with holepunch.Endpoint(server, bind="127.0.0.1") as endpoint:
            with endpoint.listen(f"{name}.{index}") as listener:
                with holepunch.connect_datagram(f"{name}.{index}", servers=server, bind="127.0.0.1") as connector:
                    with listener.accept_datagram(timeout=5) as accepted:
                        connector.send(b"hello")
                        accepted.recv(timeout=5)
            with pytest.raises(holepunch.NotFoundError):
                endpoint.connect_datagram(f"{name}.nobody", wait=0)
        with pytest.raises(holepunch.TimeoutError):
            holepunch.listen_datagram("bob", servers=silent_server, timeout=0.05)
        gc.collect()

    life(0)  # what is opened once for the whole process
    before = descriptors()
    for index in range(1, 4):
        life(index)
    deadline = time.monotonic() + 5  # a closed connection tells its peer in the background, for at most 3 s
    while descriptors() != before and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert descriptors() == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_told(pair: Pair, endpoint: holepunch.Endpoint, server: str, name: str) -> None:
    def child(results: "multiprocessing.SimpleQueue[str]") -> None:
        for call in (lambda: endpoint.listen(f"{name}.child"), lambda: pair.connector.recv(timeout=1)):
            try:
                call()
            except holepunch.HolepunchError as error:
                results.put(error.kind)
            else:
                results.put("no error")
        with holepunch.Endpoint(server, bind="127.0.0.1") as fresh, fresh.listen(f"{name}.fresh"):
            results.put("listening")

    context = multiprocessing.get_context("fork")
    results: "multiprocessing.SimpleQueue[str]" = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert [results.get() for _ in range(3)] == ["forked", "forked", "listening"]
    # The parent's are untouched.
    pair.connector.send(b"hello")
    assert pair.listener.recv(timeout=5) == b"hello"


def test_exit_with_everything_open(server: str, name: str) -> None:
    script = f"""
import logging, threading, holepunch
logging.basicConfig(level=logging.DEBUG)
endpoint = holepunch.Endpoint({server!r}, bind="127.0.0.1")
listener = endpoint.listen({name!r})
connection = holepunch.connect_datagram({name!r}, servers={server!r}, bind="127.0.0.1")
accepted = listener.accept_datagram(timeout=5)
for wait in connection.recv, accepted.recv, listener.accept_datagram:
    threading.Thread(target=wait, daemon=True).start()
try:
    endpoint.listen({name!r})
except holepunch.NameTakenError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("WARNING:holepunch:")  # written although the program ended at once


def test_into_socket(pair: Pair) -> None:
    pair.connector.send(b"before")
    sock = pair.listener.into_socket()
    with sock:
        assert type(sock) is socket.socket
        assert (sock.family, sock.type & socket.SOCK_DGRAM) == (socket.AF_INET, socket.SOCK_DGRAM)
        assert sock.gettimeout() is None and sock.getblocking()
        assert sock.getpeername() == pair.listener.path.remote
        assert sock.recv(1200) == b"before"
        assert select.select([sock], [sock], [], 0)[:2] == ([], [sock])
        sock.send(b"after")
        assert pair.connector.recv(timeout=5) == b"after"
        assert pair.listener.fileno() == -1
        for call in (pair.listener.recv, pair.listener.into_socket):
            with pytest.raises(holepunch.ClosedError):
                call()
        pair.listener.close()
        # The other one, later, and without waiting.
        with pair.connector.into_socket() as other:
            gc.collect()
            other.send(b"hello")
            assert sock.recv(1200) == b"hello"
            assert select.select([sock, other], [], [], 0.2)[0] == []


def test_what_has_ended_has_no_socket(pair: Pair) -> None:
    pair.connector.end(timeout=5)
    for connection in (pair.connector, pair.listener):
        with pytest.raises(holepunch.ClosedError):
            connection.into_socket()
