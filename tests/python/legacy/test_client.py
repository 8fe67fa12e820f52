"""holepunch.client: names, attributes, hooks, errors, waits."""

import errno
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator, List, Tuple, Type

import pytest

import holepunch
import holepunch.server
from holepunch.client import AnswerError, Client, ListenerNotFoundError, SelfConnectError, Server, TCPClient, UDPClient
from holepunch.message import Message

from legacy import old

KINDS = [Client, TCPClient, UDPClient]
Kind = Type[Client]


def pair_of(kind: Kind, punch_port: int) -> Tuple[Client, Client]:
    """Two clients that met, without a server."""
    ends = [kind(bind="127.0.0.2"), kind(bind="127.0.0.3")]
    addrs = [("127.0.0.2", punch_port), ("127.0.0.3", punch_port)]

    def meet(number: int) -> None:
        ends[number].sock, ends[number].addr = ends[number]._holepunch(addrs[number], addrs[1 - number])

    with old.in_thread(lambda: meet(0)):
        meet(1)
    return ends[0], ends[1]


class AnsweringServer:
    """A server that answers the first client with these pieces, each in a segment of its own."""

    def __init__(self, *pieces: bytes, end: bool = False) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.server = "127.0.0.1:%d" % self.sock.getsockname()[1]
        self.heard: List[bytes] = []
        self._pieces, self._end = pieces, end
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, _ = self.sock.accept()
        with client:
            client.settimeout(10)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.heard.append(client.recv(1024))
            for piece in self._pieces:
                client.sendall(piece)
                time.sleep(0.01)  # segments of their own; nothing waits for it
            if self._end:
                client.shutdown(socket.SHUT_WR)
            while self.heard[-1]:
                self.heard.append(client.recv(1024))

    def __enter__(self) -> "AnsweringServer":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._thread.join()
        self.sock.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield "127.0.0.1:%d" % sock.getsockname()[1]


# --- Before open, and after close


def test_imports_of_2015() -> None:
    code = "import holepunch.client, holepunch.server, holepunch.message, holepunch.config; print(holepunch.client.Client)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", KINDS)
def test_before_open(kind: Kind) -> None:
    client = kind()
    assert (client.sock, client.addr, client._sock, client._addr) == (None, None, None, None)
    assert isinstance(client._server, Server) and client._server._sock is None
    for call in (lambda: client.send(b"x"), client.recv, client.fileno, lambda: select.select([client], [], [], 0)):
        with pytest.raises(AttributeError) as caught:
            call()
        assert isinstance(caught.value, holepunch.NotConnectedError)
    client.close()
    client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_life_and_death(kind: Kind, punch_port: int) -> None:
    one, other = pair_of(kind, punch_port)
    assert type(one.sock) is socket.socket and one.addr == ("127.0.0.3", punch_port)
    assert one.fileno() == one.sock.fileno() >= 0
    assert one.send(b"hello") is None  # type: ignore[func-returns-value]
    data = b"*"
    while data == b"*":
        assert select.select([other], [], [], 10)[0] == [other]
        data = other.recv()
    assert data == b"hello"
    sock = one.sock
    assert one.close() is None  # type: ignore[func-returns-value]
    one.close()
    assert one.sock is sock and one.addr is None and one.fileno() == -1
    for call in (lambda: one.send(b"x"), one.recv):
        with pytest.raises(OSError):
            call()
    with pytest.raises(ValueError):
        select.select([one], [], [], 0)
    other.close()


def test_as_a_context(punch_port: int) -> None:
    one, other = pair_of(TCPClient, punch_port)
    with one as same, other:
        assert same is one
    assert one.fileno() == other.fileno() == -1


@pytest.mark.parametrize("kind", KINDS)
def test_any_socket_may_be_set(kind: Kind) -> None:
    class Duck:
        sent: List[bytes] = []
        closed = False

        def send(self, data: bytes) -> int:
            self.sent.append(data)
            return len(data)

        def recv(self, size: int) -> bytes:
            assert size == 65535
            return b"quack"

        def close(self) -> None:
            self.closed = True

    client, duck = kind(), Duck()
    client.sock, client.addr = duck, ("pond", 1)
    assert client._sock is duck and client._addr == ("pond", 1)
    client.send(b"hello")
    assert (duck.sent.pop(), client.recv()) == (b"hello", b"quack")
    client.close()
    assert duck.closed and client.addr is None


def test_datagrams_go_where_the_program_connected(punch_port: int) -> None:
    one, other = pair_of(UDPClient, punch_port)
    with one, other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.bind(("127.0.0.1", 0))
        third.settimeout(10)
        one.sock.connect(third.getsockname())
        one.send(b"hello")
        assert third.recv(100) == b"hello"


