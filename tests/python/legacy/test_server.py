"""holepunch.server: its surface, its hooks, and everything that ended the server of 2015."""

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Iterator, List, Optional

import pytest

import holepunch
import holepunch.client
import holepunch.config
from holepunch.message import Message
from holepunch.server import Client, Server

from legacy import old
from legacy.conftest import serve

LISTENER = "127.0.0.31"


def connected(server: Server, host: str = "127.0.0.1", request: bytes = b"") -> socket.socket:
    sock = socket.create_connection(server.addr, 10, (host, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if request:
        sock.sendall(request)
    return sock


def listening(server: Server, host: str = LISTENER, count: int = 1, request: bytes = b"<") -> socket.socket:
    sock = connected(server, host, request)
    end = time.monotonic() + 10
    while len(server._listeners.get(host, ())) < count:
        assert time.monotonic() < end
    return sock


def works(server: Server) -> None:
    """Introduces two more."""
    port = holepunch.config.HOLEPUNCH_PORT
    with listening(server, "127.0.0.77") as listener:
        assert old.ask(server.addr, "127.0.0.78", b">127.0.0.77") == b"*('127.0.0.77', %d)" % port
        assert listener.recv(100) == b"*('127.0.0.78', %d)" % port


# --- Surface


def test_before_and_after() -> None:
    server = Server("127.0.0.1", 0)
    assert server._sock is None and server.addr == ("127.0.0.1", 0)
    with pytest.raises(AttributeError):
        server.fileno()
    assert server.open() is None  # type: ignore[func-returns-value]
    assert server.sock.getsockname() == server.addr and server.fileno() == server.sock.fileno()
    assert server._rlist == [server] and server._wlist == [] and server._xlist == []
    assert select.select([server], [], [], 0)[0] == []
    server.close()
    server.close()
    assert server.fileno() == -1 and server._rlist == []
    server.open()
    server.close()


def test_by_hand() -> None:
    """The methods of server and client without `run`."""
    server = Server("127.0.0.1", 0)
    server.open()
    with server, connected(server) as sock:
        assert select.select([server], [], [], 10)[0] == [server]
        client = server.accept_client()
        assert isinstance(client, Client) and server._rlist == [server, client]
        assert client.addr == sock.getsockname() and client.fileno() == client.sock.fileno()
        assert server.find_client(client.sock, None, None) is client
        assert server.find_client(None, *client.addr) is client
        assert server.find_client(host="127.0.0.1") is client
        assert server.find_client(None, *server.addr) is None  # never the server itself
        client.send(Message(b"?"))
        assert sock.recv(10) == b"?"
        sock.sendall(b">127.0.0.9 ")
        assert select.select([client], [], [], 10)[0] == [client]
        client.handle()
        assert sock.recv(10) == b"?"
        sock.sendall(b"text")
        assert select.select([client], [], [], 10)[0] == [client]
        assert client.recv() == b"text"
        server.remove_client(client)
        assert server._rlist == [server]
        server.append_client(client)
        client.close()
        assert server._rlist == [server] and client.fileno() == -1


def test_run_ends_with_ctrl_c() -> None:
    code = "import holepunch.server as s; print(s.Server('127.0.0.1', 0).run(), 'after')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not listens(process.pid):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("None after\n", "", 0)


def listens(pid: int) -> bool:
    done = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True)
    return f"pid={pid}," in done.stdout


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as sock:
        with pytest.raises(OSError) as caught:
            Server(*sock.getsockname()).run()
        assert caught.value.errno == errno.EADDRINUSE
    one, other = Server("127.0.0.1", 0), None
    one.open()
    with one:
        other = Server(*one.addr)
        with pytest.raises(OSError) as caught:
            other.open()
        assert caught.value.errno == errno.EADDRINUSE


# --- Hooks


class Watched(Server):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.calls: List[str] = []

    def accept_client(self) -> Any:
        self.calls.append("accept")
        return super().accept_client()

    def append_client(self, client: Any) -> None:
        self.calls.append("append")
        super().append_client(client)

    def remove_client(self, client: Any) -> None:
        self.calls.append("remove")
        super().remove_client(client)

    def find_client(self, sock: Any = None, host: Optional[str] = None, port: Optional[int] = None) -> Any:
        self.calls.append(f"find {host}")
        for client in self._rlist:  # as a subclass of 2015 would
            if client is not self and host == f"my-{client.addr[0]}":
                return client
        return super().find_client(sock, host, port)


@pytest.fixture
def watched(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    for server in serve(Watched("127.0.0.1", 0), monkeypatch):
        assert isinstance(server, Watched)
        yield server


def test_overridden_hooks_are_used(watched: Watched, punch_port: int) -> None:
    with listening(watched) as listener:
        assert old.ask(watched.addr, "127.0.0.2", b">my-" + LISTENER.encode()) == b"*('127.0.0.31', %d)" % punch_port
        assert listener.recv(100) == b"*('127.0.0.2', %d)" % punch_port
    assert watched.calls[:5] == ["accept", "append", "accept", "append", f"find my-{LISTENER}"]
    assert old.ask(watched.addr, LISTENER, b">nobody") == b"?"
    while watched.calls.count("remove") < 3:
        pass
    # What the default finds is introduced as well, and never the server or the requester.
    works(watched)
    assert old.ask(watched.addr, "127.0.0.1", b">127.0.0.1") == b"?"


# --- Wire


def test_exact_bytes(new_server: Server, punch_port: int) -> None:
    """One write each: first the connector, then the listener; nothing before or after."""
    with listening(new_server) as listener, connected(new_server, "127.0.0.2", b">" + LISTENER.encode()) as connector:
        assert connector.recv(1000) == b"*('127.0.0.31', %d)" % punch_port
        assert listener.recv(1000) == b"*('127.0.0.2', %d)" % punch_port
        for sock in (connector, listener):
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1000) == b""


def test_the_port_is_read_for_each_answer(new_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for port in (1234, 4321):
        monkeypatch.setattr(holepunch.config, "HOLEPUNCH_PORT", port)
        with listening(new_server):
            assert old.ask(new_server.addr, "127.0.0.2", b">" + LISTENER.encode()) == b"*('127.0.0.31', %d)" % port


def test_not_found_and_again(new_server: Server) -> None:
    with connected(new_server, "127.0.0.2") as sock:
        for _ in range(3):
            sock.sendall(b">127.0.0.99")
            assert sock.recv(10) == b"?"
        with listening(new_server):
            sock.sendall(b">" + LISTENER.encode())
            assert sock.recv(100)[:1] == b"*"


@pytest.mark.parametrize("request_", [b">127.0.0.31", b">127.0.0.3", b">127.0.0.2\n", b">127.0.0.200"])
def test_split_requests(new_server: Server, request_: bytes) -> None:
    """A byte at a time, and no prefix of it is taken for it."""
    host = request_[1:].strip().decode()
    others = {f"127.0.0.{end}" for end in (2, 3, 20, 200, 31)} - {host}
    listeners = [listening(new_server, other) for other in [host, *others]]
    with connected(new_server, "127.0.0.9") as sock:
        for byte in request_:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)  # segments of their own; nothing waits for it
        assert sock.recv(100).startswith(f"*('{host}'".encode())
        assert listeners[0].recv(100).startswith(b"*('127.0.0.9'")
    for listener in listeners:
        listener.close()


def test_coalesced_requests(new_server: Server) -> None:
    with listening(new_server, "127.0.0.31"), listening(new_server, "127.0.0.32"):
        with connected(new_server, "127.0.0.2", b">127.0.0.31>127.0.0.99\n>127.0.0.32<announced") as sock:
            answers = b""
            while answers.count(b")") < 2:
                answers += sock.recv(100)
            port = holepunch.config.HOLEPUNCH_PORT
            assert answers == b"*('127.0.0.31', %d)?*('127.0.0.32', %d)" % (port, port)
            while "127.0.0.2" not in new_server._listeners:
                pass


def test_how_long_a_request_may_be_unfinished(new_server: Server) -> None:
    def seconds(request: bytes, answer: bytes, listener: Optional[str] = None) -> float:
        """The shortest of five, for the machine may be busy."""
        found = []
        for _ in range(5):
            waiting = listening(new_server, listener) if listener else None
            with connected(new_server, "127.0.0.9") as sock:
                begin = time.monotonic()
                sock.sendall(request)
                assert sock.recv(100)[:1] == answer
                found.append(time.monotonic() - begin)
            if waiting:
                waiting.close()
        return min(found)

    assert seconds(b">127.0.0.31", b"*", "127.0.0.31") < 0.02  # no digit can follow
    assert 0.02 <= seconds(b">127.0.0.3", b"*", "127.0.0.3") < 0.1
    assert seconds(b">127.0.0.99", b"?") >= 0.1
    assert seconds(b">127.0.0.99\n", b"?") < 0.1


# --- What ended the server of 2015, or went wrong in it


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\xfd", b"*(", b"*('127.0.0.1', 1)", b"*(__import__('os')._exit(1), 1)", b">0.0.0.0", b">127.0.0.1", b">", b"x", b">\xff", b"?", b"."]
    + [b">" + b"1" * 1_000_000],
)
def test_bad_requests(new_server: Server, data: bytes) -> None:
    with connected(new_server, "127.0.0.2", data) as sock:
        assert sock.recv(100) == b"?"
        sock.sendall(b">127.0.0.99")
        assert sock.recv(100) == b"?"
    works(new_server)


def test_a_line_of_another_protocol_is_not_answered(new_server: Server) -> None:
    with connected(new_server, "127.0.0.2", b"HOLEPUNCH/1\r\n>127.0.0.99") as sock:
        assert sock.recv(100) == b"?"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("data", [b"", b"<", b">127.0.0.99", b"garbage"])
def test_resets(new_server: Server, data: bytes) -> None:
    for _ in range(50):
        reset(connected(new_server, "127.0.0.2", data))
    works(new_server)
    end = time.monotonic() + 10
    while len(new_server._rlist) > 1:
        assert time.monotonic() < end


def test_a_million_requests_of_one_who_does_not_read(new_server: Server) -> None:
    with connected(new_server, "127.0.0.2") as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.sendall(b">x" * 10_000_000)
        works(new_server)
    works(new_server)


def test_many_requests_in_one_segment(new_server: Server) -> None:
    with connected(new_server, "127.0.0.2", b">127.0.0.99\n" * 4000) as sock:
        answers = b""
        while len(answers) < 4000:
            answers += sock.recv(10_000)
        assert answers == b"?" * 4000


def test_more_clients_than_select_takes(punch_port: int) -> None:
    """1,100 clients, on a server in a process of its own, which may have as many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8000), hard))
    port = old.free_port()
    code = f"import holepunch.server as s; s.Server('127.0.0.1', {port}).run()"
    clients: List[socket.socket] = []
    try:
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            while not listens(process.pid):
                assert process.poll() is None
            addr = ("127.0.0.1", port)
            for number in range(1100):
                clients.append(socket.create_connection(addr, 10, (f"127.0.1.{number % 250 + 1}", 0)))
                clients[-1].sendall(b"<")
            assert old.ask(addr, "127.0.0.2", b">127.0.1.250").startswith(b"*('127.0.1.250', ")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptors_left(new_server: Server) -> None:
    """Those who cannot be accepted wait; the server does not spin, and goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connected(new_server) as first:
        first.sendall(b">127.0.0.99\n")
        assert first.recv(10) == b"?", "it is accepted"
        sock = socket.socket()
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            sock.connect(new_server.addr)
            sock.sendall(b">127.0.0.99\n")
            end = time.monotonic() + 10
            while new_server._accepting_from is None:
                assert time.monotonic() < end
            begin = time.process_time()
            first.sendall(b">127.0.0.99\n")
            assert first.recv(10) == b"?"
            assert time.process_time() - begin < 0.2
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.settimeout(10)
        assert sock.recv(10) == b"?"
        sock.close()


def test_introductions_reach_listeners_only(new_server: Server) -> None:
    with connected(new_server, LISTENER) as idle, connected(new_server, LISTENER) as asking:
        asking.sendall(b">127.0.0.31\n")
        assert asking.recv(10) == b"?"
        asking.sendall(b"<>127.0.0.31\n")  # a listener does not find itself
        assert asking.recv(10) == b"?"
        with listening(new_server, count=2):
            assert old.ask(new_server.addr, "127.0.0.2", b">127.0.0.31")[:1] == b"*"
            assert asking.recv(100)[:1] == b"*"
        idle.setblocking(False)
        with pytest.raises(BlockingIOError):
            idle.recv(10)


def test_oldest_first_and_one_use_each(new_server: Server) -> None:
    with listening(new_server) as first, listening(new_server, count=2) as second:
        for host, listener in (("127.0.0.2", first), ("127.0.0.3", second)):
            assert old.ask(new_server.addr, host, b">127.0.0.31")[:1] == b"*"
            assert listener.recv(100).startswith(f"*('{host}'".encode())
        assert old.ask(new_server.addr, "127.0.0.4", b">127.0.0.31") == b"?"


def test_listeners_that_left_are_not_found(new_server: Server) -> None:
    listening(new_server).close()
    reset(listening(new_server))
    with listening(new_server) as listener:
        assert old.ask(new_server.addr, "127.0.0.2", b">127.0.0.31")[:1] == b"*"
        assert listener.recv(100)[:1] == b"*"


def test_silently_dead_clients_are_noticed(new_server: Server) -> None:
    with listening(new_server):
        client = next(iter(new_server._listeners[LISTENER]))
        assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30


def test_close_from_another_thread(monkeypatch: pytest.MonkeyPatch, punch_port: int) -> None:
    for server in serve(Server("127.0.0.1", 0), monkeypatch):
        with listening(server) as sock:
            server.close()
            assert sock.recv(1) == b""
