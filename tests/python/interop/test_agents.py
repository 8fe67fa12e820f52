"""Our agent meets those of aioice and libnice, with coturn as the STUN and TURN server, in network namespaces.

Both are given roles either way; on one LAN, behind two NATs, and where nothing but a relayed candidate of theirs can
work. What crosses the other's wire is captured, and Wireshark must know every message of STUN in it.
"""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from typing import Dict, Iterator, List, NoReturn, Tuple

import pytest

from interop import networks

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
OURS = ROOT / "examples" / "python" / "agent.py"
ROLES = {"controlling": "controlled", "controlled": "controlling"}


def skip(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Skips aloud: also where the runner says nothing of skipped tests."""
    capturing = request.config.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        print(f"\nSKIPPED: ICE with other agents: {reason}", flush=True)
    pytest.skip(reason)


@pytest.fixture(scope="module", params=["lan", "nats", "hard"])
def network(request: pytest.FixtureRequest) -> Iterator[networks.Network]:
    """A network with a STUN and TURN server in the middle."""
    if shutil.which("turnserver") is None:
        skip(request, "coturn is not installed")
    with networks.make(request.param, lambda reason: skip(request, reason)) as network:
        options = ["-n", "--lt-cred-mech", "--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout"]
        options += ["--pidfile", "/dev/null"]
        addresses = ["--listening-ip", networks.SERVER, "--relay-ip", networks.SERVER]
        user = ["--realm", "test", "--user", "user:password"]
        server = subprocess.Popen(
            network.command("server", "turnserver", *options, *addresses, *user),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            network.wait_for_udp("server", 3478)
            yield network
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="module", params=["aioice", "libnice"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> List[str]:
    """The command of the other agent."""
    if request.param == "aioice":
        if importlib.util.find_spec("aioice") is None:
            skip(request, "aioice is not installed")
        return [sys.executable, str(HERE / "peer_aioice.py")]
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "nice"], capture_output=True, text=True)
    if flags.returncode:
        skip(request, "libnice is not installed")
    program = tmp_path_factory.mktemp("interop") / "peer_libnice"
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", str(HERE / "peer_libnice.c"), "-o", str(program), *flags.stdout.split()],
        check=True,
    )
    return [str(program)]


@contextlib.contextmanager
def capture(network: networks.Network, file: pathlib.Path) -> Iterator[None]:
    """Captures the other side's wire."""
    command = network.command("theirs", sys.executable, str(HERE / "capture.py"), "eth0", str(file))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()
    assert process.returncode == 0


def talk(network: networks.Network, ours: List[str], theirs: List[str]) -> Dict[str, Tuple[str, str]]:
    """Runs both, tells each what the other prints, line by line, and returns what each has said then, and on stderr."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    programs = {
        side: subprocess.Popen(network.command(side, *command), **pipes)  # type: ignore[call-overload]
        for side, command in (("ours", ours), ("theirs", theirs))
    }

    def tell(one: str, to: str) -> None:
        for line in programs[one].stdout:
            try:
                programs[to].stdin.write(line)
                programs[to].stdin.flush()
            except OSError:
                return
            if "end-of-candidates" in line:
                return

    tellers = [threading.Thread(target=tell, args=pair) for pair in (("ours", "theirs"), ("theirs", "ours"))]
    try:
        for teller in tellers:
            teller.start()
        for teller in tellers:
            teller.join(20)
        said = {}
        for side, program in programs.items():
            said[side] = (program.stdout.read(), program.stderr.read())
            assert program.wait(20) == 0, (side, said)
        return said
    finally:
        for program in programs.values():
            program.kill()
            program.wait()


def decoded(file: pathlib.Path, what: str) -> int:
    """How many frames of a capture match."""
    command = ["tshark", "-r", str(file), "-Y", what, "-T", "fields", "-e", "frame.number"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def examples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """The example `agent` in Rust and in C, and the agent of `is`, built."""
    if shutil.which("cargo") is None or shutil.which("cc") is None:
        skip(request, "there is no cargo or no compiler to build the agents in Rust and C with")
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    for arguments in (["--example", "agent", "--example", "peer_is"], ["--package", "holepunch-c", "--lib"]):
        subprocess.run(["cargo", "build", "--quiet", *arguments], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("examples")
    for name in ("libholepunch.so", "libholepunch.so.0"):
        (folder / name).symlink_to(built / "libholepunch.so")
    source, program = str(ROOT / "examples" / "c" / "agent.c"), str(folder / "agent")
    library = [f"-I{ROOT / 'include'}", f"-L{folder}", f"-Wl,-rpath,{folder}", "-lholepunch"]
    subprocess.run(["cc", "-std=c99", source, "-o", program, *library], check=True)
    return {"rust": str(built / "examples" / "agent"), "c": program, "is": str(built / "examples" / "peer_is")}


# It has no relay for the hard one.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("network", ["lan", "nats"], indirect=True)
@pytest.mark.parametrize("language", ["rust", "c"])
@pytest.mark.parametrize("role", ROLES)
def test_ours_meets_that_of_is(network: networks.Network, examples: Dict[str, str], language: str, role: str) -> None:
    ours = [examples[language], role, "from us", networks.SERVER]
    said = talk(network, ours, [examples["is"], ROLES[role], "from them", networks.SERVER])
    assert (said["ours"][0], said["theirs"][0]) == ("from them\n", "from us\n")


@pytest.mark.parametrize("role", ROLES)
def test_they_meet(
    request: pytest.FixtureRequest, network: networks.Network, other: List[str], role: str, tmp_path: pathlib.Path
) -> None:
    server = [networks.SERVER]
    ours = [sys.executable, str(OURS), role, "from us", *server]
    file = tmp_path / "wire.pcap"
    with capture(network, file):
        said = talk(network, ours, [*other, ROLES[role], "from them", *server])
    assert (said["ours"][0], said["theirs"][0]) == ("from them\n", "from us\n")
    remote = said["ours"][1].split()[2].rpartition(":")[0]
    expected = {"lan": "203.0.113.2", "nats": "203.0.113.2", "hard": networks.SERVER}[network.kind]
    assert remote == expected, said["ours"][1]
    if shutil.which("tshark") is None:
        skip(request, "tshark is not installed: they met, and nobody has looked at the packets")
    # The magic cookie is at its place in every one, and nothing else begins so.
    cookie = "udp.payload[4:4] == 21:12:a4:42 && !icmp"
    assert decoded(file, f"{cookie} && stun") >= 4
    assert decoded(file, f"{cookie} && !stun") == 0
    assert decoded(file, "stun && (_ws.malformed || _ws.expert.severity == error)") == 0
    assert decoded(file, "stun.att.crc32.status == 0") == 0
