"""The single-machine test of 2015, as docs/single-machine.md has it, in a network namespace of its own.

A firewall on the loopback interface drops what nobody asked for, as a NAT does; the server is 127.0.0.1, the clients
are 127.0.0.2 and 127.0.0.3. Where one of the two does not punch, the other must not get through, else the firewall
proves nothing.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Iterator, List

import pytest

from legacy.namespaces import Program, skip, until

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "single-machine.md"

SERVER = "import holepunch.server; holepunch.server.Server('127.0.0.1').run()"

PEER = """
import json, sys
import holepunch, holepunch.client
kind, bind, dest, timeout, punching = json.loads(sys.argv[1])
class Silent(getattr(holepunch.client, kind)):
    def _holepunch(self, source_addr, dest_addr):
        raise SystemExit("introduced")  # and leaves it at that
peer = (getattr(holepunch.client, kind) if punching else Silent)(bind=bind)
try:
    peer.open(dest, timeout=timeout)
except holepunch.TimeoutError:
    raise SystemExit("timeout")
peer.sock.settimeout(timeout)
peer.send(f"from {bind}".encode())
data = b"*"
while data == b"*":
    try:
        data = peer.recv()
    except TimeoutError:
        raise SystemExit("silence")
remote = peer.addr if kind == "UDPClient" else peer.sock.getpeername()
print(json.dumps([peer.sock.getsockname(), remote, data.decode()]))
sys.stdin.read()  # the other end reads first
"""


def rules() -> List[List[str]]:
    """The firewall as the page has it."""
    found = [line.split()[1:] for line in PAGE.read_text().splitlines() if re.match(r"sudo iptables -A", line)]
    assert len(found) == 4, found
    return found


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            skip(request, "the single-machine test", f"{tool} is not installed")
    name = f"holepunch-{os.getpid()}-{os.urandom(3).hex()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        skip(request, "the single-machine test", f"no network namespaces: {made.stderr.strip()}")
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        for rule in rules():
            done = subprocess.run([*inside, *rule], capture_output=True, text=True)
            if done.returncode:
                skip(request, "the single-machine test", f"no iptables: {done.stderr.strip()}")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def peer(namespace: str, kind: str, bind: str, dest: "str | None", timeout: float, punching: bool = True) -> Program:
    return Program(namespace, "-c", PEER, json.dumps([kind, bind, dest, timeout, punching]))


@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient", "Client"])
def test_single_machine(namespace: str, kind: str) -> None:
    with Program(namespace, "-c", SERVER):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with peer(namespace, kind, "127.0.0.2", None, 20) as listener:
            until(namespace, ["-t"], r"127\.0\.0\.2:\d+ +127\.0\.0\.1:20000\b")
            with peer(namespace, kind, "127.0.0.3", "127.0.0.2", 20) as connector:
                assert json.loads(connector.line()) == [["127.0.0.3", 20001], ["127.0.0.2", 20001], "from 127.0.0.2"]
                assert json.loads(listener.line()) == [["127.0.0.2", 20001], ["127.0.0.3", 20001], "from 127.0.0.3"]


@pytest.mark.parametrize("silent", ["listener", "connector"])
@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient", "Client"])
def test_one_does_not_punch(namespace: str, kind: str, silent: str) -> None:
    with Program(namespace, "-c", SERVER):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with peer(namespace, kind, "127.0.0.2", None, 4, silent != "listener") as listener:
            until(namespace, ["-t"], r"127\.0\.0\.2:\d+ +127\.0\.0\.1:20000\b")
            with peer(namespace, kind, "127.0.0.3", "127.0.0.2", 4, silent != "connector") as connector:
                lines = {"listener": listener.line(), "connector": connector.line()}
    assert lines.pop(silent) == "introduced\n"
    assert lines.popitem()[1] == ("silence\n" if kind == "UDPClient" else "timeout\n")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_with_the_command(namespace: str, protocol: str) -> None:
    """As the page says it: two clients and a server, each a command."""
    page = PAGE.read_text()
    commands = {line for line in page.splitlines() if line.startswith("python -m holepunch ")}
    server = "python -m holepunch server --host 127.0.0.1"
    listen = f"HOLEPUNCH_BIND=127.0.0.2 python -m holepunch client {protocol}"
    connect = f"HOLEPUNCH_BIND=127.0.0.3 python -m holepunch client {protocol} 127.0.0.2"
    assert server in commands and listen in page.splitlines() and connect in page.splitlines()
    with Program(namespace, *server.split()[1:]):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with Program(namespace, *listen.split()[2:], "--bind", "127.0.0.2", "--timeout", "20") as first:
            until(namespace, ["-t"], r"127\.0\.0\.2:\d+ +127\.0\.0\.1:20000\b")
            with Program(namespace, *connect.split()[2:], "--bind", "127.0.0.3", "--timeout", "20") as second:
                for program in (second, first):
                    status = program.process.wait(30)
                    assert program.process.stderr is not None
                    said = program.process.stderr.read()
                    assert status == 0, f"{'first' if program is first else 'second'}: {said}"
                    for text in ("INFO: Open server socket 0.0.0.0:20000", "INFO: Close server socket", "20001\n"):
                        assert text in said, said
