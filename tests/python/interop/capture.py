"""Writes every packet of an interface to a file, until its input ends: capture.py INTERFACE FILE

dumpcap, ended while packets wait in the system's buffer, loses them; here what waits is written first.
"""

import select
import socket
import struct
import sys
import time

ETHERTYPE_ALL = 3
LINKTYPE_ETHERNET = 1

with open(sys.argv[2], "wb") as file, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind((sys.argv[1], ETHERTYPE_ALL))
    file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, LINKTYPE_ETHERNET))
    print("ready", flush=True)
    ended = False
    while True:
        readable, _, _ = select.select([sock] if ended else [sock, sys.stdin], [], [], 0 if ended else None)
        if sock in readable:
            packet, now = sock.recv(65_535), time.time()
            file.write(struct.pack("=IIII", int(now), int(now % 1 * 1e6), len(packet), len(packet)) + packet)
        elif ended:
            break
        else:
            ended = True
