"""What a server speaks, and what the core gives to the modules of 2015."""

import errno
import socket
from typing import Any, Tuple

import pytest

import holepunch
import holepunch.client
from holepunch import _native

from legacy import old
from legacy.conftest import Command


def test_a_server_of_2015(old_server: old.OldServer) -> None:
    sock = _native.decide(old_server.addr, "127.0.0.2", timeout=10)
    assert type(sock) is socket.socket and sock.gettimeout() is None
    with sock:
        assert (sock.getsockname()[0], sock.getpeername()) == ("127.0.0.2", old_server.addr)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert old_server.heard == [b""]


def test_a_current_server(command_server: Command) -> None:
    def decided() -> bool:
        sock = _native.decide(command_server.addr, "", timeout=10)
        if sock is not None:
            sock.close()
        return sock is None

    # On loopback it has 20 ms to answer, which a busy machine may not give it.
    assert any(decided() for _ in range(10))


def test_errors() -> None:
    nobody = ("127.0.0.1", old.free_port())
    with pytest.raises(holepunch.errors.ServerUnreachableError) as unreachable:
        _native.decide(nobody, "")
    assert unreachable.value.os_errno == errno.ECONNREFUSED
    for host, bind in (("localhost", ""), ("127.0.0.1", "localhost")):
        with pytest.raises(holepunch.errors.InvalidArgumentError):
            _native.decide((host, 1), bind)
    for meet in (_native.meet_stream, _native.meet_datagram):
        with pytest.raises(holepunch.errors.InvalidArgumentError):
            meet(("", 1), ("localhost", 2))
        with pytest.raises(ValueError):
            meet(("", 1), ("127.0.0.9", 2), timeout=-1)
        cancel = holepunch.Cancel()
        cancel.cancel()
        with pytest.raises(holepunch.errors.CancelledError):
            meet(("127.0.0.2", old.free_port()), ("127.0.0.9", 9), cancel=cancel)


class Asked:
    """A server of 2015, with a socket for datagrams on its port that never answers."""

    def __init__(self) -> None:
        while True:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self.datagrams.bind(self.listener.getsockname())
                break
            except OSError:
                self.close()
        self.listener.settimeout(10)
        self.datagrams.setblocking(False)

    def answer(self) -> Tuple[bytes, bytes]:
        """What the only client said, and whether it left in order."""
        client, _ = self.listener.accept()
        with client:
            client.settimeout(10)
            said = client.recv(100)
            client.sendall(b"?")
            left = client.recv(100)
        self.listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        return said, left

    def was_asked(self) -> bool:
        try:
            return self.datagrams.recv(100)[:2] == b"\0\1"
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.listener.close()
        self.datagrams.close()


class Hooked(holepunch.client.TCPClient):
    def _holepunch(self, source_addr: Any, dest_addr: Any) -> Any:
        raise AssertionError("nobody was introduced")


@pytest.mark.parametrize("kind", [holepunch.client.Client, holepunch.client.UDPClient, Hooked])
def test_only_a_client_without_hooks_asks(kind: Any) -> None:
    server = Asked()
    try:
        with old.in_thread(server.answer) as answers:
            with pytest.raises(holepunch.client.ListenerNotFoundError):
                kind(server="%s:%d" % server.listener.getsockname()).open("127.0.0.9", timeout=10)
        assert answers == [(b">127.0.0.9", b"")]
        assert server.was_asked() == (kind is not Hooked)
    finally:
        server.close()
