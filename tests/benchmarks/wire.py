"""Programs for the ends of a wire: what is measured, is measured between two network namespaces.

* ``serve``: takes connections at port 80 and closes them, until its input ends.
* ``beat ADDRESS SECONDS``: tries a new connection each so many seconds, whatever became of those
  before, until its input ends; prints ``[[begun, established or null], …]``, monotonic clock.
* ``cost CLIENT SERVER ADDRESS ROUNDS``: connects from one namespace (a path) into another, one
  connection after the other; prints the seconds of processor time (both ends and the node between
  them) of a connection, one figure a round.
* ``stream CLIENT SERVER ADDRESS SECONDS``: sends over one connection; prints bytes a second of
  processor time, and bytes a second.

Processor time, because it is the same on a machine that others use as well.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import threading
import time

PORT = 80
PATIENCE = 0.25  # seconds: an attempt that has no answer by then is given up
ROUND = 50  # connections
CLONE_NEWNET = 0x40000000
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, and leaves nothing behind


def serve() -> None:
    with socket.create_server(("0.0.0.0", PORT), backlog=4096) as server:
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([0, server.fileno()], [], [])
            if 0 in ready:
                return
            # Not reset: conntrack would take the next connection from that port for this one.
            server.accept()[0].close()


def beat(address: str, seconds: float) -> None:
    poll = select.epoll()
    poll.register(0, select.EPOLLIN)
    waiting: dict[int, tuple[socket.socket, list[float | None]]] = {}
    found: list[list[float | None]] = []
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= due:
            end = socket.socket()
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            entry: list[float | None] = [time.monotonic(), None]
            end.connect_ex((address, PORT))
            found.append(entry)
            waiting[end.fileno()] = end, entry
            poll.register(end, select.EPOLLOUT)
            due = max(due + seconds, now - 10 * seconds)
        for fd, _ in poll.poll(max(0.0, due - time.monotonic())):
            if fd == 0:
                print(json.dumps(found), flush=True)
                return
            end, entry = waiting.pop(fd)
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNRESET):
                entry[1] = time.monotonic()
            end.close()
        while waiting:
            fd, (end, entry) = next(iter(waiting.items()))
            if (entry[0] or 0.0) + PATIENCE > now:
                break
            waiting.pop(fd)
            end.close()


def enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {path}")
    os.close(fd)


def cost(client: str, server: str, address: str, rounds: int) -> None:
    enter(server)
    listener = socket.create_server((address, PORT), backlog=ROUND)
    enter(client)
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(ROUND):
            end = socket.socket()
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.connect((address, PORT))
            other, _ = listener.accept()
            end.close()
            other.close()
        found.append((time.process_time() - begun) / ROUND)
    print(json.dumps(found))


def stream(client: str, server: str, address: str, seconds: float) -> None:
    enter(server)
    listener = socket.create_server((address, PORT))
    enter(client)
    end = socket.create_connection((address, PORT))
    other, _ = listener.accept()
    got = 0

    def receive() -> None:
        nonlocal got
        buffer = bytearray(1 << 18)
        while size := other.recv_into(buffer):
            got += size

    receiver = threading.Thread(target=receive)
    receiver.start()
    block = bytes(1 << 18)
    begun, used = time.monotonic(), time.process_time()
    while time.monotonic() < begun + seconds:
        end.sendall(block)
    end.shutdown(socket.SHUT_WR)
    receiver.join()
    print(got / (time.process_time() - used), got / (time.monotonic() - begun))


def main(what: str, *words: str) -> None:
    match what, words:
        case "serve", ():
            serve()
        case "beat", (address, seconds):
            beat(address, float(seconds))
        case "cost", (client, server, address, rounds):
            cost(client, server, address, int(rounds))
        case "stream", (client, server, address, seconds):
            stream(client, server, address, float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
