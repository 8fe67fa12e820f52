"""Ctrl-C ends every wait at once, as a KeyboardInterrupt."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

AT_ONCE = 5.0
"""It is to be a tenth of a second; a busy machine gets more."""

SETUP = """
import asyncio, socket, sys, holepunch, holepunch.client, holepunch.server
from holepunch import aio
from concurrent.futures import ThreadPoolExecutor
server, silent, name = sys.argv[1:]

def waiting():
    print("waiting", flush=True)

def endpoint(address=None, **options):
    return holepunch.Endpoint(address or server, bind="127.0.0.1", **options)

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

def fill(channel):
    while True:
        try:
            channel.send(bytes(1200), timeout=0)
        except holepunch.TimeoutError:
            return

def agent():
    return endpoint().agent("controlling", stun_servers=silent)

async def aio_streams():
    async with aio.listen(name, servers=server, bind="127.0.0.1") as listener:
        return await aio.connect(name, servers=server, bind="127.0.0.1"), await listener.accept()

async def aio_pair():
    async with aio.listen_datagram(name, servers=server, bind="127.0.0.1") as listener:
        return await aio.connect_datagram(name, servers=server, bind="127.0.0.1"), await listener.accept_datagram()

async def aio_deaf():
    global peer
    quiet = endpoint(thread=False)
    peer = quiet.listen(name), quiet
    connecting = asyncio.ensure_future(aio.connect_datagram(name, servers=server, bind="127.0.0.1").__aenter__())
    while not connecting.done():
        quiet.process()
        await asyncio.sleep(0)
    return connecting.result()

def in_aio(main):
    asyncio.run(main())

def met(client, sock):
    # A client of 2015 whose peer says nothing.
    client.sock, client.addr = sock, ("127.0.0.1", 9)
    return client

def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock

def mute():
    # A server that takes connections and says nothing.
    global listening
    listening = socket.create_server(("127.0.0.1", 0))
    return "127.0.0.1:%d" % listening.getsockname()[1]
"""


def in_aio(*lines: str) -> str:
    """A coroutine that is run."""
    body = "\n        ".join(lines)
    return f"""
    async def main():
        {body}
    in_aio(main)"""


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
    "stream send": "a, b = streams(); fill(a); waiting(); a.send(bytes(1200))",
    "agent next_candidate": "a = agent(); a.next_candidate(); waiting(); a.next_candidate()",
    "agent local_description": "a = agent(); waiting(); a.local_description()",
    "agent connect": "a = agent(); waiting(); a.connect()",
    "aio listen": in_aio("waiting(); await aio.listen(name, servers=silent)"),
    "aio connect": in_aio("waiting(); await aio.connect(name, servers=server, wait=60)"),
    "aio connect_datagram": in_aio("waiting(); await aio.connect_datagram(name, servers=server, wait=60)"),
    "aio accept": in_aio("l = await aio.listen(name, servers=server)", "waiting(); await l.accept()"),
    "aio accept_datagram": in_aio("l = await aio.listen(name, servers=server)", "waiting(); await l.accept_datagram()"),
    "aio iteration": in_aio("l = await aio.listen(name, servers=server)", "waiting()", "async for s in l: pass"),
    "aio stream recv": in_aio("a, b = await aio_streams()", "waiting(); await a.recv()"),
    "aio stream recv with a timeout": in_aio("a, b = await aio_streams()", "waiting(); await a.recv(timeout=60)"),
    "aio sendall": in_aio("a, b = await aio_streams()", "waiting(); await a.sendall(bytes(1 << 26))"),
    "aio recv": in_aio("a, b = await aio_pair()", "waiting(); await b.recv()"),
    "aio end": in_aio("a = await aio_deaf()", "waiting(); await a.end()"),
    "2015 Client listens at a current server": 'waiting(); '
    'holepunch.client.Client(server=server, bind="127.0.0.1").open()',
    "2015 UDPClient listens at a current server": 'waiting(); '
    'holepunch.client.UDPClient(server=server, bind="127.0.0.1").open()',
    "2015 Client listens at a silent server": 's = mute(); waiting(); holepunch.client.Client(server=s).open()',
    "2015 UDPClient asks a silent server": 's = mute(); waiting(); holepunch.client.UDPClient(server=s).open("127.0.0.9")',
    "2015 Server.recv": 's = holepunch.client.Server(mute()); s.open(); waiting(); s.recv()',
    "2015 Client.recv": "a, b = socket.socketpair(); c = met(holepunch.client.Client(), a); waiting(); c.recv()",
    "2015 Client.send": "a, b = socket.socketpair(); c = met(holepunch.client.Client(), a); waiting(); "
    "c.send(bytes(1 << 26))",
    "2015 UDPClient.recv": "c = met(holepunch.client.UDPClient(), udp()); waiting(); c.recv()",
    "accept_datagram without a thread": "l = endpoint(thread=False).listen(name); waiting(); l.accept_datagram()",
}

WITHOUT_ROOM = {
    "send": "a, b = pair(); slow(); fill(a); waiting(); a.send(bytes(1200))",
    "send with a timeout": "a, b = pair(); slow(); fill(a); waiting(); a.send(bytes(1200), timeout=60)",
    "send with a cancel": "a, b = pair(); slow(); fill(a); waiting(); a.send(bytes(1200), cancel=holepunch.Cancel())",
    "aio send": in_aio("a, b = await aio_pair()", "slow()", "fill(a._native)", "waiting(); await a.send(bytes(1200))"),
}

ALONE = """
import ctypes, json, subprocess

# A network of its own, with a server; whose loopback device becomes slow.
if ctypes.CDLL(None).unshare(0x40000000) or subprocess.run(["ip", "link", "set", "lo", "up"]).returncode:
    print("no network of its own", flush=True)
    sys.exit()
command = [sys.executable, "-m", "holepunch", "--json", "server", "--host", "127.0.0.1", "--port", "0"]
# It is killed with this program (PR_SET_PDEATHSIG).
die = lambda: ctypes.CDLL(None).prctl(1, 9)
serving = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=die)
server = json.loads(serving.stderr.readline())["udp"][0]

def slow():
    queue = "root tbf rate 2kbit burst 3000 limit 64mb"
    subprocess.run(["tc", "qdisc", "add", "dev", "lo", *queue.split()], check=True)
"""


def sleeping(process: int) -> bool:
    """Whether the main thread of a process sleeps in the kernel."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def interrupted(command: "list[str]") -> "tuple[int, float, str]":
    """Starts a command, interrupts it when it waits; its status, the seconds it took to end, and what it wrote."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if line == "no network of its own\n":
            pytest.skip("no network of its own")
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
    assert seconds < AT_ONCE


@pytest.mark.parametrize("wait", WITHOUT_ROOM.values(), ids=WITHOUT_ROOM.keys())
def test_interrupt_where_there_is_no_room(name: str, wait: str) -> None:
    script = f"""{SETUP}{ALONE}
try:
    {wait}
except KeyboardInterrupt:
    import os
    os._exit(77)
"""
    status, seconds, complaints = interrupted([sys.executable, "-c", script, "", "", name])
    assert status == 77, complaints
    assert seconds < AT_ONCE


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
