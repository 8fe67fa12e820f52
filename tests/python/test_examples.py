"""The example programs, against each other and when something is wrong."""

import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Dict, List

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"
CONNECTED = re.compile(r"^connected to 127\.0\.0\.1:\d+ over (host|srflx|prflx), rtt \d+\.\d ms$", re.MULTILINE)


def command(program: str, *arguments: str) -> List[str]:
    return [sys.executable, str(EXAMPLES / f"{program}.py"), *arguments]


def environment(server: str) -> Dict[str, str]:
    return {**os.environ, "HOLEPUNCH_SERVER": server, "HOLEPUNCH_BIND": "127.0.0.1"}


def test_listener_and_connector(server: str, name: str) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(server)}
    with subprocess.Popen(command("listener", name), **pipes) as listener:  # type: ignore[call-overload]
        done = subprocess.run(
            command("connector", name, "hello", "wörld"), capture_output=True, text=True, env=environment(server), timeout=30
        )
        _, said = listener.communicate(timeout=30)
    assert (done.returncode, done.stdout) == (0, "hello\nwörld\n"), done.stderr
    assert CONNECTED.match(done.stderr)
    assert listener.returncode == 0, said
    assert CONNECTED.match(said)


def test_async_echo(server: str, name: str) -> None:
    arguments = {"stderr": subprocess.PIPE, "text": True, "env": environment(server)}
    with subprocess.Popen(command("async_echo", "listen", name), **arguments) as listener:  # type: ignore[call-overload]
        assert listener.stderr.readline() == f"listening as {name}\n"
        done = subprocess.run(
            command("async_echo", "connect", name, "hello", "wörld"),
            capture_output=True,
            text=True,
            env=environment(server),
            timeout=30,
        )
        listener.send_signal(signal.SIGINT)
        _, said = listener.communicate(timeout=10)
    assert (done.returncode, done.stdout) == (0, "hello\nwörld\n"), done.stderr
    assert (listener.returncode, said) == (130, ""), said


def test_agents() -> None:
    programs = []
    for role in ("controlling", "controlled"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        arguments = command("agent", role, f"I am {role}")
        programs.append(subprocess.Popen(arguments, env=environment(""), **pipes))  # type: ignore[call-overload]
    for one, other in (programs, programs[::-1]):
        line = ""
        while "end-of-candidates" not in line:
            line = one.stdout.readline()
            assert line, one.stderr.read()
            other.stdin.write(line)
        other.stdin.flush()
    for program, heard in zip(programs, ("I am controlled\n", "I am controlling\n")):
        output, said = program.communicate(timeout=30)
        assert (program.returncode, output) == (0, heard), said
        assert CONNECTED.match(said)


@pytest.mark.parametrize("program", ["listener", "connector"])
def test_wrong_server(program: str, name: str) -> None:
    done = subprocess.run(
        command(program, name), capture_output=True, text=True, env=environment("nowhere.invalid"), timeout=30
    )
    assert done.returncode == 1
    assert re.fullmatch(r"[^\n]*nowhere\.invalid[^\n]*; [^\n]+\n", done.stderr), done.stderr
