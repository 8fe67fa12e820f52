"""One end of a path for datagrams in Python: a worker of benches/datapath.rs, which says what it is asked and why.

    python datapath.py plain | connected | listen MODE SERVER | connect MODE SERVER
"""

import math
import select
import socket
import sys

import holepunch

WINDOW = 64
EVERY = 16


def say(line):
    print(line, flush=True)


def open_socket():
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    say(own.getsockname()[1])
    return own, ("127.0.0.1", int(sys.stdin.readline()))


def plain():
    own, peer = open_socket()
    return lambda data: own.sendto(data, peer), lambda: own.recvfrom(1200)[0]


def connected():
    own, peer = open_socket()
    own.connect(peer)
    return own.send, lambda: own.recv(1200)


def listen(mode, server):
    endpoint = holepunch.Endpoint(server, bind="127.0.0.1:0", thread=mode == "thread")
    listener = endpoint.listen_datagram(mode)
    say("listening")
    return ways_of(mode, endpoint, listener.accept_datagram(timeout=30))


def connect(mode, server):
    endpoint = holepunch.Endpoint(server, bind="127.0.0.1:0", thread=mode == "thread")
    return ways_of(mode, endpoint, endpoint.connect_datagram(mode))


def ways_of(mode, endpoint, connection):
    if mode == "thread":
        return connection.send, lambda: connection.recv(1200)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(endpoint, select.POLLIN)

    def receive():
        while True:
            try:
                return connection.recv(1200, timeout=0)
            except TimeoutError:
                wait(poll, endpoint, connection.fileno())

    return connection.send, receive


def wait(poll, endpoint, readable):
    """Waits until the connection is readable, and drives the endpoint, which has no thread."""
    while True:
        timeout = endpoint.next_timeout()
        ready = [fd for fd, _ in poll.poll(None if timeout is None else math.ceil(timeout * 1000))]
        if ready != [readable]:
            endpoint.process()
        if readable in ready:
            return


def read_acknowledgement(receive):
    """Waits for an acknowledgement: how many datagrams have arrived."""
    return int.from_bytes(receive()[1:], "big")


def send_all(send, receive, size, count):
    datagram = b"x" * size
    acknowledged = 0
    for sent in range(count):
        while sent - acknowledged >= WINDOW:
            acknowledged = read_acknowledgement(receive)
        send(datagram)
    while acknowledged < count:
        acknowledged = read_acknowledgement(receive)


def receive_all(send, receive, size, count):
    for received in range(1, count + 1):
        assert len(receive()) == size
        if received % EVERY == 0 or received == count:
            send(b"a" + received.to_bytes(7, "big"))


def main():
    ways = {"plain": plain, "connected": connected, "listen": listen, "connect": connect}
    send, receive = ways[sys.argv[1]](*sys.argv[2:])
    say("ready")
    for line in sys.stdin:
        verb, size, count = line.split()
        work = send_all if verb == "send" else receive_all
        work(send, receive, int(size), int(count))
        say("done")


main()
