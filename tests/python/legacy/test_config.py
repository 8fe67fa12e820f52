"""holepunch.config: names and values, when they are read, and what comes before what."""

import subprocess
import sys
from typing import Dict, List

import pytest

import holepunch.client
import holepunch.config
import holepunch.server

SHOW = """
import holepunch.client, holepunch.config as config
{}
client = holepunch.client.Client({})
print(*client._server._addr, client._bind or "-", config._punch_port())
"""


def shown(assignment: str = "pass", arguments: str = "", **environment: str) -> List[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(assignment, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


ENVIRONMENT: Dict[str, str] = {
    "HOLEPUNCH_SERVER": "192.0.2.1:1000",
    "HOLEPUNCH_BIND": "192.0.2.2:3",
    "HOLEPUNCH_PORT": "1001",
}


def test_values() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from holepunch.config import *; print(SERVER_HOST, SERVER_PORT, HOLEPUNCH_PORT)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0.0.0.0", "20000", "20001"]


def test_precedence() -> None:
    assert shown() == ["0.0.0.0", "20000", "-", "20001"]
    assert shown(**ENVIRONMENT) == ["192.0.2.1", "1000", "192.0.2.2", "1001"]
    assigned = "config.SERVER_HOST, config.SERVER_PORT, config.HOLEPUNCH_PORT = '0.0.0.0', 20000, 20001"
    assert shown(assigned, **ENVIRONMENT) == ["0.0.0.0", "20000", "192.0.2.2", "20001"]
    assert shown("config.BIND_HOST = '127.0.0.9'", **ENVIRONMENT)[2] == "127.0.0.9"
    arguments = "server='192.0.2.9', port=5, bind='127.0.0.5'"
    assert shown(assigned, arguments, **ENVIRONMENT) == ["192.0.2.9", "5", "127.0.0.5", "20001"]
    assert shown(arguments="server='192.0.2.9:7'")[:2] == ["192.0.2.9", "7"]
    assert shown(HOLEPUNCH_SERVER="[2001:db8::1]:9")[:2] == ["2001:db8::1", "9"]
    assert shown(HOLEPUNCH_SERVER="2001:db8::1")[:2] == ["2001:db8::1", "20000"]


def test_read_when_an_object_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holepunch.config, "SERVER_HOST", "192.0.2.1")
    monkeypatch.setattr(holepunch.config, "SERVER_PORT", 5)
    client, server = holepunch.client.Client(), holepunch.server.Server()
    monkeypatch.setattr(holepunch.config, "SERVER_HOST", "192.0.2.2")
    monkeypatch.setattr(holepunch.config, "SERVER_PORT", 6)
    assert client._server._addr == server.addr == ("192.0.2.1", 5)
    assert holepunch.client.Server()._addr == ("192.0.2.2", 6)


def test_a_server_that_is_no_address() -> None:
    with pytest.raises(ValueError, match="port"):
        holepunch.client.Client(server="192.0.2.1:x")


def test_addresses_that_are_none() -> None:
    for text in ("[::1", "[::1]x", "[::1]80", "host:65536", "host:+1"):
        with pytest.raises(ValueError):
            holepunch.config._host_and_port(text, 1)
    assert holepunch.config._host_and_port("[::1]", 1) == ("::1", 1)
