"""holepunch.client through a current server: what its programs see is as in 2015."""

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Tuple, Type

import pytest

import holepunch
import holepunch.server
from holepunch.client import AnswerError, Client, ListenerNotFoundError, TCPClient, UDPClient
from holepunch.message import Message

from legacy import old, ways

KINDS = [Client, TCPClient, UDPClient]
Kind = Type[Client]
LISTENER, CONNECTOR = "127.0.0.31", "127.0.0.2"


@pytest.fixture(autouse=True)
def met(plain_server: holepunch.server.Server, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Which way peers were met."""
    return ways.watch(True, monkeypatch.setattr)


def stats(server: holepunch.server.Server) -> Dict[str, int]:
    assert server._loop is not None
    return server._loop.stats()


def wait_for(server: holepunch.server.Server, what: str, number: int = 1) -> None:
    end = time.monotonic() + 10
    while stats(server)[what] != number:
        assert time.monotonic() < end, stats(server)


def opened(kind: Kind, server: holepunch.server.Server) -> Tuple[Client, Client]:
    """A listener and a connector that met."""
    listener, connector = kind(bind=LISTENER), kind(bind=CONNECTOR)
    with old.in_thread(lambda: listener.open(timeout=20)):
        wait_for(server, "registrations")
        connector.open(LISTENER, timeout=20)
    return listener, connector


def held() -> Tuple[int, int]:
    """The descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def at_rest() -> Tuple[int, int]:
    """What is held once the threads that have done their work are gone: they end in the background."""
    end = time.monotonic() + 10
    while leaving():
        assert time.monotonic() < end
    return held()


def leaving() -> int:
    """How many threads are about to end: those of endpoints and of their calls, and those that Python has joined."""
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            with open(f"/proc/self/task/{task}/comm", encoding="ascii") as name:
                names.append(name.read().strip())
    of_python = sum(not isinstance(thread, threading._DummyThread) for thread in threading.enumerate())
    others = sum(not name.startswith("holepunch") for name in names)
    return names.count("holepunch") + names.count("holepunch-call") + others - of_python


def settled(expected: Tuple[int, int]) -> None:
    """Waits for threads that have done their work to be gone."""
    end = time.monotonic() + 10
    while held() != expected:
        assert time.monotonic() < end, (held(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair(
    kind: Kind, plain_server: holepunch.server.Server, punch_port: int, met: List[str], caplog: pytest.LogCaptureFixture
) -> None:
    opened(kind, plain_server)[0].close()  # what is made once is made now
    for what in ("registrations", "connections"):  # the server's descriptors are in this process, too
        wait_for(plain_server, what, 0)
    before = at_rest()
    caplog.clear()
    with caplog.at_level(logging.INFO, "holepunch.client"):
        listener, connector = opened(kind, plain_server)
    assert met == ["current"] * 4
    ends = [(LISTENER, punch_port), (CONNECTOR, punch_port)]
    with listener, connector:
        for client, local, remote in ((listener, ends[0], ends[1]), (connector, ends[1], ends[0])):
            assert type(client.sock) is socket.socket and client.sock.gettimeout() is None
            assert (client.addr, client.sock.getsockname(), client.sock.getpeername()) == (remote, local, remote)
            assert client.fileno() == client.sock.fileno() >= 0
        # Nothing but the two sockets stays, and the server has nobody any more.
        settled((before[0] + 2, before[1]))
        assert stats(plain_server)["registrations"] == 0
        for sender, receiver in ((listener, connector), (connector, listener)):
            sender.send(b"hello")
            assert receiver.recv() == b"hello"
            if kind is UDPClient:
                sender.sock.sendto(b"as in 2015", sender.addr)
                assert receiver.recv() == b"as in 2015"
    said = [record.getMessage() for record in caplog.records]
    server = "%s:%d" % plain_server.addr
    for host in (LISTENER, CONNECTOR):
        assert said.count(f"Open client socket to {host}:{punch_port}") == 1
    assert said.count(f"Open server socket {server}") == said.count(f"Close server socket {server}") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_not_found(kind: Kind, met: List[str]) -> None:
    with pytest.raises(ListenerNotFoundError) as caught:
        kind().open("127.0.0.99")
    assert isinstance(caught.value.args[0], Message) and caught.value.args[0].method == "?"
    assert "127.0.0.99" in str(caught.value) and not isinstance(caught.value, OSError)
    for host in ("localhost", "0.0.0.0", "::1"):
        with pytest.raises(ListenerNotFoundError):
            kind().open(host)
    assert not met


def test_a_listener_for_something_else(plain_server: holepunch.server.Server) -> None:
    listener = UDPClient(bind=LISTENER)
    failures: List[OSError] = []

    def listen() -> None:
        try:
            listener.open()
        except OSError as failure:
            failures.append(failure)

    with old.in_thread(listen):
        wait_for(plain_server, "registrations")
        with pytest.raises(AnswerError) as caught:
            TCPClient(bind=CONNECTOR).open(LISTENER)
        assert caught.value.args[0].method == "." and "transport" in str(caught.value)
        with pytest.raises(OSError) as busy:
            listener.open()
        assert busy.value.errno == errno.EALREADY
        listener.close()
    assert failures[0].errno == errno.EBADF
    wait_for(plain_server, "registrations", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_deadlines(kind: Kind, plain_server: holepunch.server.Server) -> None:
    gc.collect()
    before = at_rest()
    # Registered, and nothing more: it is found, and not met.
    with holepunch.Endpoint("%s:%d" % plain_server.addr, bind=LISTENER, thread=False, legacy=True) as silent:
        with silent.listen():
            for dest in (None, LISTENER):
                client, begin = kind(bind=CONNECTOR), time.monotonic()
                with pytest.raises(TimeoutError, match="not done within"):
                    client.open(dest, timeout=0.3)
                assert 0.2 < time.monotonic() - begin < 5
                assert client.sock is None and client.addr is None
    del silent, client
    gc.collect()  # the exceptions remember what the calls waited with
    settled(before)


INTERRUPTED = """
import sys, time
import holepunch.client
client = getattr(holepunch.client, sys.argv[1])(server=sys.argv[2], bind="127.0.0.2")
holepunch.client.decide = lambda *arguments, **keywords: None  # it is known to be current
print("ready", flush=True)
try:
    client.open(sys.argv[3] or None)
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
"""


@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient"])
@pytest.mark.parametrize("dest", ["", LISTENER])
def test_ctrl_c(kind: str, dest: str, plain_server: holepunch.server.Server) -> None:
    server = "%s:%d" % plain_server.addr
    with holepunch.Endpoint(server, bind=LISTENER, thread=False, legacy=True) as silent, silent.listen():
        introduced = stats(plain_server)["introductions"]
        command = [sys.executable, "-c", INTERRUPTED, kind, server, dest]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            while stats(plain_server)["introductions"] == introduced and stats(plain_server)["registrations"] == 1:
                assert process.poll() is None
            begin = time.time()
            process.send_signal(signal.SIGINT)
            said = process.stdout.readline().split()
            assert said[0] == "interrupted" and float(said[1]) - begin < 1
            assert process.wait(10) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_forks(kind: Kind, plain_server: holepunch.server.Server) -> None:
    """A child opens by itself, and what the parent has opened is the child's too."""
    listener, connector = opened(kind, plain_server)

    def child(work: Callable[[], object]) -> int:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return pid

    def say_and_close() -> None:
        connector.send(b"from the child")
        connector.close()

    with listener, connector:
        pid = child(say_and_close)
        assert os.waitpid(pid, 0)[1] == 0
        assert listener.recv() == b"from the child"
        connector.send(b"from the parent")
        assert listener.recv() == b"from the parent"

    def work() -> None:
        with kind(bind="127.0.0.33") as client:
            client.open(timeout=20)
            client.send(b"hello")
            client.recv()

    pid = child(work)
    wait_for(plain_server, "registrations")
    with kind(bind="127.0.0.34") as client:
        client.open("127.0.0.33", timeout=20)
        assert client.recv() == b"hello"
        client.send(b"hello")
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("base", KINDS)
def test_a_hook_keeps_all_as_in_2015(base: Any, plain_server: holepunch.server.Server, met: List[str]) -> None:
    class Hooked(base):  # type: ignore[misc]
        def _holepunch(self, source_addr: Any, dest_addr: Any) -> Any:
            return super()._holepunch(source_addr, dest_addr)

    listener = Hooked(bind=LISTENER)
    with old.in_thread(lambda: listener.open(timeout=20)):
        wait_for(plain_server, "legacy_listeners")
        assert stats(plain_server)["registrations"] == 0
        connector = base(bind=CONNECTOR)
        connector.open(LISTENER, timeout=20)
    listener.close()
    connector.close()
    assert met == ["2015", "2015"]


def test_two_listeners_on_one_machine_without_addresses_of_their_own(plain_server: holepunch.server.Server) -> None:
    """In 2015 they had one port between them; now each has its own, and they meet."""
    listener, connector = UDPClient(), UDPClient()
    with old.in_thread(lambda: listener.open(timeout=20)):
        wait_for(plain_server, "registrations")
        connector.open("127.0.0.1", timeout=20)
    with listener, connector:
        connector.send(b"hello")
        assert listener.recv() == b"hello" and listener.addr == connector.sock.getsockname()


def test_threads_at_once(plain_server: holepunch.server.Server) -> None:
    """Several listeners and connectors of one process, each pair at an address of its own."""

    def pair(number: int) -> Callable[[], object]:
        here, there = f"127.0.1.{number}", f"127.0.2.{number}"

        def work() -> None:
            listener, connector = TCPClient(bind=here), TCPClient(bind=there)
            thread = threading.Thread(target=lambda: listener.open(timeout=20))
            thread.start()
            end = time.monotonic() + 20
            while connector.sock is None:
                try:
                    connector.open(here, timeout=20)
                except ListenerNotFoundError:
                    assert time.monotonic() < end
            thread.join()
            with listener, connector:
                connector.send(here.encode())
                assert listener.recv() == here.encode()

        return work

    with old.in_thread(*(pair(number) for number in range(1, 9))):
        pass
