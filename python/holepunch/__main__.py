"""`python -m holepunch` and the console script: the same program as the Rust binary `holepunch`."""

import signal
import sys

from ._native import run


def main() -> int:
    """Runs the command line with the arguments of this process and returns its exit status."""
    # The program handles SIGINT itself; Python's handler would raise a KeyboardInterrupt besides.
    former = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return run(["holepunch", *sys.argv[1:]])
    finally:
        signal.signal(signal.SIGINT, former)


if __name__ == "__main__":
    sys.exit(main())
