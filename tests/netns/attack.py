"""A client that tries forbidden connections all the time, hundreds in a second.

Run as a program in the client's network namespace, with the addresses to try at port 80. It ends
when something comes on its standard input, and prints how often it tried and how often it got
through. Standard error has a line each time it gets through, with the time on the monotonic clock.
"""

from __future__ import annotations

import select
import socket
import sys
import time

MOST = 200  # unanswered attempts that are kept open


def main(targets: list[str]) -> None:
    """Until the end of the input."""
    tried = got = 0
    poll = select.epoll()
    poll.register(0, select.EPOLLIN)
    waiting: dict[int, socket.socket] = {}
    print("begun", flush=True)
    while True:
        for address in targets:
            end = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            end.setblocking(False)
            end.connect_ex((address, 80))
            waiting[end.fileno()] = end
            poll.register(end, select.EPOLLOUT)
            tried += 1
        for fd, _ in poll.poll(0.002):
            if fd == 0:
                print(tried, got, flush=True)
                return
            poll.unregister(fd)
            end = waiting.pop(fd)
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                got += 1
                print(f"through to {end.getpeername()[0]} at {time.monotonic()}", file=sys.stderr)
            end.close()
        while len(waiting) > MOST:
            waiting.pop(next(iter(waiting))).close()
        time.sleep(0.001)


if __name__ == "__main__":
    main(sys.argv[1:])
