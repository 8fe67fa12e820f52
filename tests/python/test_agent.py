"""Agents with signalling of the program's own: here a variable is the signalling."""

import socket
import threading
import time
from typing import Callable, Iterator, List, Tuple

import pytest
from aioice import stun

import holepunch

PASSWORD = "0123456789012345678901"


@pytest.fixture
def agents() -> Iterator[Tuple[holepunch.Agent, holepunch.Agent]]:
    with holepunch.agent("controlling", bind="127.0.0.1") as one, holepunch.agent("controlled", bind="127.0.0.1") as other:
        yield one, other


def test_descriptions(agents: Tuple[holepunch.Agent, holepunch.Agent]) -> None:
    one, other = agents
    other.set_remote_description(one.local_description())
    one.set_remote_description(other.local_description(timeout=5))
    with one.connect(timeout=5) as near, other.connect(timeout=5) as far:
        near.send(b"hello")
        assert far.recv(timeout=5) == b"hello"
        assert (near.path.role, far.path.role) == ("controlling", "controlled")
        assert near.session == one.session
        with pytest.raises(holepunch.UnsupportedError, match="hears of no end"):
            near.end(timeout=5)


def test_trickle(agents: Tuple[holepunch.Agent, holepunch.Agent]) -> None:
    one, other = agents
    one.set_remote(other.ufrag, other.password)
    other.set_remote(one.ufrag, one.password)
    for near, far in ((one, other), (other, one)):
        while (line := near.next_candidate(timeout=5)) is not None:
            assert line.startswith("candidate:")
            far.add_remote_candidate(line)
        far.end_of_candidates()
    connection = one.connect(timeout=5)
    one.close()
    far_end = other.connect(timeout=5)
    connection.send(b"it outlives its agent")
    assert far_end.recv(timeout=5) == b"it outlives its agent"
    far_end.close()
    connection.close()


def test_a_description_is_the_same_each_time(agents: Tuple[holepunch.Agent, holepunch.Agent], silent_server: str) -> None:
    agent, _ = agents
    lines = list(agent)
    assert lines and agent.next_candidate() is None
    description = agent.local_description()
    assert [line for line in description.splitlines() if "candidate:" in line] == [f"a={line}" for line in lines]
    assert agent.local_description() == description
    with holepunch.agent("controlled", bind="127.0.0.1", stun_servers=silent_server) as agent:
        with pytest.raises(holepunch.TimeoutError, match="not all candidates"):
            agent.local_description(timeout=0.01)
        assert agent.next_candidate() is not None  # nothing was lost


def test_ice_lite(agents: Tuple[holepunch.Agent, holepunch.Agent]) -> None:
    """A peer that answers checks and makes none, as media servers do (RFC 8445 section 2.5)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lite:
        lite.bind(("127.0.0.1", 0))
        lite.settimeout(10)
        description = (
            f"v=0\r\na=ice-lite\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=ice-ufrag:lite\r\n"
            f"a=ice-pwd:{PASSWORD}\r\na=candidate:1 1 udp 2130706431 127.0.0.1 {lite.getsockname()[1]} typ host\r\n"
        )
        one, other = agents
        with pytest.raises(holepunch.InvalidArgumentError, match="make the agent controlling"):
            other.set_remote_description(description)
        one.set_remote_description(description)
        received: List[bytes] = []

        def answer() -> None:
            while True:
                data, addr = lite.recvfrom(2000)
                if data[0] > 3:
                    received.append(data)
                    return
                check = stun.parse_message(data)
                assert check.check_message_integrity(PASSWORD.encode())
                answer = stun.Message(check.message_method, stun.Class.RESPONSE, check.transaction_id)
                answer.attributes["XOR-MAPPED-ADDRESS"] = addr
                answer.add_message_integrity(PASSWORD.encode())
                lite.sendto(bytes(answer), addr)

        answering = threading.Thread(target=answer)
        answering.start()
        with one.connect(timeout=10) as connection:
            connection.send(b"hello")
            answering.join()
        assert received == [b"hello"]


def test_without_a_peer(agents: Tuple[holepunch.Agent, holepunch.Agent]) -> None:
    agent, _ = agents
    with pytest.raises(holepunch.TimeoutError):
        agent.connect(timeout=0.05)
    agent.set_remote("abcd", PASSWORD)
    threading.Timer(0.05, agent.close).start()
    begin = time.monotonic()
    with pytest.raises(holepunch.ClosedError):
        agent.connect()
    assert time.monotonic() - begin < 5
    cancel = holepunch.Cancel()
    cancel.cancel()
    with holepunch.agent("controlled", bind="127.0.0.1", timeout=0.05) as agent:
        with pytest.raises(holepunch.CancelledError):
            agent.connect(cancel=cancel)
        agent.set_remote("abcd", PASSWORD)
        for _ in range(2):
            with pytest.raises(holepunch.TimeoutError, match="after its description came") as caught:
                agent.connect()
            assert caught.value.strategies == ("udp_simultaneous",)


def test_wrong_arguments(agents: Tuple[holepunch.Agent, holepunch.Agent]) -> None:
    agent, _ = agents
    with pytest.raises(holepunch.InvalidArgumentError):
        holepunch.agent("both")  # type: ignore[arg-type]
    with pytest.raises(holepunch.InvalidArgumentError):
        holepunch.agent("controlled", stun_servers="a b")
    with pytest.raises(holepunch.UnresolvableError):
        holepunch.agent("controlled", stun_servers="nowhere.invalid")
    calls: List[Callable[[], None]] = [
        lambda: agent.set_remote("abc", PASSWORD),
        lambda: agent.set_remote("abcd", "short"),
        lambda: agent.add_remote_candidate("candidate:"),
        lambda: agent.set_remote_description("v=0"),
    ]
    for call in calls:
        with pytest.raises(holepunch.InvalidArgumentError):
            call()
    agent.add_remote_candidate("candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active")
    agent.close()
    assert repr(agent) == f"<holepunch.Agent {agent.ufrag} closed>"
    with pytest.raises(holepunch.ClosedError):
        agent.end_of_candidates()
