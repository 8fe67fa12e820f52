"""Programs in network namespaces, which the tests make and remove."""

import re
import subprocess
import sys
import time
from typing import List, NoReturn

import pytest

__all__ = ["Program", "skip", "until"]


def skip(request: pytest.FixtureRequest, what: str, reason: str) -> NoReturn:
    """Skips aloud: also where the runner says nothing of skipped tests."""
    capturing = request.config.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        print(f"\nSKIPPED: {what}: {reason}", flush=True)
    pytest.skip(reason)


class Program:
    """A program in the namespace, which does not outlive the test."""

    def __init__(self, namespace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        return self.process.stdout.readline() or self.process.stderr.read()


def sockets(namespace: str, *options: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", namespace, "ss", "-Hn", *options], capture_output=True, text=True, check=True
    ).stdout


def until(namespace: str, options: List[str], pattern: str) -> None:
    """Waits for a socket."""
    end = time.monotonic() + 10
    while not re.search(pattern, sockets(namespace, *options)):
        assert time.monotonic() < end, f"no socket {pattern}"
