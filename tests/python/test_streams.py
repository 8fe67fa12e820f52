"""Streams between two endpoints of this process."""

import gc
import hashlib
import multiprocessing
import random
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator, List, NamedTuple, get_args, get_origin

import pytest

import holepunch
from conftest import descriptors

MEGABYTE = random.Random(2015).randbytes(1 << 20)


class Streams(NamedTuple):
    """Two ends of one stream."""

    connector: holepunch.Stream
    listener: holepunch.Stream


@pytest.fixture
def streams(endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str) -> Iterator[Streams]:
    with endpoint.listen(name) as listener:
        with other_endpoint.connect(name) as connector, listener.accept(timeout=5) as accepted:
            yield Streams(connector, accepted)


def receive_all(stream: holepunch.Stream) -> bytes:
    received = bytearray()
    while data := stream.recv(timeout=20):
        received += data
    return bytes(received)


def exactly(stream: holepunch.Stream, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        data = stream.recv(length - len(received), timeout=5)
        assert data
        received += data
    return bytes(received)


def test_both_ways(streams: Streams) -> None:
    streams.connector.sendall(b"to the listener")
    assert exactly(streams.listener, 15) == b"to the listener"
    assert streams.listener.send(b"to the connector", timeout=5) == 16
    assert exactly(streams.connector, 16) == b"to the connector"


def test_a_megabyte_each_way_at_once(streams: Streams) -> None:
    def send(stream: holepunch.Stream, data: bytes) -> None:
        stream.sendall(data, timeout=20)
        stream.shutdown()

    backwards = MEGABYTE[::-1]
    with ThreadPoolExecutor(3) as pool:
        sending = [pool.submit(send, streams.connector, MEGABYTE), pool.submit(send, streams.listener, backwards)]
        receiving = pool.submit(receive_all, streams.connector)
        received = receive_all(streams.listener)  # the main thread, which waits in slices
        assert hashlib.sha256(received).digest() == hashlib.sha256(MEGABYTE).digest()
        assert hashlib.sha256(receiving.result()).digest() == hashlib.sha256(backwards).digest()
        for sent in sending:
            sent.result()


def test_sendall_on_the_main_thread(streams: Streams) -> None:
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receive_all, streams.listener)
        streams.connector.sendall(bytearray(MEGABYTE * 8), timeout=30)
        streams.connector.shutdown()
        assert len(receiving.result()) == 8 << 20


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytearray"), memoryview(b"every second")[::2]])
def test_bytes_like_objects(streams: Streams, data: bytes) -> None:
    streams.connector.sendall(data)
    assert exactly(streams.listener, len(data)) == bytes(data)


