"""Old and new listeners, connectors and servers, in every mix, with datagrams and streams.

Loopback is the hardest network for streams: a refusal comes in microseconds, so SYNs hardly ever cross. Two old peers
have only luck there, so their stream is no case here.
"""

import socket
import subprocess
import time
from typing import Callable, Tuple

import pytest

import holepunch.client
import holepunch.server

from legacy import old
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


def listening(server: AnyServer) -> None:
    """Returns when the server knows the listener."""
    if isinstance(server, old.OldServer):
        server.wait_for(b"<")
        return
    end = time.monotonic() + 10
    while not (listeners(server, LISTENER) if isinstance(server, holepunch.server.Server) else asked(server)):
        assert time.monotonic() < end


def asked(server: Command) -> bool:
    """Whether what the listener has sent was read: the system keeps what was not, on the server's side."""
    lines = subprocess.run(["ss", "-Htn"], capture_output=True, text=True, check=True).stdout.splitlines()
    here, there = "%s:%s" % server.addr, LISTENER
    return any(line.split()[1] == "0" and here == line.split()[3] and f" {there}:" in line for line in lines)


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


@pytest.mark.parametrize("kind", ["udp", "tcp", "base"])
@pytest.mark.parametrize("connector", ["old", "new"])
@pytest.mark.parametrize("listener", ["old", "new"])
def test_mix(any_server: AnyServer, punch_port: int, listener: str, connector: str, kind: str) -> None:
    if listener == connector == "old" and kind != "udp":
        kind = "udp"  # the server's part is the same
    waiting: Callable[[], Peer] = lambda: opened(listener, kind, any_server, LISTENER, None)
    with old.in_thread(waiting) as results:
        listening(any_server)
        here = opened(connector, kind, any_server, CONNECTOR, LISTENER)
    there = results[0]
    assert isinstance(there, tuple)
    with here[0], there[0]:
        assert (here[1], there[1]) == ((LISTENER, punch_port), (CONNECTOR, punch_port))
        assert here[0].getsockname() == (CONNECTOR, punch_port)
        assert there[0].getsockname() == (LISTENER, punch_port)
        exchange(kind, here, there)


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_several_in_turn(any_server: AnyServer, kind: str) -> None:
    """The same two meet again on the same port, at once."""
    for _ in range(3):
        with old.in_thread(lambda: opened("new", kind, any_server, LISTENER, None)) as results:
            listening(any_server)
            here = opened("new", kind, any_server, CONNECTOR, LISTENER)
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
