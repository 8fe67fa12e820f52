"""Connects to a name, sends each message and prints each answer.

    connector.py NAME [MESSAGE...]      the server comes from HOLEPUNCH_SERVER
"""

import sys

import holepunch


def main() -> None:
    if len(sys.argv) < 2:
        print("usage: connector.py NAME [MESSAGE...]", file=sys.stderr)
        sys.exit(2)
    with holepunch.connect_datagram(sys.argv[1]) as connection:
        path = connection.path
        print(f"connected to {path.remote} over {path.kind}, rtt {path.rtt * 1000:.1f} ms", file=sys.stderr)
        for message in sys.argv[2:]:
            connection.send(message.encode())
            print(connection.recv(timeout=5).decode())
        connection.end()


if __name__ == "__main__":
    try:
        main()
    except holepunch.HolepunchError as error:
        sys.exit(str(error))
