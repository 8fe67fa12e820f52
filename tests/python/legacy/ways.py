"""Which way the clients of this package met their peers: by the current protocol, or as in 2015."""

from typing import Any, Callable, List

import holepunch.client


def watch(current_server: bool, put: Callable[[object, str, object], None] = setattr) -> List[str]:
    """From now on, every peer that a client has met is noted in this list as `current` or `2015`.

    On a fast network a server has 20 ms to say that it is current, which a busy machine may not give it; so one that is
    known to be is asked again. (An old one must not be asked twice.)
    """
    ways: List[str] = []
    # What the module has from elsewhere is what is replaced there.
    decide, meet_current = (getattr(holepunch.client, name) for name in ("decide", "meet_current"))

    def patiently(*arguments: Any, **keywords: Any) -> Any:
        for _ in range(10):
            sock = decide(*arguments, **keywords)
            if sock is None or not current_server:
                return sock
            sock.close()
        raise AssertionError("the server has not said that it is current")

    def noting(way: str, how: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **keywords: Any) -> Any:
            met = how(*arguments, **keywords)
            ways.append(way)
            return met

        return note

    put(holepunch.client, "decide", patiently)
    put(holepunch.client, "meet_current", noting("current", meet_current))
    for name in ("meet_stream", "meet_datagram"):
        put(holepunch.client, name, noting("2015", getattr(holepunch.client, name)))
    return ways
