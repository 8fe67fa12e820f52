"""Old and new peers behind two firewalls, or two NATs of Linux that keep ports where they can; both drop what nobody
asked for. docs/mixed.md has the table.

    listener 10.0.1.2 - NAT 198.51.100.2 - server 198.51.100.1 | 203.0.113.1 - NAT 203.0.113.2 - connector 10.0.2.2
"""

import json
import os
import pathlib
import re
import subprocess
from typing import Dict, Iterator, List, Optional

import pytest

from legacy.namespaces import Program, skip, until

OLD_PEER = """
import json, sys, time
kind, server, dest, current_server, tests = json.loads(sys.argv[1])
sys.path.insert(0, tests)
from legacy import old
end, sock = time.monotonic() + 10, None
while sock is None:
    try:
        sock, addr = old.open_peer({"UDPClient": "udp"}.get(kind, "tcp"), (server, 20000), "0.0.0.0", dest, 20)
    except old.NotFound:
        assert time.monotonic() < end  # the listener is on its way to the server
sock.settimeout(20)
if kind == "UDPClient":
    data = b"*"
    # What comes before the other has opened its NAT is lost, and a program of 2015 repeats it.
    sock.settimeout(0.2)
    end = time.monotonic() + 20
    while data == b"*" and time.monotonic() < end:
        sock.sendto(b"hello", addr)
        try:
            data = sock.recv(100)
        except TimeoutError:
            pass
    sock.sendto(b"hello", addr)
else:
    sock.sendall(b"hello")
    data = sock.recv(100)
print(json.dumps([addr, data.decode(), []]), flush=True)
sys.stdin.read()
"""

NEW_PEER = """
import json, sys, time
import holepunch.client
kind, server, dest, current_server, tests = json.loads(sys.argv[1])
sys.path.insert(0, tests)
from legacy import ways
met = ways.watch(current_server)
peer = getattr(holepunch.client, kind)(server=server)
end = time.monotonic() + 10
while peer.sock is None:
    try:
        peer.open(dest, timeout=20)
    except holepunch.client.ListenerNotFoundError:
        assert time.monotonic() < end  # the listener is on its way to the server
peer.sock.settimeout(0.2 if kind == "UDPClient" else 20)
data, end = b"*", time.monotonic() + 20
while data == b"*" and time.monotonic() < end:
    peer.send(b"hello")
    try:
        data = peer.recv()
    except TimeoutError:
        pass
if kind == "UDPClient":
    peer.send(b"hello")
print(json.dumps([peer.addr, data[:5].decode(), met]), flush=True)
sys.stdin.read()
"""

