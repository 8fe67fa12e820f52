"""Servers of the 2015 protocol, old and new, each with a punch port of its own, on the loopback interface."""

import json
import signal
import subprocess
import sys
import threading
from typing import Any, Iterator, Tuple, Union

import pytest

import holepunch.config
import holepunch.server

from legacy.old import OldServer, free_port



class Command:
    """`python -m holepunch server`, which speaks the current protocol besides."""

    def __init__(self, punch_port: int) -> None:
        options = ["--host", "127.0.0.1", "--port", "0", "--punch-port", str(punch_port)]
        command = [sys.executable, "-m", "holepunch", "--json", "server", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        event = json.loads(self.process.stderr.readline())
        host, port = event["tcp"][0].split(":")
        self.addr = (host, int(port))

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, said


AnyServer = Union[OldServer, Command, holepunch.server.Server]


@pytest.fixture
def punch_port(monkeypatch: pytest.MonkeyPatch) -> int:
    port = free_port()
    monkeypatch.setattr(holepunch.config, "HOLEPUNCH_PORT", port)
    return port


class Hooked(holepunch.server.Server):
    """A server with a hook, so that its loop is the one of the module."""

    def accept_client(self) -> Any:
        return super().accept_client()


@pytest.fixture
def new_server(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[holepunch.server.Server]:
    """This package's server with its loop in Python; clients made without arguments find it."""
    yield from serve(Hooked("127.0.0.1", 0), monkeypatch)


@pytest.fixture
def plain_server(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[holepunch.server.Server]:
    """This package's server as it is, whose loop is the Rust one."""
    yield from serve(holepunch.server.Server("127.0.0.1", 0), monkeypatch)


@pytest.fixture(params=["new_server", "plain_server"])
def either_server(request: pytest.FixtureRequest) -> holepunch.server.Server:
    server: holepunch.server.Server = request.getfixturevalue(request.param)
    return server


def listeners(server: holepunch.server.Server, host: str) -> int:
    """How many listeners it has at an address; in the Rust loop, at any."""
    loop = server._loop
    return len(server._listeners.get(host, ())) if loop is None else loop.stats()["legacy_listeners"]


@pytest.fixture
def old_server(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[OldServer]:
    """A server of 2015, which must be alive at the end."""
    server = OldServer(punch_port)
    point_to(server.addr, monkeypatch)
    try:
        yield server
        assert server.died is None
    finally:
        server.close()


@pytest.fixture
def command_server(punch_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    server = Command(punch_port)
    point_to(server.addr, monkeypatch)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(params=["old_server", "new_server", "plain_server", "command_server"])
def any_server(request: pytest.FixtureRequest) -> AnyServer:
    server: AnyServer = request.getfixturevalue(request.param)
    return server


def serve(server: holepunch.server.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[holepunch.server.Server]:
    """Runs a server in a thread; an exception of `run` fails the test."""
    failures = []

    def run() -> None:
        try:
            assert server.run() is None  # type: ignore[func-returns-value]
        except BaseException as failure:
            failures.append(failure)

    server.open()
    point_to(server.addr, monkeypatch)
    thread = threading.Thread(target=run)
    thread.start()
    while server._waker is None and server._loop is None:
        assert thread.is_alive()
    try:
        yield server
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive() and not failures, failures


def point_to(addr: Tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holepunch.config, "SERVER_HOST", addr[0])
    monkeypatch.setattr(holepunch.config, "SERVER_PORT", addr[1])
