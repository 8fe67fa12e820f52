"""`python -m holepunch client`: what it prints and how it ends; and the functions of `holepunch.__main__`."""

import json
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


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_two_commands_meet(plain_server: holepunch.server.Server, kind: str) -> None:
    server = "127.0.0.1:%d" % plain_server.addr[1]
    options = ["--server", server, "--timeout", "20", "--bind"]
    listener = [sys.executable, "-m", "holepunch", "client", kind, *options, "127.0.0.31"]
    with subprocess.Popen(listener, stderr=subprocess.PIPE, text=True) as process:
        done = command("client", kind, "127.0.0.31", *options, "127.0.0.2")
        while "no listener is at" in done.stderr:
            assert process.poll() is None
            done = command("client", kind, "127.0.0.31", *options, "127.0.0.2")
        _, said = process.communicate(timeout=30)
    assert (process.returncode, done.returncode) == (0, 0), (said, done.stderr)
    for lines, remote in ((done.stderr, "127.0.0.31"), (said, "127.0.0.2")):
        assert re.search(LINE + rf"Open client socket to {re.escape(remote)}:\d+\n", lines), lines


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_command_meets_an_old_peer(plain_server: holepunch.server.Server, punch_port: int, kind: str) -> None:
    server = "127.0.0.1:%d" % plain_server.addr[1]
    with old.in_thread(lambda: old.open_peer(kind, plain_server.addr, "127.0.0.31", None, 20)) as results:
        while not (plain_server._loop and plain_server._loop.stats()["legacy_listeners"]):
            pass
        done = command("client", kind, "127.0.0.31", "--server", server, "--bind", "127.0.0.2", "--timeout", "20")
    peer = results[0]
    assert isinstance(peer, tuple)
    peer[0].close()
    assert (done.returncode, peer[1]) == (0, ("127.0.0.2", punch_port)), done.stderr
    assert f"Open client socket to 127.0.0.31:{punch_port}\n" in done.stderr


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


def test_another_output_than_that_of_2015() -> None:
    for arguments in (["--json", "client", "tcp"], ["client", "tcp", "--json"]):
        done = command(*arguments, "--server", "127.0.0.1:1")
        event = json.loads(done.stderr)
        assert (done.returncode, event["event"], event["status"]) == (1, "error", 1)
    for quiet in ("-q", "--quiet"):
        done = command("client", "tcp", quiet, "--server", "127.0.0.1:1")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_usage_is_2() -> None:
    for arguments in ([], ["client"], ["client", "sctp"], ["client", "udp", "a", "b"], ["dance"]):
        done = command(*arguments)
        assert done.returncode == 2 and done.stderr, done


def test_help_names_everything() -> None:
    assert command("client", "-h").stdout.startswith("usage: holepunch client [-h] ")
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
