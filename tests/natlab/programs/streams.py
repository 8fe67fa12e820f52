"""A stream in Python: `listen NAME` echoes one peer's, `connect NAME` sends more than a window and wants all of it back.

The server comes from HOLEPUNCH_SERVER.
"""

import sys
import threading

import holepunch

SIZE = 1_000_000


def receive(stream: holepunch.Stream) -> bytes:
    received = bytearray()
    while data := stream.recv(timeout=20):
        received += data
    return bytes(received)


def main(role: str, name: str) -> None:
    if role == "listen":
        with holepunch.listen(name) as listener:
            print("ready", file=sys.stderr, flush=True)
            stream = listener.accept(timeout=30)
    else:
        stream = holepunch.connect(name)
    with stream:
        print(f"connected to {stream.path.remote}", file=sys.stderr, flush=True)
        if role == "listen":
            stream.sendall(receive(stream), timeout=20)
            stream.shutdown()
            return
        data = bytes(index % 251 for index in range(SIZE))
        sender = threading.Thread(target=lambda: (stream.sendall(data, timeout=20), stream.shutdown()))
        sender.start()
        same = receive(stream) == data
        sender.join()
        print("the same" if same else "not the same")


if __name__ == "__main__":
    main(*sys.argv[1:])
