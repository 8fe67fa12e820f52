"""aioice as the peer of the example `agent`: the same arguments and texts.

peer_aioice.py controlling|controlled MESSAGE [SERVER]     SERVER is one of STUN and TURN; its user is "user", "password"
"""

import asyncio
import sys

import aioice


async def main() -> None:
    role, message = sys.argv[1], sys.argv[2].encode()
    server = (sys.argv[3], 3478) if len(sys.argv) > 3 else None
    connection = aioice.Connection(
        ice_controlling=role == "controlling",
        stun_server=server,
        turn_server=server,
        turn_username="user" if server else None,
        turn_password="password" if server else None,
    )
    await connection.gather_candidates()
    print(f"a=ice-ufrag:{connection.local_username}\na=ice-pwd:{connection.local_password}")
    for candidate in connection.local_candidates:
        print(f"a=candidate:{candidate.to_sdp()}")
    print("a=end-of-candidates", flush=True)
    while True:
        name, _, value = (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip().partition(":")
        if name == "a=ice-ufrag":
            connection.remote_username = value
        elif name == "a=ice-pwd":
            connection.remote_password = value
        elif name == "a=candidate":
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(value))
        elif name in ("a=end-of-candidates", ""):
            break
    await connection.add_remote_candidate(None)
    await connection.connect()
    while True:
        await connection.send(message)
        try:
            heard = await asyncio.wait_for(connection.recv(), 0.5)
            break
        except asyncio.TimeoutError:
            pass
    await connection.send(message)
    print(heard.decode(), flush=True)
    await connection.close()


asyncio.run(main())
