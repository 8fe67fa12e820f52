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
from typing import Iterator, List, Tuple

import pytest

from legacy.namespaces import Program, skip, until

TESTS = pathlib.Path(__file__).parents[1]
PAGE = pathlib.Path(__file__).parents[3] / "docs" / "single-machine.md"

SERVER = "import holepunch.server; holepunch.server.Server('127.0.0.1').run()"

PEER = """
import json, select, socket, sys, time
import holepunch, holepunch.client
kind, bind, dest, timeout, way, tests = json.loads(sys.argv[1])
sys.path.insert(0, tests)
from legacy import ways
met = ways.watch(True)
plain = getattr(holepunch.client, kind)
class Hooked(plain):  # for which the server is asked nothing but the text
    def _holepunch(self, source_addr, dest_addr):
        return super()._holepunch(source_addr, dest_addr)
class Silent(plain):
    def _holepunch(self, source_addr, dest_addr):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "UDPClient" else socket.SOCK_STREAM)
        sock.bind(source_addr)
        if kind != "UDPClient":
            sock.listen()
        came = select.select([sock], [], [], timeout)[0]
        raise SystemExit("something came" if came else "nothing came")
peer = {"current": plain, "2015": Hooked, "silent": Silent}[way](bind=bind)
end = time.monotonic() + timeout
while peer.sock is None:
    try:
        peer.open(dest, timeout=timeout)
    except holepunch.TimeoutError:
        raise SystemExit("timeout")
    except holepunch.client.ListenerNotFoundError:
        assert time.monotonic() < end  # the listener is on its way to the server
peer.sock.settimeout(timeout)
peer.send(f"from {bind}".encode())
data = b"*"
while data == b"*":
    try:
        data = peer.recv()
    except TimeoutError:
        raise SystemExit("silence")
remote = peer.addr if kind == "UDPClient" else peer.sock.getpeername()
print(json.dumps([peer.sock.getsockname(), remote, data.decode(), met]))
sys.stdin.read()  # the other end reads first
"""

SILENT = """
import sys
import holepunch
endpoint = holepunch.Endpoint("127.0.0.1", bind="127.0.0.2", thread=False, legacy=True, prefer_port=20001)
listener = endpoint.listen()
print("listening", flush=True)
sys.stdin.read()  # and does nothing more
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


def peer(namespace: str, kind: str, bind: str, dest: "str | None", timeout: float, way: str) -> Program:
    return Program(namespace, "-c", PEER, json.dumps([kind, bind, dest, timeout, way, str(TESTS)]))


def registered(namespace: str, way: str) -> None:
    """Waits until client 1 listens: it has a connection to the server, or in the current protocol the port to meet on."""
    if way == "current":
        until(namespace, ["-ua"], r"127\.0\.0\.2:20001\b")
    else:
        until(namespace, ["-t"], r"127\.0\.0\.2:\d+ +127\.0\.0\.1:20000\b")


@pytest.mark.parametrize("way", ["current", "2015"])
@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient", "Client"])
def test_single_machine(namespace: str, kind: str, way: str) -> None:
    with Program(namespace, "-c", SERVER):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with peer(namespace, kind, "127.0.0.2", None, 20, way) as listener:
            registered(namespace, way)
            with peer(namespace, kind, "127.0.0.3", "127.0.0.2", 20, way) as connector:
                ends = [["127.0.0.3", 20001], ["127.0.0.2", 20001]]
                assert json.loads(connector.line()) == [*ends, "from 127.0.0.2", [way]]
                assert json.loads(listener.line()) == [*ends[::-1], "from 127.0.0.3", [way]]


@pytest.mark.parametrize("silent", ["listener", "connector"])
@pytest.mark.parametrize("way", ["current", "2015"])
@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient", "Client"])
def test_one_does_not_punch(namespace: str, kind: str, silent: str, way: str) -> None:
    """What the other one sends does not reach the silent one either, which waits for it on the port."""
    ways = {side: "silent" if side == silent else way for side in ("listener", "connector")}
    with Program(namespace, "-c", SERVER):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with peer(namespace, kind, "127.0.0.2", None, 4, ways["listener"]) as listener:
            registered(namespace, ways["listener"])
            with peer(namespace, kind, "127.0.0.3", "127.0.0.2", 4, ways["connector"]) as connector:
                lines = {"listener": listener.line(), "connector": connector.line()}
    assert lines.pop(silent) == "nothing came\n"
    assert lines.popitem()[1] == ("silence\n" if kind == "UDPClient" else "timeout\n")


@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient", "Client"])
def test_a_current_listener_does_not_punch(namespace: str, kind: str) -> None:
    with Program(namespace, "-c", SERVER):
        until(namespace, ["-tl"], r"127\.0\.0\.1:20000\b")
        with Program(namespace, "-c", SILENT) as listener:
            assert listener.line() == "listening\n"
            with peer(namespace, kind, "127.0.0.3", "127.0.0.2", 4, "current") as connector:
                assert connector.line() == "timeout\n"


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
            status, said = 1, "no listener is at"
            while status == 1 and "no listener is at" in said:  # the first is on its way to the server
                assert first.process.poll() is None
                with Program(namespace, *connect.split()[2:], "--bind", "127.0.0.3", "--timeout", "20") as second:
                    status, said = ended(second)
            for status, said in ((status, said), ended(first)):
                assert status == 0, said
                for text in ("INFO: Open server socket 0.0.0.0:20000", "INFO: Close server socket", "20001\n"):
                    assert text in said, said


def ended(program: Program) -> Tuple[int, str]:
    """The status of a program that ends by itself, and what it said."""
    status = program.process.wait(30)
    assert program.process.stderr is not None
    return status, program.process.stderr.read()
