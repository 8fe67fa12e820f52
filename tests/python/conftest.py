"""Fixtures: a rendezvous server in a process of its own, endpoints that use it, and two connected peers.

Everything stays on the loopback interface, and runs against the installed package.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from typing import Iterator, List, NamedTuple

import pytest

import holepunch

# A shell in the background has what it starts ignore Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Pair(NamedTuple):
    """Two ends of one connection."""

    connector: holepunch.Connection
    listener: holepunch.Connection


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server; it must end cleanly when it is interrupted."""
    command = [sys.executable, "-m", "holepunch", "--json", "server", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        event = json.loads(process.stderr.readline())
        assert event["event"] == "listening", event
        lines: List[str] = []
        reader = threading.Thread(target=lines.extend, args=(process.stderr,))
        reader.start()
        try:
            yield event["udp"][0]
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(10)
            reader.join()
        assert status == 0, lines
        assert not [line for line in lines if '"error"' in line]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        yield f"{host}:{port}"


@pytest.fixture
def name() -> str:
    """A listener's name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def endpoint(server: str) -> Iterator[holepunch.Endpoint]:
    with holepunch.Endpoint(server, bind="127.0.0.1") as endpoint:
        yield endpoint


@pytest.fixture
def other_endpoint(server: str) -> Iterator[holepunch.Endpoint]:
    with holepunch.Endpoint(server, bind="127.0.0.1") as endpoint:
        yield endpoint


@pytest.fixture
def pair(endpoint: holepunch.Endpoint, other_endpoint: holepunch.Endpoint, name: str) -> Iterator[Pair]:
    with endpoint.listen(name) as listener:
        with other_endpoint.connect_datagram(name) as connector, listener.accept_datagram(timeout=5) as accepted:
            yield Pair(connector, accepted)


def descriptors() -> List[str]:
    """What this process's open descriptors are."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
        except FileNotFoundError:
            pass  # the descriptor of the listing itself
    return sorted(found)
