"""holepunch.server: its surface, its hooks, and everything that ended the server of 2015."""

import contextlib
import errno
import logging
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Iterator, List, Optional, Type

import pytest

import holepunch
import holepunch.client
import holepunch.config
from holepunch.message import Message
from holepunch.server import Client, Server

from legacy import old
from legacy.conftest import Hooked, listeners, serve

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
    while listeners(server, host) < count:
        assert time.monotonic() < end
    return sock


def clients(server: Server) -> int:
    """How many are connected."""
    return len(server._rlist) - 1 if server._loop is None else server._loop.stats()["connections"]


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


@pytest.mark.parametrize("kind", [Server, Hooked])
def test_ipv4_on_a_socket_of_both_families(kind: Type[Server], punch_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"SKIPPED: this machine has no IPv6 ({error})")
    for server in serve(kind("::", 0), monkeypatch):
        server.addr = ("127.0.0.1", server.addr[1])
        works(server)


# --- The Rust loop, of a server without hooks


def test_which_loop(new_server: Server, plain_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert new_server._loop is None and plain_server._loop is not None

    class Opened(Server):
        """What it overrides is called with either loop."""

        def open(self) -> None:
            super().open()

    def has_hooks(kind: Type[Server], prepare: Callable[[Server], object] = lambda server: None) -> bool:
        with kind("127.0.0.1", 0) as server:
            server.open()
            prepare(server)
            return server._has_hooks()

    assert not has_hooks(Server) and not has_hooks(Opened)
    assert has_hooks(Watched)
    assert has_hooks(Server, lambda server: setattr(server, "find_client", lambda *_: None))
    assert has_hooks(Server, lambda server: server.append_client(Client(server)))
    monkeypatch.setattr(holepunch.server, "Client", type("Other", (Client,), {}))
    assert has_hooks(Server)


def test_the_current_protocol_is_spoken_at_the_same_port(plain_server: Server) -> None:
    where = "%s:%d" % plain_server.addr
    with holepunch.Endpoint(where, bind="127.0.0.1") as one, holepunch.Endpoint(where, bind="127.0.0.1") as other:
        with one.listen("bob") as listener, other.connect("bob") as stream, listener.accept(timeout=5) as accepted:
            stream.sendall(b"hello")
            assert accepted.recv(timeout=5) == b"hello"
    works(plain_server)


def test_udp_is_not_needed(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("127.0.0.1", old.free_port())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(server.addr)
        for running in serve(server, monkeypatch):
            works(running)


def test_the_ports_source_may_be_the_environment(plain_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holepunch.config, "_assigned", set())
    for port in ("1234", "4321"):
        monkeypatch.setenv("HOLEPUNCH_PORT", port)
        answer = b""
        while answer != b"*('127.0.0.31', %d)" % int(port):  # it is looked at 20 times a second
            with listening(plain_server):
                answer = old.ask(plain_server.addr, "127.0.0.2", b">" + LISTENER.encode())


@pytest.mark.parametrize("port", [0x10000, -1, "many"])
def test_a_punch_port_that_is_none(port: object, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("127.0.0.1", 0)
    monkeypatch.setattr(holepunch.config, "HOLEPUNCH_PORT", port)
    with pytest.raises((OverflowError, TypeError)):
        server.run()
    assert server.fileno() == -1


def test_closing_a_server_that_is_about_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("127.0.0.1", 0)

    def close_meanwhile() -> int:
        server.close()  # as another thread may
        return 20001

    monkeypatch.setattr(holepunch.config, "_punch_port", close_meanwhile)
    server.run()
    assert server.fileno() == -1


@pytest.mark.parametrize("kind", [Server, Hooked])
def test_log_lines(
    kind: Type[Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, punch_port: int
) -> None:
    caplog.set_level(logging.INFO)
    for server in serve(kind("127.0.0.1", 0), monkeypatch):
        works(server)
    where = "%s:%d" % server.addr
    said = [record.getMessage() for record in caplog.records if record.name == "holepunch.server"]
    assert said == [f"Open server socket {where}", f"Close server socket {where}"]


# --- Wire


def test_exact_bytes(either_server: Server, punch_port: int) -> None:
    """One write each: first the connector, then the listener; nothing before or after."""
    with listening(either_server) as listener, connected(either_server, "127.0.0.2", b">" + LISTENER.encode()) as connector:
        assert connector.recv(1000) == b"*('127.0.0.31', %d)" % punch_port
        assert listener.recv(1000) == b"*('127.0.0.2', %d)" % punch_port
        for sock in (connector, listener):
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1000) == b""


def test_the_port_is_read_for_each_answer(either_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for port in (1234, 4321):
        monkeypatch.setattr(holepunch.config, "HOLEPUNCH_PORT", port)
        with listening(either_server):
            assert old.ask(either_server.addr, "127.0.0.2", b">" + LISTENER.encode()) == b"*('127.0.0.31', %d)" % port


def test_not_found_and_again(either_server: Server) -> None:
    with connected(either_server, "127.0.0.2") as sock:
        for _ in range(3):
            sock.sendall(b">127.0.0.99")
            assert sock.recv(10) == b"?"
        with listening(either_server):
            sock.sendall(b">" + LISTENER.encode())
            assert sock.recv(100)[:1] == b"*"


@pytest.mark.parametrize("request_", [b">127.0.0.31", b">127.0.0.3", b">127.0.0.2\n", b">127.0.0.200"])
def test_split_requests(either_server: Server, request_: bytes) -> None:
    """A byte at a time, and no prefix of it is taken for it."""
    host = request_[1:].strip().decode()
    others = {f"127.0.0.{end}" for end in (2, 3, 20, 200, 31)} - {host}
    listeners = [listening(either_server, other) for other in [host, *others]]
    with connected(either_server, "127.0.0.9") as sock:
        for byte in request_:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)  # segments of their own; nothing waits for it
        assert sock.recv(100).startswith(f"*('{host}'".encode())
        assert listeners[0].recv(100).startswith(b"*('127.0.0.9'")
    for listener in listeners:
        listener.close()


def test_coalesced_requests(either_server: Server) -> None:
    with listening(either_server, "127.0.0.31"), listening(either_server, "127.0.0.32"):
        with connected(either_server, "127.0.0.2", b">127.0.0.31>127.0.0.99\n>127.0.0.32<announced") as sock:
            answers = b""
            while answers.count(b")") < 2:
                answers += sock.recv(100)
            port = holepunch.config.HOLEPUNCH_PORT
            assert answers == b"*('127.0.0.31', %d)?*('127.0.0.32', %d)" % (port, port)
            while not listeners(either_server, "127.0.0.2"):
                pass


def test_how_long_a_request_may_be_unfinished(either_server: Server) -> None:
    def seconds(request: bytes, answer: bytes, listener: Optional[str] = None) -> float:
        """The shortest of five, for the machine may be busy."""
        found = []
        for _ in range(5):
            waiting = listening(either_server, listener) if listener else None
            with connected(either_server, "127.0.0.9") as sock:
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
def test_bad_requests(either_server: Server, data: bytes) -> None:
    with connected(either_server, "127.0.0.2", data) as sock:
        assert sock.recv(100) == b"?"
        sock.sendall(b">127.0.0.99")
        assert sock.recv(100) == b"?"
    works(either_server)


@pytest.mark.parametrize("announcement", [b"<holepunch/1 <a> >127.0.0.99\n", b"<x>", b"< <<"])
def test_an_announcement_is_ignored_as_far_as_its_piece_goes(either_server: Server, announcement: bytes) -> None:
    with listening(either_server, request=announcement) as sock:
        assert old.ask(either_server.addr, "127.0.0.2", b">" + LISTENER.encode())[:1] == b"*"
        assert sock.recv(100)[:1] == b"*"
        sock.sendall(b">127.0.0.99\n")
        assert sock.recv(100) == b"?"


def test_a_line_of_another_protocol_is_not_answered(new_server: Server) -> None:
    with connected(new_server, "127.0.0.2", b"HOLEPUNCH/1\r\n>127.0.0.99") as sock:
        assert sock.recv(100) == b"?"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""


def test_the_silent_are_closed(new_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holepunch.server, "_IDLE", 0.3)
    with listening(new_server) as listener, connected(new_server) as mute, connected(new_server) as asking:
        asking.sendall(b">127.0.0.99\n")
        assert asking.recv(10) == b"?"
        begin = time.monotonic()
        mute.settimeout(10)
        asking.settimeout(10)
        assert mute.recv(1) == b"" and asking.recv(1) == b""
        assert time.monotonic() - begin > 0.2
        # Who listens may be silent; once introduced it is like the others.
        assert old.ask(new_server.addr, "127.0.0.2", b">" + LISTENER.encode())[:1] == b"*"
        listener.settimeout(10)
        assert listener.recv(100)[:1] == b"*" and listener.recv(1) == b""


def test_a_hook_that_closes_sockets(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the server's back; the numbers of their descriptors are used again by who comes next."""

    class Rude(Server):
        def accept_client(self) -> Any:
            for member in self._rlist[1:]:
                member.sock.close()
            return super().accept_client()

    for server in serve(Rude("127.0.0.1", 0), monkeypatch):
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                sock = stack.enter_context(connected(server, request=b">127.0.0.99\n"))
                assert sock.recv(10) == b"?"
            assert len(server._registered) <= 3


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("data", [b"", b"<", b">127.0.0.99", b"garbage"])
def test_resets(either_server: Server, data: bytes) -> None:
    for _ in range(50):
        reset(connected(either_server, "127.0.0.2", data))
    works(either_server)
    end = time.monotonic() + 10
    while clients(either_server):
        assert time.monotonic() < end


def test_a_million_requests_of_one_who_does_not_read(either_server: Server) -> None:
    with connected(either_server, "127.0.0.2") as sock:
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):  # it is read no further, or dropped, or read in vain
            sock.sendall(b">x" * 10_000_000)
        works(either_server)
    works(either_server)


def test_many_requests_in_one_segment(either_server: Server) -> None:
    with connected(either_server, "127.0.0.2", b">127.0.0.99\n" * 4000) as sock:
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


def test_no_descriptors_left_but_for_the_mute(new_server: Server) -> None:
    """The oldest that never said anything makes room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connected(new_server) as spoken, connected(new_server) as mute, connected(new_server) as last:
        for sock in (spoken, last):
            sock.sendall(b">127.0.0.99\n")
            assert sock.recv(10) == b"?", "it is accepted, and so are those before it"
        with socket.socket() as sock:
            lowest = os.dup(sock.fileno())
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                sock.connect(new_server.addr)
                sock.sendall(b">127.0.0.99\n")
                sock.settimeout(10)
                assert sock.recv(10) == b"?"
                mute.settimeout(10)
                assert mute.recv(1) == b""
                spoken.sendall(b">127.0.0.99\n")
                assert spoken.recv(10) == b"?"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_introductions_reach_listeners_only(either_server: Server) -> None:
    with connected(either_server, LISTENER) as idle, connected(either_server, LISTENER) as asking:
        asking.sendall(b">127.0.0.31\n")
        assert asking.recv(10) == b"?"
        asking.sendall(b"<>127.0.0.31\n")  # a listener does not find itself
        assert asking.recv(10) == b"?"
        with listening(either_server, count=2):
            assert old.ask(either_server.addr, "127.0.0.2", b">127.0.0.31")[:1] == b"*"
            assert asking.recv(100)[:1] == b"*"
        idle.setblocking(False)
        with pytest.raises(BlockingIOError):
            idle.recv(10)


def test_oldest_first_and_one_use_each(either_server: Server) -> None:
    with listening(either_server) as first, listening(either_server, count=2) as second:
        for host, listener in (("127.0.0.2", first), ("127.0.0.3", second)):
            assert old.ask(either_server.addr, host, b">127.0.0.31")[:1] == b"*"
            assert listener.recv(100).startswith(f"*('{host}'".encode())
        assert old.ask(either_server.addr, "127.0.0.4", b">127.0.0.31") == b"?"


def test_listeners_that_left_are_not_found(either_server: Server) -> None:
    for leave in (socket.socket.close, reset):
        leave(listening(either_server))
        end = time.monotonic() + 10
        # The loop in Python looks whether a listener is still there; the other one learns of its end in its turn.
        while either_server._loop is not None and clients(either_server):
            assert time.monotonic() < end
    with listening(either_server) as listener:
        assert old.ask(either_server.addr, "127.0.0.2", b">127.0.0.31")[:1] == b"*"
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
