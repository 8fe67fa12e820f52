"""The old side of the mixed tests: what the code of 2015 did on the wire, as plain sockets.

One write is one message and one read takes one. Peers leave the server with an end of stream and meet on the port that
they were told: datagrams with a single `*`, streams by connecting in a loop. The server ends for good on a reset, on
bytes that are no text, and on requests that it cannot read.
"""

import ast
import contextlib
import errno
import select
import socket
import threading
import time
from typing import Dict, Iterator, List, Optional, Tuple

Address = Tuple[str, int]


class NotFound(Exception):
    """The server knows no such listener."""


class OldServer:
    """A server of 2015. `died` tells what it died of; `heard` is every message that it read."""

    def __init__(self, punch_port: int, addr: Address = ("127.0.0.1", 0)) -> None:
        self.sock = socket.create_server(addr)
        self.addr: Address = self.sock.getsockname()
        self.punch_port = punch_port
        self.heard: List[bytes] = []
        self.heard_something = threading.Condition()
        self.died: Optional[Exception] = None
        self._clients: Dict[socket.socket, str] = {}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for(self, message: bytes, seconds: float = 10) -> None:
        with self.heard_something:
            assert self.heard_something.wait_for(lambda: message in self.heard or self.died, seconds), self.heard

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for sock in [self.sock, self._stopped, *self._clients]:
            sock.close()

    def _run(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self.sock, self._stopped, *self._clients], [], [])
                if self._stopped in ready:
                    return
                for sock in ready:
                    self._serve(sock)
        except Exception as error:
            self.died = error
        with self.heard_something:
            self.heard_something.notify_all()

    def _serve(self, sock: socket.socket) -> None:
        if sock is self.sock:
            client, addr = sock.accept()
            self._clients[client] = addr[0]
            return
        data = sock.recv(1024)  # a reset raises, and that is the end
        text = data.decode()
        with self.heard_something:
            self.heard.append(data)
            self.heard_something.notify_all()
        if not text:
            del self._clients[sock]
            sock.close()
        elif text[0] == ">":
            found = next((client for client, host in self._clients.items() if host == text[1:]), None)
            if found is None:
                sock.sendall(b"?")
                return
            sock.sendall(f"*{(self._clients[found], self.punch_port)!r}".encode())
            found.sendall(f"*{(self._clients[sock], self.punch_port)!r}".encode())
        elif text[0] != "<":
            raise ValueError(text)


def ask(server: Address, host: str, request: bytes) -> bytes:
    """What a client at `host` is answered, read at once, as it did; then it leaves."""
    with socket.create_connection(server, 10, (host, 0)) as sock:
        sock.sendall(request)
        answer = sock.recv(1024)
        sock.shutdown(socket.SHUT_WR)
        return answer


def open_peer(kind: str, server: Address, host: str, dest: Optional[str], deadline: float) -> Tuple[socket.socket, Address]:
    """A peer of 2015 at `host`: asks the server and meets the peer that it names."""
    answer = ask(server, host, b"<" if dest is None else b">" + dest.encode())
    if answer == b"?":
        raise NotFound(dest)
    assert answer[:1] == b"*", answer
    addr: Address = ast.literal_eval(answer[1:].decode())
    return (open_udp if kind == "udp" else open_tcp)((host, addr[1]), addr, deadline), addr


def open_udp(source: Address, dest: Address, deadline: float) -> socket.socket:
    sock = bound(socket.SOCK_DGRAM, source)
    sock.settimeout(deadline)
    sock.sendto(b"*", dest)
    return sock


def open_tcp(source: Address, dest: Address, deadline: float) -> socket.socket:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        sock = bound(socket.SOCK_STREAM, source)
        sock.settimeout(end - time.monotonic())
        try:
            sock.connect(dest)
            return sock
        except OSError:
            sock.close()
    raise OSError(errno.ETIMEDOUT, f"old peer at {source}: no stream to {dest}")


def bound(kind: socket.SocketKind, source: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(source)
    return sock


def free_port() -> int:
    """A port that nobody has, for datagrams or streams, on any address."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as streams:
            datagrams.bind(("0.0.0.0", 0))
            port: int = datagrams.getsockname()[1]
            with contextlib.suppress(OSError):
                streams.bind(("0.0.0.0", port))
                return port


@contextlib.contextmanager
def in_thread(*calls: object) -> Iterator[List[object]]:
    """Runs calls in threads; their results are there at the end, where the first exception of one is raised."""
    results: List[object] = [None] * len(calls)
    failures: List[BaseException] = []

    def work(number: int, call: object) -> None:
        try:
            assert callable(call)
            results[number] = call()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=entry) for entry in enumerate(calls)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