OLD_SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from legacy import old
server = old.OldServer(20001, ("0.0.0.0", 20000))
sys.stdin.read()
"""

NEW_SERVER = "import holepunch.server; holepunch.server.Server().run()"

TESTS = str(pathlib.Path(__file__).parents[1])

FORWARD = ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

SIDES = {"listener": ("1", "198.51.100"), "connector": ("2", "203.0.113")}


def ip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module", params=["firewalls", "NATs"])
def network(request: pytest.FixtureRequest) -> Iterator[Dict[str, str]]:
    """The names of the namespaces `server`, `listener` and `connector`; and where the server sees the peers, as
    `listener at` and `connector at`."""
    translates = request.param == "NATs"
    mark = f"holepunch-{os.getpid()}-{os.urandom(3).hex()}"
    names = {part: f"{mark}-{part}" for part in ("server", "listener", "connector", "listener-nat", "connector-nat")}
    made: List[str] = []

    def inside(part: str, *command: str) -> None:
        done = ip("netns", "exec", names[part], *command)
        if done.returncode:
            skip(request, "old and new behind NATs", f"no {request.param}: {' '.join(command)}: {done.stderr.strip()}")

    try:
        for name in names.values():
            done = ip("netns", "add", name)
            if done.returncode:
                skip(request, "old and new behind NATs", f"no network namespaces: {done.stderr.strip()}")
            made.append(name)
        for part in list(names):
            inside(part, "ip", "link", "set", "lo", "up")
        inside("server", *FORWARD)
        for side, (number, net) in SIDES.items():
            nat = f"{side}-nat"
            inside(nat, *FORWARD)
            inside(nat, "ip", "link", "add", "wan", "type", "veth", "peer", "name", f"to{number}", "netns", names["server"])
            inside(nat, "ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", names[side])
            for part, device, address in (
                ("server", f"to{number}", f"{net}.1/24"),
                (nat, "wan", f"{net}.2/24"),
                (nat, "lan", f"10.0.{number}.1/24"),
                (side, "eth0", f"10.0.{number}.2/24"),
            ):
                inside(part, "ip", "address", "add", address, "dev", device)
                inside(part, "ip", "link", "set", device, "up")
            inside(nat, "ip", "route", "add", "default", "via", f"{net}.1")
            inside(side, "ip", "route", "add", "default", "via", f"10.0.{number}.1")
            names[f"{side} at"] = f"{net}.2" if translates else f"10.0.{number}.2"
            if translates:
                inside(nat, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE")
            else:
                inside("server", "ip", "route", "add", f"10.0.{number}.0/24", "via", f"{net}.2")
            for chain in ("INPUT", "FORWARD"):
                known = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
                inside(nat, "iptables", "-A", chain, "-i", "wan", *known, "-j", "ACCEPT")
                inside(nat, "iptables", "-A", chain, "-i", "wan", "-j", "DROP")
        yield names
    finally:
        for name in made:
            ip("netns", "delete", name)


def peer(network: Dict[str, str], age: str, kind: str, side: str, dest: Optional[str], current: bool) -> Program:
    arguments = json.dumps([kind, f"{SIDES[side][1]}.1", dest, current, TESTS])
    return Program(network[side], "-c", OLD_PEER if age == "old" else NEW_PEER, arguments)


@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient"])
@pytest.mark.parametrize("connector", ["old", "new"])
@pytest.mark.parametrize("listener", ["old", "new"])
@pytest.mark.parametrize("server", ["old", "new"])
def test_apart(network: Dict[str, str], server: str, listener: str, connector: str, kind: str) -> None:
    current = server == "new"
    hosts = {side: network[f"{side} at"] for side in SIDES}
    way = "current" if current and listener == connector == "new" else "2015"
    with Program(network["server"], "-c", NEW_SERVER if current else OLD_SERVER, TESTS):
        until(network["server"], ["-tl"], r"0\.0\.0\.0:20000\b")
        with peer(network, listener, kind, "listener", None, current) as one:
            if not current:
                # One that is not there yet would not be found, and this server takes each for a listener.
                until(network["server"], ["-t"], rf"ESTAB +0 +0 +198\.51\.100\.1:20000 +{re.escape(hosts['listener'])}:")
            with peer(network, connector, kind, "connector", hosts["listener"], current) as other:
                met = {"listener": json.loads(one.line()), "connector": json.loads(other.line())}
    for side, age, remote in (("listener", listener, "connector"), ("connector", connector, "listener")):
        assert met[side] == [[hosts[remote], 20001], "hello", [way] if age == "new" else []]


@pytest.mark.parametrize("kind", ["UDPClient", "TCPClient"])
def test_both_behind_the_same(network: Dict[str, str], kind: str) -> None:
    """What could not be in 2015: the server sees both at one address, which is not where they find each other."""
    with Program(network["server"], "-c", NEW_SERVER):
        until(network["server"], ["-tl"], r"0\.0\.0\.0:20000\b")
        with peer(network, "new", kind, "listener", None, True) as one:
            with peer(network, "new", kind, "listener", network["listener at"], True) as other:
                for line in (one.line(), other.line()):
                    (host, _port), data, met = json.loads(line)
                    assert (host, data, met) == ("10.0.1.2", "hello", ["current"])
