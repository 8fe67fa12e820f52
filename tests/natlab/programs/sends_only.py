"""A program that only sends: `sends_only NAME SECONDS` connects, sends ten datagrams a second, and never receives.

The server comes from HOLEPUNCH_SERVER.
"""

import sys
import time

import holepunch


def main(name: str, seconds: str) -> None:
    with holepunch.connect_datagram(name, wait=20) as connection:
        print("connected", file=sys.stderr, flush=True)
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            connection.send(b"again")
            time.sleep(0.1)
        connection.end()
    print("all sent")


if __name__ == "__main__":
    main(*sys.argv[1:])