def test_nothing_and_text(streams: Streams) -> None:
    streams.connector.sendall(b"")
    assert streams.connector.send(b"") == 0
    assert streams.listener.recv(0) == b""
    with pytest.raises(TypeError):
        streams.connector.send("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        streams.connector.sendall(5)  # type: ignore[arg-type]


def test_end_of_the_data(streams: Streams) -> None:
    streams.connector.sendall(b"last words")
    streams.connector.shutdown()
    assert receive_all(streams.listener) == b"last words"
    assert streams.listener.recv() == b""
    with pytest.raises(holepunch.ClosedError):
        streams.connector.sendall(b"more")
    streams.listener.sendall(b"still on the line")
    assert exactly(streams.connector, 17) == b"still on the line"


def test_close(streams: Streams) -> None:
    streams.connector.sendall(b"last words")
    streams.connector.close()
    streams.connector.close()
    assert receive_all(streams.listener) == b"last words"
    calls: List[Callable[[], object]] = [
        streams.connector.recv,
        streams.connector.shutdown,
        streams.connector.into_socket,
        lambda: streams.connector.send(b""),
        lambda: streams.connector.sendall(b""),
        lambda: streams.connector.rtt,
    ]
    for call in calls:
        with pytest.raises(holepunch.ClosedError):
            call()
    assert streams.connector.fileno() == -1
    assert "closed" in repr(streams.connector) and "closed" not in repr(streams.listener)


def test_a_reset_is_no_end(streams: Streams) -> None:
    with streams.connector.into_socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with pytest.raises(holepunch.LostError):
        streams.listener.recv(timeout=5)
    with pytest.raises(holepunch.LostError):
        streams.listener.recv(timeout=5)


def test_path(streams: Streams) -> None:
    path = streams.connector.path
    assert path.remote.host == path.local.host == "127.0.0.1"
    assert (path.remote, path.local) == (streams.listener.path.local, streams.listener.path.remote)
    assert path.kind in ("host", "srflx", "prflx")
    assert path.strategy.startswith("tcp_")
    assert 0 < path.rtt < 1 and 0 < streams.connector.rtt < 1
    assert streams.connector.session == streams.listener.session and len(streams.connector.session) == 32
    assert str(path.remote) in repr(streams.connector)


def test_descriptor_can_be_selected(streams: Streams) -> None:
    assert select.select([streams.listener], [streams.listener], [], 0)[:2] == ([], [streams.listener])
    streams.connector.sendall(b"wake up")
    assert select.select([streams.listener], [], [], 5)[0] == [streams.listener]
    assert streams.listener.recv(timeout=0) == b"wake up"


def test_into_socket(streams: Streams) -> None:
    streams.connector.sendall(b"before")
    sock = streams.listener.into_socket()
    with sock:
        assert type(sock) is socket.socket
        assert (sock.family, sock.type & socket.SOCK_STREAM) == (socket.AF_INET, socket.SOCK_STREAM)
        assert sock.gettimeout() is None and sock.getblocking()
        assert sock.getpeername() == streams.listener.path.remote
        assert select.select([sock], [], [], 5)[0] == [sock]
        assert sock.recv(6, socket.MSG_WAITALL) == b"before"
        assert select.select([sock], [sock], [], 0)[:2] == ([], [sock])
        sock.sendall(b"after\n")
        assert exactly(streams.connector, 6) == b"after\n"
        # The stream is spent, and closing it leaves the socket alone.
        assert streams.listener.fileno() == -1
        for call in (streams.listener.recv, streams.listener.into_socket):
            with pytest.raises(holepunch.ClosedError):
                call()
        streams.listener.close()
        with streams.connector.into_socket() as other, sock.makefile("rw") as file, other.makefile("rw") as other_file:
            other_file.write("a line\n")
            other_file.flush()
            assert file.readline() == "a line\n"


def test_a_socket_outlives_its_endpoint(server: str, name: str) -> None:
    with holepunch.listen(name, servers=server, bind="127.0.0.1") as listener:
        sock = holepunch.connect(name, servers=server, bind="127.0.0.1").into_socket()
        accepted = listener.accept(timeout=5).into_socket()
    gc.collect()
    with sock, accepted:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert accepted.recv(16, socket.MSG_WAITALL) == b"hello"


def test_into_socket_while_another_call_waits(streams: Streams) -> None:
    sending = blocked(lambda: streams.listener.sendall(bytes(1 << 26)))
    exactly(streams.connector, 1)  # the other thread is in its call
    with pytest.raises(holepunch.InvalidArgumentError, match="another call"):
        streams.listener.into_socket()
    streams.connector.sendall(b"still open")
    assert exactly(streams.listener, 10) == b"still open"
    streams.listener.close()
    finish(sending, holepunch.ClosedError)


def test_one_call_each(server: str, name: str) -> None:
    secret = b"a secret of at least 16 bytes"
    with holepunch.listen(name, servers=server, bind="127.0.0.1", secret=secret) as listener:
        with holepunch.connect(name, servers=[server], bind="127.0.0.1", secret=secret) as stream:
            gc.collect()  # nothing that a stream needs hangs on the endpoint object, which is gone
            stream.sendall(b"hello")
            for accepted in listener:
                with accepted:
                    assert exactly(accepted, 5) == b"hello"
                listener.close()


def test_iterating_gives_what_was_asked_for(server: str, endpoint: holepunch.Endpoint, name: str) -> None:
    with holepunch.Endpoint(server, bind="127.0.0.1") as other:
        streams = endpoint.listen(f"{name}.1"), holepunch.listen(f"{name}.2", servers=server, bind="127.0.0.1")
        for listener in streams:
            assert listener.name is not None
            with other.connect(listener.name), next(listener) as stream:
                assert type(stream) is holepunch.Stream
            listener.close()
            assert list(listener) == []
        datagrams = (
            endpoint.listen_datagram(f"{name}.3"),
            holepunch.listen_datagram(f"{name}.4", servers=server, bind="127.0.0.1"),
        )
        for datagram_listener in datagrams:
            assert datagram_listener.name is not None
            with other.connect_datagram(datagram_listener.name), next(datagram_listener) as connection:
                assert type(connection) is holepunch.Connection
            datagram_listener.close()
            assert list(datagram_listener) == []
    annotation = holepunch.Listener[holepunch.Stream]  # what a program may write is more than a stub's word
    assert (get_origin(annotation), get_args(annotation)) == (holepunch.Listener, (holepunch.Stream,))


def test_a_stream_and_datagrams_on_one_listener(
    endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str
) -> None:
    with endpoint.listen(name) as listener:
        with other_endpoint.connect_datagram(name) as connection, other_endpoint.connect(name) as stream:
            stream.sendall(b"in a stream")
            connection.send(b"in a datagram")
            with listener.accept(timeout=5) as accepted, listener.accept_datagram(timeout=5) as other:
                assert exactly(accepted, 11) == b"in a stream"
                assert other.recv(timeout=5) == b"in a datagram"


def test_timeouts(streams: Streams, endpoint: holepunch.Endpoint, name: str) -> None:
    def send(limit: float) -> None:
        while True:
            streams.connector.sendall(MEGABYTE, timeout=limit)

    with pytest.raises(holepunch.TimeoutError):
        send(0)  # until the system's buffers are full
    with endpoint.listen(f"{name}.more") as listener:
        waits: List[Callable[[float], object]] = [
            lambda time: streams.connector.recv(timeout=time),
            lambda time: streams.connector.sendall(MEGABYTE * 16, timeout=time),
            lambda time: listener.accept(timeout=time),
        ]
        for wait in waits:
            for limit in (0, 0.02, 0.12):
                begin = time.monotonic()
                with pytest.raises(holepunch.TimeoutError) as caught:
                    wait(limit)
                assert limit <= time.monotonic() - begin < limit + 0.5
                assert isinstance(caught.value, TimeoutError)


def test_unknown_name(endpoint: holepunch.Endpoint, name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(holepunch.NotFoundError, match=name):
        endpoint.connect(name, wait=0)
    assert time.monotonic() - begin < 2


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


def test_close_from_another_thread(streams: Streams, endpoint: holepunch.Endpoint, name: str) -> None:
    listener = endpoint.listen(f"{name}.more")
    threads = [
        blocked(streams.listener.recv),
        blocked(lambda: streams.listener.recv(timeout=60)),
        blocked(lambda: streams.listener.sendall(bytes(1 << 26))),
        blocked(listener.accept),
    ]
    streams.listener.close()
    listener.close()
    for thread in threads:
        finish(thread, holepunch.ClosedError)


def test_close_of_the_endpoint(server: str, endpoint: holepunch.Endpoint, name: str) -> None:
    with endpoint.listen(name) as listener, holepunch.Endpoint(server, bind="127.0.0.1") as other:
        stream = other.connect(name)
        with listener.accept(timeout=5):
            threads = [blocked(stream.recv), blocked(lambda: other.connect(f"{name}.nobody", wait=60))]
            other.close()
            for thread in threads:
                finish(thread, holepunch.ClosedError)


def test_cancel(streams: Streams, endpoint: holepunch.Endpoint, name: str) -> None:
    cancel = holepunch.Cancel()
    listener = endpoint.listen(f"{name}.more")
    calls: List[Callable[[], object]] = [
        lambda: streams.listener.recv(cancel=cancel),
        lambda: streams.listener.sendall(bytes(1 << 26), cancel=cancel),
        lambda: listener.accept(cancel=cancel),
        lambda: endpoint.connect(f"{name}.nobody", wait=60, cancel=cancel),
    ]
    threads = [blocked(call) for call in calls]
    cancel.cancel()
    for thread in threads:
        finish(thread, holepunch.CancelledError)
    for call in calls:  # it stays cancelled, on the main thread as well
        with pytest.raises(holepunch.CancelledError):
            call()
    # What was cancelled is as good as before.
    streams.connector.sendall(b"hello")
    assert exactly(streams.listener, 5) == b"hello"
    listener.close()


def test_nothing_is_left_open(server: str, name: str) -> None:
    def life(index: int) -> None:
        with holepunch.Endpoint(server, bind="127.0.0.1") as endpoint:
            with endpoint.listen(f"{name}.{index}") as listener:
                for spent in (False, True):
                    with holepunch.connect(f"{name}.{index}", servers=server, bind="127.0.0.1") as connector:
                        with listener.accept(timeout=5) as accepted:
                            connector.sendall(b"hello")
                            exactly(accepted, 5)
                            if spent:
                                connector.into_socket().close()
                                assert accepted.recv(timeout=5) == b""
            with pytest.raises(holepunch.NotFoundError):
                endpoint.connect(f"{name}.nobody", wait=0)
        gc.collect()

    life(0)  # what is opened once for the whole process
    deadline = time.monotonic() + 5  # a closed endpoint tells its server in the background, for at most 3 s
    before = descriptors()
    for index in range(1, 4):
        life(index)
    while len(descriptors()) > len(before) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert len(descriptors()) <= len(before)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_told(streams: Streams) -> None:
    def child(results: "multiprocessing.SimpleQueue[str]") -> None:
        stream = streams.connector
        for call in (lambda: stream.recv(timeout=1), lambda: stream.sendall(b"x"), stream.shutdown, stream.into_socket):
            try:
                call()
            except holepunch.HolepunchError as error:
                results.put(error.kind)
            else:
                results.put("no error")

    context = multiprocessing.get_context("fork")
    results: "multiprocessing.SimpleQueue[str]" = context.SimpleQueue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert [results.get() for _ in range(4)] == ["forked"] * 4
    # The parent's is untouched.
    streams.connector.sendall(b"hello")
    assert exactly(streams.listener, 5) == b"hello"


def test_exit_with_everything_open(server: str, name: str) -> None:
    script = f"""
import threading, holepunch
listener = holepunch.listen({name!r}, servers={server!r}, bind="127.0.0.1")
stream = holepunch.connect({name!r}, servers={server!r}, bind="127.0.0.1")
accepted = listener.accept(timeout=5)
for wait in stream.recv, accepted.recv, listener.accept:
    threading.Thread(target=wait, daemon=True).start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
