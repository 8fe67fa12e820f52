"""Two hosts in network namespaces with a server between them: on one LAN, or each behind a NAT of Linux.

    ours 10.0.1.2 - NAT 198.51.100.2 - server 198.51.100.1 | 203.0.113.1 - NAT 203.0.113.2 - theirs 10.0.2.2

On the LAN the same hosts are on the server's networks themselves. The NATs keep ports where they can and drop what nobody
asked for; the hard one of the other side gives every destination a port of its own, at random.
"""

import contextlib
import os
import re
import subprocess
import time
from typing import Callable, Dict, Iterator, List, NoReturn

__all__ = ["SERVER", "Network", "make"]

SERVER = "198.51.100.1"
SIDES = {"ours": ("1", "198.51.100"), "theirs": ("2", "203.0.113")}


class Network:
    """The names of the namespaces `server`, `ours` and `theirs`, and how programs are run in them."""

    def __init__(self, kind: str, names: Dict[str, str]) -> None:
        self.kind = kind
        self.names = names

    def command(self, part: str, *command: str) -> List[str]:
        return ["ip", "netns", "exec", self.names[part], *command]

    def wait_for_udp(self, part: str, port: int) -> None:
        """Waits until somebody has bound the port."""
        end = time.monotonic() + 10
        while not re.search(rf":{port}\b", subprocess.check_output(self.command(part, "ss", "-Hnlu"), text=True)):
            assert time.monotonic() < end, f"nobody binds port {port}"


@contextlib.contextmanager
def make(kind: str, skip: Callable[[str], NoReturn]) -> Iterator[Network]:
    """Makes a network: `lan`, `nats` or `hard`; removes it in the end."""
    mark = f"holepunch-{os.getpid()}-{os.urandom(3).hex()}"
    parts = ["server", "ours", "theirs"] + ([] if kind == "lan" else ["ours-nat", "theirs-nat"])
    names = {part: f"{mark}-{part}" for part in parts}
    made: List[str] = []

    def inside(part: str, *command: str) -> None:
        done = subprocess.run(["ip", "netns", "exec", names[part], *command], capture_output=True, text=True)
        if done.returncode:
            skip(f"no network: {' '.join(command)}: {done.stderr.strip()}")

    def link(one: str, device: str, other: str, peer: str, addresses: List[str]) -> None:
        inside(one, "ip", "link", "add", device, "type", "veth", "peer", "name", peer, "netns", names[other])
        for part, end, address in ((one, device, addresses[0]), (other, peer, addresses[1])):
            inside(part, "ip", "address", "add", address, "dev", end)
            inside(part, "ip", "link", "set", end, "up")

    try:
        for name in names.values():
            done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if done.returncode:
                skip(f"no network namespaces: {done.stderr.strip()}")
            made.append(name)
        for part in names:
            inside(part, "ip", "link", "set", "lo", "up")
        inside("server", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        # As on the internet, what has no host is lost; coturn ends an allocation where there is no route.
        inside("server", "ip", "link", "add", "nowhere", "type", "veth", "peer", "name", "end")
        for command in (
            "address add 192.0.2.1/24 dev nowhere",
            "link set nowhere up",
            "link set end up",
            "neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 nud permanent dev nowhere",
            "route add default via 192.0.2.2",
        ):
            inside("server", "ip", *command.split())
        for side, (number, net) in SIDES.items():
            if kind == "lan":
                link(side, "eth0", "server", f"to{number}", [f"{net}.2/24", f"{net}.1/24"])
                inside(side, "ip", "route", "add", "default", "via", f"{net}.1")
                continue
            nat = f"{side}-nat"
            link(nat, "wan", "server", f"to{number}", [f"{net}.2/24", f"{net}.1/24"])
            link(side, "eth0", nat, "lan", [f"10.0.{number}.2/24", f"10.0.{number}.1/24"])
            inside(nat, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            inside(nat, "ip", "route", "add", "default", "via", f"{net}.1")
            inside(side, "ip", "route", "add", "default", "via", f"10.0.{number}.1")
            random = ["--random-fully"] if kind == "hard" and side == "theirs" else []
            inside(nat, "iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE", *random)
            for chain in ("INPUT", "FORWARD"):
                known = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
                inside(nat, "iptables", "-A", chain, "-i", "wan", *known, "-j", "ACCEPT")
                inside(nat, "iptables", "-A", chain, "-i", "wan", "-j", "DROP")
        yield Network(kind, names)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
