"""Registers a name, accepts one peer and echoes its datagrams until it ends.

    listener.py NAME            the server comes from HOLEPUNCH_SERVER
"""

import sys

import holepunch


def main() -> None:
    if len(sys.argv) != 2:
        print("usage: listener.py NAME", file=sys.stderr)
        sys.exit(2)
    with holepunch.listen_datagram(sys.argv[1]) as listener, listener.accept_datagram() as connection:
        path = connection.path
        print(f"connected to {path.remote} over {path.kind}, rtt {path.rtt * 1000:.1f} ms", file=sys.stderr)
        try:
            while True:
                connection.send(connection.recv())
        except holepunch.ClosedError:
            pass  # the peer has ended


if __name__ == "__main__":
    try:
        main()
    except holepunch.HolepunchError as error:
        sys.exit(str(error))
