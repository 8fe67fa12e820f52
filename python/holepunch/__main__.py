"""`python -m holepunch` and the console script: the same program as the Rust binary `holepunch`.

The command `client` is that of the 2015 package and runs here, on `holepunch.client`, unless an option asks for another
output than that of 2015; every other command is the Rust program's.
"""

import argparse
import logging
import signal
import sys

from . import client
from ._native import run

__all__ = ["main", "parse_args"]

_OUTPUT = {"--json", "-q", "--quiet", "-v", "--verbose"}

_EPILOG = """\
Further commands, each with a --help of its own:
  listen    wait for a peer, by name or by address, and exchange bytes with it
  connect   connect to a listener and exchange bytes with it
  netcheck  tell what this network does, and what will work
"""


def main() -> int:
    """Runs the command line with the arguments of this process and returns its exit status."""
    arguments = sys.argv[1:]
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    asks_for_help = not arguments or "-h" in arguments or "--help" in arguments
    if command == "client" and _OUTPUT.isdisjoint(arguments) or command is None and asks_for_help:
        return _client(parse_args())
    # The program handles SIGINT itself; Python's handler would raise a KeyboardInterrupt besides.
    former = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return run(["holepunch", *arguments])
    finally:
        signal.signal(signal.SIGINT, former)


def parse_args() -> argparse.Namespace:
    """Reads sys.argv: `application` (server or client), and of a client `protocol` (udp or tcp) and `destination`."""
    parser = argparse.ArgumentParser(
        prog="holepunch",
        description="Direct connections between two programs behind NATs or firewalls.",
        usage="holepunch [-h] [--version] {server,client} ...\n       holepunch client {udp,tcp} [destination]",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(protocol=None, destination=None, server=None, bind=None, timeout=None)
    applications = parser.add_subparsers(prog="holepunch", dest="application", metavar="{server,client}", required=True)
    applications.add_parser("server", help="introduce clients to each other, on a host that all can reach")
    options = applications.add_parser("client", help="meet a peer over udp or tcp; without destination, listen")
    options.add_argument("protocol", choices=["udp", "tcp"], help="how to talk to the peer")
    options.add_argument("destination", nargs="?", help="the listener's public address; none listens")
    options.add_argument("--server", metavar="H[:P]", help="the rendezvous server")
    options.add_argument("--bind", metavar="A", help="the local address to use")
    options.add_argument("--timeout", metavar="S", type=float, help="seconds to try; without it, until interrupted")
    return parser.parse_args()


def _client(arguments: argparse.Namespace) -> int:
    """Opens a client and closes it. Every failure is status 1."""
    logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    kind = client.UDPClient if arguments.protocol == "udp" else client.TCPClient
    try:
        with kind(server=arguments.server, bind=arguments.bind) as peer:
            peer.open(arguments.destination, timeout=arguments.timeout)
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # whatever it is, it is the status that says so
        print(f"holepunch: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
