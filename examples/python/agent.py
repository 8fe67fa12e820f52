"""ICE with signalling of your own: here you are the signalling, and copy and paste what each side prints into the other.

    agent.py controlling|controlled MESSAGE [STUN-SERVER...]

The peer is this program on another machine, or any agent of ICE. It ends when both have said their message.
"""

import sys

import holepunch
from holepunch.arguments import Role


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in ("controlling", "controlled"):
        print("usage: agent.py controlling|controlled MESSAGE [STUN-SERVER...]", file=sys.stderr)
        sys.exit(2)
    message = sys.argv[2].encode()
    role: Role = "controlling" if sys.argv[1] == "controlling" else "controlled"
    with holepunch.agent(role, stun_servers=sys.argv[3:]) as agent:
        print(agent.local_description(), end="", flush=True)
        # The peer's lines, up to the last; its candidates may come one by one.
        said = ""
        for line in sys.stdin:
            if "end-of-candidates" in line:
                break
            said += line
            if "candidate:" in line or "ice-pwd:" in line:
                agent.set_remote_description(said)
        with agent.connect() as connection:
            path = connection.path
            print(f"connected to {path.remote} over {path.kind}, rtt {path.rtt * 1000:.1f} ms", file=sys.stderr)
            # A datagram may be lost, so it is said until the peer was heard, and once more.
            while True:
                connection.send(message)
                try:
                    heard = connection.recv(timeout=0.5)
                    break
                except holepunch.TimeoutError:
                    pass
            connection.send(message)
            print(heard.decode())


if __name__ == "__main__":
    try:
        main()
    except holepunch.HolepunchError as error:
        sys.exit(str(error))
