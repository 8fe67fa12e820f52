"""aioice as one of the agents of the benchmark `ice`: peer_aioice.py SERVER; ice_peers/mod.rs says what it is told and says."""

import asyncio
import sys
import time
from typing import Tuple

import aioice

PATIENCE = 35  # seconds


async def next_line() -> str:
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip()


async def turn(role: str, server: Tuple[str, int]) -> None:
    connection = aioice.Connection(ice_controlling=role == "controlling", stun_server=server)
    await connection.gather_candidates()
    print(f"a=ice-ufrag:{connection.local_username}\na=ice-pwd:{connection.local_password}")
    for candidate in connection.local_candidates:
        print(f"a=candidate:{candidate.to_sdp()}")
    print("a=end-of-candidates", flush=True)
    candidates = []
    while (line := await next_line()) != "a=end-of-candidates":
        name, _, value = line.partition(":")
        if name == "a=ice-ufrag":
            connection.remote_username = value
        elif name == "a=ice-pwd":
            connection.remote_password = value
        elif name == "a=candidate":
            candidates.append(aioice.Candidate.from_sdp(value))
    begun = time.monotonic_ns()
    for candidate in [*candidates, None]:
        await connection.add_remote_candidate(candidate)
    word = "connected"
    try:
        await asyncio.wait_for(connection.connect(), PATIENCE)
    except (ConnectionError, asyncio.TimeoutError):
        word = "failed"
    print(word, begun, time.monotonic_ns(), flush=True)
    await next_line()
    await connection.close()


async def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    print(f"aioice {aioice.__version__}", flush=True)
    while role := await next_line():
        await turn(role, (host, int(port)))


asyncio.run(main())
