"""`python -m holepunch client`: what it prints and how it ends; and the functions of `holepunch.__main__`."""

import re
import signal
import socket
import subprocess
import sys
from typing import List

import pytest

import holepunch.__main__
import holepunch.server

from legacy import old

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO: "


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "holepunch", *arguments], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_opens_and_closes(new_server: holepunch.server.Server, punch_port: int, kind: str) -> None:
    server = "127.0.0.1:%d" % new_server.addr[1]
    with old.in_thread(lambda: old.open_peer(kind, new_server.addr, "127.0.0.31", None, 20)) as results:
        while "127.0.0.31" not in new_server._listeners:
            pass
        done = command("client", kind, "127.0.0.31", "--server", server, "--bind", "127.0.0.2", "--timeout", "20")
    peer = results[0]
    assert isinstance(peer, tuple)
    with peer[0]:
        assert (peer[0].type == socket.SOCK_DGRAM) == (kind == "udp")  # `client udp` of 2015 was TCP
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert all(re.match(LINE, line) for line in lines), lines
    assert re.fullmatch(LINE + f"Open server socket {re.escape(server)}", lines[0])
    assert any(re.fullmatch(LINE + f"Close server socket {re.escape(server)}", line) for line in lines)


def test_failures_are_1(new_server: holepunch.server.Server) -> None:
    server = "127.0.0.1:%d" % new_server.addr[1]
    for arguments in (
        ["tcp", "127.0.0.99", "--server", server],
        ["udp", "--server", server, "--timeout", "0.05"],
        ["tcp", "--server", "127.0.0.1:1"],
        ["udp", "--server", "no such name.invalid"],
        ["udp", "--server", "127.0.0.1:port"],
        ["udp", "--server", server, "--bind", "192.0.2.1"],
    ):
        done = command("client", *arguments)
        assert done.returncode == 1, done
        assert done.stderr.splitlines()[-1].startswith("holepunch: ") and "Traceback" not in done.stderr


def test_usage_is_2() -> None:
    for arguments in ([], ["client"], ["client", "sctp"], ["client", "udp", "a", "b"], ["dance"]):
        done = command(*arguments)
        assert done.returncode == 2 and done.stderr, done


def test_help_names_everything() -> None:
    for option in ("-h", "--help"):
        done = command(option)
        assert done.returncode == 0
        for word in ("server", "client", "udp", "tcp", "destination", "listen", "connect", "netcheck"):
            assert re.search(rf"\b{word}\b", done.stdout), word


def test_ctrl_c(new_server: holepunch.server.Server) -> None:
    arguments = ["client", "tcp", "--server", "127.0.0.1:%d" % new_server.addr[1]]
    with subprocess.Popen([sys.executable, "-m", "holepunch", *arguments], stderr=subprocess.PIPE, text=True) as process:
        while "127.0.0.1" not in new_server._listeners:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in said


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["server"], ("server", None, None)),
        (["client", "udp"], ("client", "udp", None)),
        (["client", "tcp", "203.0.113.2"], ("client", "tcp", "203.0.113.2")),
    ],
)
def test_parse_args(monkeypatch: pytest.MonkeyPatch, argv: List[str], expected: object) -> None:
    monkeypatch.setattr(sys, "argv", ["holepunch", *argv])
    parsed = holepunch.__main__.parse_args()
    assert (parsed.application, parsed.protocol, parsed.destination) == expected


def test_main_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["holepunch", "client", "tcp", "--server", "127.0.0.1:1"])
    assert holepunch.__main__.main() == 1