def test_a_stream_sends_everything_while_another_thread_receives(punch_port: int) -> None:
    data = os.urandom(3_000_000)

    def receive(client: Client) -> Callable[[], object]:
        def work() -> bytes:
            parts: List[bytes] = []
            while sum(map(len, parts)) < len(data):
                parts.append(client.recv())
                assert 0 < len(parts[-1]) <= 65535
            return b"".join(parts)

        return work

    one, other = pair_of(Client, punch_port)
    with one, other:
        with old.in_thread(receive(one), receive(other), lambda: one.send(data)) as results:
            other.send(data)
        assert results[:2] == [data, data]


@pytest.mark.parametrize("kind", KINDS)
def test_close_wakes_a_reader(kind: Kind, punch_port: int) -> None:
    one, other = pair_of(kind, punch_port)
    with other:
        failures: List[OSError] = []

        def read() -> None:
            try:
                while one.recv() == b"*":
                    pass
            except OSError as failure:
                failures.append(failure)

        thread = threading.Thread(target=read)
        thread.start()
        while not one._calls:
            pass
        one.close()
        thread.join(5)
        assert not thread.is_alive() and failures[0].errno == errno.EBADF


# --- Opening


@pytest.mark.parametrize("base", KINDS)
def test_the_hook(base: Any, new_server: holepunch.server.Server, punch_port: int) -> None:
    called: List[Tuple[Any, Any]] = []

    class Mine(base):  # type: ignore[misc]
        def _holepunch(self, source_addr: Any, dest_addr: Any) -> Any:
            called.append((source_addr, dest_addr))
            return "my socket", "my address"

    with old.in_thread(lambda: old.ask(new_server.addr, "127.0.0.31", b"<")) as answers:
        while "127.0.0.31" not in new_server._listeners:
            pass
        client = Mine()
        assert client.open("127.0.0.31") is None
    assert called == [(("", punch_port), ("127.0.0.31", punch_port))]
    assert (client.sock, client.addr) == ("my socket", "my address")
    assert answers == [b"*('127.0.0.1', %d)" % punch_port]


@pytest.mark.parametrize("kind", KINDS)
def test_not_found(kind: Kind, new_server: holepunch.server.Server) -> None:
    with pytest.raises(ListenerNotFoundError) as caught:
        kind().open("127.0.0.99")
    error = caught.value
    assert isinstance(error, holepunch.NotFoundError) and not isinstance(error, OSError)
    assert isinstance(error.args[0], Message) and error.args[0].method == "?"
    assert "127.0.0.99" in str(error) and error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.args[0].method) == (str(error), "?")


@pytest.mark.parametrize(
    "pieces, method",
    [
        ([], "."),
        ([b"*('127.0.0.9', 2"], "."),
        ([b"*("], "."),
        ([b"*(__import__('os').getpid(), 1)"], "*"),
        ([b"*('host.invalid', 1)"], "*"),
        ([b"*('0.0.0.0', 1)"], "*"),
        ([b"*('255.255.255.255', 1)"], "*"),
        ([b"*('ff02::1', 1)"], "*"),
        ([b"*('::ffff:224.0.0.1', 1)"], "*"),
        ([b"*" + b"(" * 5000], "*"),
        ([b"\xff\xfe"], "\udcff"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "H"),
    ],
)
def test_answers_that_are_none(pieces: List[bytes], method: str) -> None:
    with AnsweringServer(*pieces, end=True) as server, pytest.raises(AnswerError) as caught:
        Client(server=server.server).open()
    assert caught.value.args[0].method == method and not isinstance(caught.value, OSError)
    assert 0 < len(str(caught.value)) < 200  # not the thousand bytes of the server
    assert server.heard == [b"<", b""]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_a_server_elsewhere_cannot_name_this_machine(host: str) -> None:
    def introduced(server: str) -> Tuple[str, int]:
        return holepunch.client._introduction(Message(f"*('{host}', 7)"), None, server)

    with pytest.raises(AnswerError, match="this machine itself") as caught:
        introduced("203.0.113.1")
    assert caught.value.args[0].method == "*"
    assert introduced("127.0.0.1") == (host.replace("::ffff:", ""), 7)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"*('127.0.0.9', 7)*('127.0.0.8', 8)"],
        [bytes([byte]) for byte in b"*('127.0.0.9', 7)"],
    ],
)
def test_answers_in_other_pieces(pieces: List[bytes]) -> None:
    class Noting(Client):
        def _holepunch(self, source_addr: Any, dest_addr: Any) -> Any:
            return None, (source_addr, dest_addr)

    with AnsweringServer(*pieces) as server:
        client = Noting(server=server.server)
        client.open("127.0.0.9")
    assert client.addr == (("", 7), ("127.0.0.9", 7))
    assert server.heard == [b">127.0.0.9", b""]


