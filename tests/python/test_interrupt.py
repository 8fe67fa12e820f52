"""Ctrl-C ends every wait at once, as a KeyboardInterrupt."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SETUP = """
import sys, holepunch
from concurrent.futures import ThreadPoolExecutor
server, silent, name = sys.argv[1:]

def waiting():
    print("waiting", flush=True)

def endpoint(server=server, **options):
    return holepunch.Endpoint(server, bind="127.0.0.1", **options)

def pair():
    listener = endpoint().listen(name)
    connector = holepunch.connect_datagram(name, servers=server, bind="127.0.0.1")
    return connector, listener.accept_datagram(timeout=5)

def streams():
    listener = endpoint().listen(name)
    connector = holepunch.connect(name, servers=server, bind="127.0.0.1")
    return connector, listener.accept(timeout=5)

def deaf():
    # A connection whose peer answers nothing any more: nobody drives it.
    global peer
    quiet = endpoint(thread=False)
    listener = quiet.listen(name)
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(holepunch.connect_datagram, name, servers=server, bind="127.0.0.1")
        peer = listener.accept_datagram(timeout=10), listener, quiet
        while not connecting.done():
            quiet.process()
        return connecting.result()
"""

WAITS = {
    "listen": "e = endpoint(silent); waiting(); e.listen(name)",
    "connect_datagram": "e = endpoint(); waiting(); e.connect_datagram(name, wait=60)",
    "connect": "e = endpoint(); waiting(); e.connect(name, wait=60)",
    "accept": "l = endpoint().listen(name); waiting(); l.accept()",
    "iteration for streams": "l = endpoint().listen(name); waiting(); list(l)",
    "stream recv": "a, b = streams(); waiting(); a.recv()",
    "stream recv with a timeout": "a, b = streams(); waiting(); b.recv(timeout=60)",
    "stream recv with a cancel": "a, b = streams(); waiting(); b.recv(cancel=holepunch.Cancel())",
    "sendall": "a, b = streams(); waiting(); a.sendall(bytes(1 << 26))",
    "sendall with a timeout": "a, b = streams(); waiting(); a.sendall(bytes(1 << 26), timeout=60)",
    "one-call listen": "waiting(); holepunch.listen(name, servers=silent)",
    "one-call connect for a stream": "waiting(); holepunch.connect(name, servers=server, wait=60)",
    "accept without a thread": "l = endpoint(thread=False).listen(name); waiting(); l.accept()",
    "listen_datagram": "waiting(); holepunch.listen_datagram(name, servers=silent)",
    "one-call connect": "waiting(); holepunch.connect_datagram(name, servers=server, wait=60)",
    "accept_datagram": "l = endpoint().listen(name); waiting(); l.accept_datagram()",
    "accept_datagram with a timeout": "l = endpoint().listen(name); waiting(); l.accept_datagram(timeout=60)",
    "iteration": "l = endpoint().listen_datagram(name); waiting(); list(l)",
    "recv": "a, b = pair(); waiting(); a.recv()",
    "recv with a timeout": "a, b = pair(); waiting(); b.recv(timeout=60)",
    "recv with a cancel": "a, b = pair(); waiting(); b.recv(cancel=holepunch.Cancel())",
    "end": "a = deaf(); waiting(); a.end()",
    "close": "a = deaf(); waiting(); a.close()",
    "accept_datagram without a thread": "l = endpoint(thread=False).listen(name); waiting(); l.accept_datagram()",
}


def sleeping(process: int) -> bool:
    """Whether the main thread of a process sleeps in the kernel."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def interrupted(command: "list[str]") -> "tuple[int, float, str]":
    """Starts a command, interrupts it when it waits; its status, the seconds it took to end, and what it wrote."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if line != "waiting\n":
            process.kill()
            raise AssertionError(process.stderr.read())
        while not sleeping(process.pid):
            os.sched_yield()
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        status = process.wait(10)
        return status, time.monotonic() - begin, process.stderr.read()


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_interrupt(server: str, silent_server: str, name: str, wait: str) -> None:
    script = f"""{SETUP}
try:
    {wait}
except KeyboardInterrupt:
    import os
    os._exit(77)
"""
    status, seconds, complaints = interrupted([sys.executable, "-c", script, server, silent_server, name])
    assert status == 77, complaints
    assert seconds < 0.5


def test_handler_that_does_not_raise_ends_nothing(server: str, silent_server: str, name: str) -> None:
    script = f"""{SETUP}
import signal
signal.signal(signal.SIGINT, lambda *_: sender.send(b"from the handler"))
sender, receiver = pair()
waiting()
assert receiver.recv(timeout=20) == b"from the handler"
"""
    status, seconds, complaints = interrupted([sys.executable, "-c", script, server, silent_server, name])
    assert status == 0, complaints
    assert seconds < 5


def test_command(server: str, name: str) -> None:
    """`python -m holepunch listen` ends with 130."""
    command = [sys.executable, "-m", "holepunch", "--json", "listen", name, "--udp", "--server", server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if '"registered"' in line:
                break
        process.send_signal(signal.SIGINT)
        status = process.wait(10)
        rest = process.stderr.read()
    assert status == 130
    assert "Traceback" not in rest
