"""Old and new listeners, connectors and servers, in every mix, with datagrams and streams, on an open network.

Loopback is the hardest network for streams as they were made in 2015: a refusal comes in microseconds, so SYNs hardly ever
cross. Two old peers have only luck there, so their stream is no case here. docs/mixed.md has the table.
"""

import socket
import time
from typing import Callable, Tuple

import pytest

import holepunch
import holepunch.client
import holepunch.server

from legacy import old, ways
from legacy.conftest import AnyServer, Command, listeners

CONNECTOR, LISTENER = "127.0.0.2", "127.0.0.31"
KINDS = {"udp": holepunch.client.UDPClient, "tcp": holepunch.client.TCPClient, "base": holepunch.client.Client}

Peer = Tuple[socket.socket, old.Address]


def opened(age: str, kind: str, server: AnyServer, host: str, dest: "str | None") -> Peer:
    if age == "old":
        return old.open_peer(kind, server.addr, host, dest, 20)
    peer = KINDS[kind](bind=host)
    peer.open(dest, timeout=20)
    peer.sock.settimeout(20)
    return peer.sock, peer.addr


def connected(age: str, kind: str, server: AnyServer) -> Peer:
    """A connector, as soon as the server knows the listener."""
    if isinstance(server, old.OldServer):
        server.wait_for(b"<")
    end = time.monotonic() + 10
    while True:
        try:
            return opened(age, kind, server, CONNECTOR, LISTENER)
        except (old.NotFound, holepunch.client.ListenerNotFoundError):
            assert time.monotonic() < end


def exchange(kind: str, here: Peer, there: Peer) -> None:
    """Data both ways, and both ends as both sockets see them."""
    (a, a_peer), (b, b_peer) = here, there
    for sender, dest, receiver in ((a, a_peer, b), (b, b_peer, a)):
        if kind == "udp":
            sender.sendto(b"datagram", dest)
            data = b"*"
            while data == b"*":
                data, source = receiver.recvfrom(100)
            assert (data, source) == (b"datagram", sender.getsockname())
        else:
            sender.sendall(b"stream")
            assert receiver.recv(100) == b"stream"  # nothing came before it
            assert sender.getpeername() == receiver.getsockname()


MIXES = [
    (listener, connector, kind)
    for listener in ("old", "new")
    for connector in ("old", "new")
    for kind in ("udp", "tcp", "base")
    if kind == "udp" or not listener == connector == "old"
]


def speaks_current(server: AnyServer) -> bool:
    """A server of this package whose hooks nobody has overridden."""
    return isinstance(server, Command) or type(server) is holepunch.server.Server


@pytest.mark.parametrize("listener, connector, kind", MIXES)
def test_mix(
    any_server: AnyServer,
    punch_port: int,
    listener: str,
    connector: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met = ways.watch(speaks_current(any_server), monkeypatch.setattr)
    waiting: Callable[[], Peer] = lambda: opened(listener, kind, any_server, LISTENER, None)
    with old.in_thread(waiting) as results:
        here = connected(connector, kind, any_server)
    there = results[0]
    assert isinstance(there, tuple)
    with here[0], there[0]:
        assert (here[1], there[1]) == ((LISTENER, punch_port), (CONNECTOR, punch_port))
        assert here[0].getsockname() == (CONNECTOR, punch_port)
        assert there[0].getsockname() == (LISTENER, punch_port)
        exchange(kind, here, there)
    both_new = listener == connector == "new"
    way = "current" if both_new and speaks_current(any_server) else "2015"
    assert met == [way] * [listener, connector].count("new")


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_modern_connector_never_gets_a_listener_of_2015(plain_server: holepunch.server.Server, kind: str) -> None:
    """It could not meet it; and the listener waits on for somebody who can."""
    with old.in_thread(lambda: old.ask(plain_server.addr, LISTENER, b"<")) as answers:
        while not listeners(plain_server, LISTENER):
            assert plain_server._loop is not None
        connect = holepunch.connect if kind == "tcp" else holepunch.connect_datagram
        with pytest.raises(holepunch.NotFoundError):
            connect(LISTENER, servers="%s:%d" % plain_server.addr, bind="127.0.0.1", wait=0)
        assert listeners(plain_server, LISTENER) == 1
        assert old.ask(plain_server.addr, CONNECTOR, b">" + LISTENER.encode())[:1] == b"*"
    answer = answers[0]
    assert isinstance(answer, bytes) and answer.startswith(b"*('%s'" % CONNECTOR.encode())


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_several_in_turn(any_server: AnyServer, kind: str) -> None:
    """The same two meet again on the same port, at once."""
    for _ in range(3):
        with old.in_thread(lambda: opened("new", kind, any_server, LISTENER, None)) as results:
            here = connected("new", kind, any_server)
        there = results[0]
        assert isinstance(there, tuple)
        exchange(kind, here, there)
        if kind == "tcp":
            # Whoever ends first keeps the pair of ports for a minute; an end by reset does not.
            for sock in (here[0], there[0]):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        here[0].close()
        there[0].close()
        if isinstance(any_server, old.OldServer):
            any_server.heard.clear()


def test_an_old_server_survives_new_clients(old_server: old.OldServer) -> None:
    """One message each, nothing but it, and an end of stream; also when the answer is a no, or the client gives up."""
    with pytest.raises(holepunch.client.ListenerNotFoundError):
        holepunch.client.Client(bind=CONNECTOR).open("127.0.0.99")
    with pytest.raises(holepunch.TimeoutError):
        holepunch.client.Client(bind=CONNECTOR).open(timeout=0.05)
    old_server.wait_for(b"")
    assert [heard for heard in old_server.heard if heard] == [b">127.0.0.99", b"<"]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_new_peer_sends_an_old_one_what_it_knows(punch_port: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams: at most 20 of `*`, nothing else. Streams: not a byte."""
    dest = (CONNECTOR, punch_port)
    if kind == "udp":
        with old.bound(socket.SOCK_DGRAM, dest) as sock:
            begin = time.monotonic()
            met, addr = holepunch.client.UDPClient()._holepunch((LISTENER, punch_port), dest)
            took = time.monotonic() - begin
            sock.setblocking(False)
            received = []
            with pytest.raises(BlockingIOError):
                while True:
                    received.append(sock.recv(100))
        met.close()
        assert addr == dest and 2.9 < took < 5  # it stayed silent
        assert set(received) == {b"*"} and 5 < len(received) <= 20
        return
    with old.in_thread(lambda: old.open_tcp(dest, (LISTENER, punch_port), 20)) as results:
        met, addr = holepunch.client.TCPClient()._holepunch((LISTENER, punch_port), dest)
    met.close()
    peer = results[0]
    assert isinstance(peer, socket.socket)
    with peer:
        assert peer.recv(1) == b""