def test_a_server_that_goes_on_talking_is_left_all_the_same() -> None:
    class Endless(socket.socket):
        """There is always something to read."""

        read = 0

        def recv(self, size: int, flags: int = 0) -> bytes:
            self.read += 1
            assert time.monotonic() - begin < 5
            return b"?"

    one, other = socket.socketpair()
    with other, Endless(fileno=one.detach()) as endless:
        other.send(b"?")
        server = Server()
        server._sock = endless
        begin = time.monotonic()
        server.close()
        assert endless.read > 0 and server.fileno() == -1


def test_the_view_of_the_server(new_server: holepunch.server.Server, punch_port: int) -> None:
    server = Server()
    for call in (lambda: server.send(b"<"), server.recv, server.fileno):
        with pytest.raises(AttributeError):
            call()
    server.close()
    server.open()
    assert server._addr == new_server.addr and server._sock.getpeername() == new_server.addr
    assert server.connect_request("127.0.0.99").method == "?"
    server.send(b">127.0.0.99")
    assert server.recv().method == "?"  # the connection stays usable
    with old.in_thread(lambda: server.listen_request()) as answers:
        while "127.0.0.1" not in new_server._listeners:
            pass
        assert old.ask(new_server.addr, "127.0.0.3", b">127.0.0.1") == b"*('127.0.0.1', %d)" % punch_port
    answer = answers[0]
    assert isinstance(answer, Message) and answer.body == ("127.0.0.3", punch_port)
    server.close()
    server.close()
    for call in (lambda: server.send(b"<"), server.recv, server.listen_request, lambda: server.connect_request("127.0.0.1")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert server.fileno() == -1


def test_a_socket_that_always_refuses_ends_the_call() -> None:
    class Refusing:
        calls = 0

        def send(self, _data: bytes) -> int:
            self.calls += 1
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    client = UDPClient()
    client.sock = Refusing()
    with pytest.raises(ConnectionRefusedError):
        client.send(b"x")
    assert 1 < client.sock.calls < 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreachable_server_is_the_oserror(kind: Kind) -> None:
    port = old.free_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        kind(server=f"127.0.0.1:{port}").open()
    assert not isinstance(caught.value, holepunch.HolepunchError) and caught.value.errno == errno.ECONNREFUSED
    with pytest.raises(socket.gaierror):
        kind(server="no such name.invalid").open()
    with pytest.raises(OSError):
        kind(server=f"127.0.0.1:{port}", bind="192.0.2.1").open()
    for wrong in (-1, 65536 + port):
        with pytest.raises(OverflowError):  # as sockets say it
            kind(server="127.0.0.1", port=wrong).open()


@pytest.mark.parametrize("kind", KINDS)
def test_oneself(kind: Kind, punch_port: int) -> None:
    with AnsweringServer(b"*('127.0.0.1', %d)" % punch_port) as server, pytest.raises(SelfConnectError) as caught:
        kind(server=server.server).open()
    assert caught.value.args[0].body == ("127.0.0.1", punch_port)
    assert "bind" in str(caught.value) and not isinstance(caught.value, OSError)


def test_two_sessions_on_one_port(punch_port: int) -> None:
    """Each gets its own peer's datagrams, and a second with the same peer is refused."""
    here = ("127.0.0.2", punch_port)
    peers = [old.bound(socket.SOCK_DGRAM, (f"127.0.0.{host}", punch_port)) for host in (3, 4, 5)]
    clients = [UDPClient() for _ in peers]
    try:
        for client, peer in zip(clients, peers):
            peer.sendto(b"*", here)
            with old.in_thread(lambda: peer.sendto(b"*", here) if peer.recv(10) == b"*" else None):
                client.sock, client.addr = client._holepunch(here, peer.getsockname())
            client.sock.settimeout(10)
        for number, (client, peer) in enumerate(zip(clients, peers)):
            peer.sendto(b"for %d" % number, here)
        for number, client in enumerate(clients):
            data = b"*"
            while data == b"*":
                data = client.recv()
            assert data == b"for %d" % number
        with pytest.raises(OSError) as caught:
            UDPClient()._holepunch(here, peers[0].getsockname())
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        for client in clients:
            client.close()
        for peer in peers:
            peer.close()


def test_a_port_in_use(punch_port: int) -> None:
    with socket.create_server(("127.0.0.2", punch_port)):
        with pytest.raises(OSError) as caught:
            TCPClient()._holepunch(("127.0.0.2", punch_port), ("127.0.0.3", punch_port))
    assert caught.value.errno == errno.EADDRINUSE


# --- Waits


@pytest.mark.parametrize("kind", KINDS)
def test_deadlines(kind: Kind, silent: str) -> None:
    for dest in (None, "127.0.0.9"):
        client, begin = kind(server=silent), time.monotonic()
        with pytest.raises(holepunch.TimeoutError) as caught:
            client.open(dest, timeout=0.1)
        assert isinstance(caught.value, TimeoutError) and time.monotonic() - begin < 5
        assert client.sock is None and client.addr is None
    for century in (3e9, 1e300, float("inf")):
        with AnsweringServer(b"?") as server, pytest.raises(ListenerNotFoundError):
            kind(server=server.server).open("127.0.0.9", timeout=century)
    with pytest.raises(holepunch.InvalidArgumentError):
        kind().open(timeout=-1)
    with pytest.raises(holepunch.InvalidArgumentError):
        kind().open(timeout=float("nan"))


def test_a_peer_that_is_not_there_costs_no_cpu(punch_port: int) -> None:
    with AnsweringServer(b"*('127.0.0.9', %d)" % punch_port) as server:
        begin = time.process_time()
        with pytest.raises(holepunch.TimeoutError):
            TCPClient(server=server.server, bind="127.0.0.2").open(timeout=2)
        assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_close_ends_an_open(kind: Kind, silent: str) -> None:
    client = kind(server=silent)
    failures: List[OSError] = []

    def opening() -> None:
        try:
            client.open()
        except OSError as failure:
            failures.append(failure)

    thread = threading.Thread(target=opening)
    thread.start()
    while client._server._sock is None:
        pass
    with pytest.raises(OSError) as caught:
        client.open()
    assert caught.value.errno == errno.EALREADY
    client.close()
    thread.join(5)
    assert not thread.is_alive() and failures[0].errno == errno.EBADF


INTERRUPTED = """
import sys, time
import holepunch.client
class Client(getattr(holepunch.client, sys.argv[1])):
    pass
client = Client(server=sys.argv[2], bind="127.0.0.2")
print("ready", flush=True)
try:
    client.open(sys.argv[3] or None)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
"""


@pytest.mark.parametrize("kind, where", [("Client", "listening"), ("UDPClient", "asking"), ("TCPClient", "punching")])
def test_ctrl_c(kind: str, where: str, silent: str, punch_port: int) -> None:
    answering = AnsweringServer(b"*('127.0.0.9', %d)" % punch_port) if where == "punching" else None
    server = answering.server if answering else silent
    dest = "" if where == "listening" else "127.0.0.9"
    command = [sys.executable, "-c", INTERRUPTED, kind, server, dest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        if answering:
            while b"" not in answering.heard:  # it left the server, and punches
                pass
        else:
            host, port = server.split(":")
            wanted = f"{host}:{port}"
            while wanted not in subprocess.run(["ss", "-Htn"], capture_output=True, text=True).stdout:
                pass
        begin = time.time()
        process.send_signal(signal.SIGINT)
        said = process.stdout.readline().split()
        assert said[0] == "interrupted" and float(said[1]) - begin < 1
        assert process.wait(10) == 0
    if answering:
        answering.__exit__()


def test_nothing_is_left_open(new_server: holepunch.server.Server) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()  # what earlier tests have left in cycles
    server = Server()
    server.open()
    with pytest.raises(ListenerNotFoundError):
        Client(bind="127.0.0.2").open("127.0.0.99")
    while len(new_server._rlist) > 2:
        pass
    # The server is in this process: once it has answered, it has closed the connection of before.
    assert server.connect_request("127.0.0.99").method == "?"
    before = count()
    for kind in KINDS:
        with pytest.raises(ListenerNotFoundError):
            kind(bind="127.0.0.2").open("127.0.0.99")
        with pytest.raises(holepunch.TimeoutError):
            kind(bind="127.0.0.2").open(timeout=0.01)
    end = time.monotonic() + 10
    while count() != before:
        assert time.monotonic() < end, (count(), before)
    server.close()


def test_after_a_fork(punch_port: int) -> None:
    """Both processes have the connection; closing it in one leaves it to the other."""
    one, other = pair_of(TCPClient, punch_port)
    with one, other:
        child = os.fork()
        if not child:
            try:
                one.send(b"from the child")
                one.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert other.recv() == b"from the child"
        one.send(b"from the parent")
        assert other.recv() == b"from the parent"
