"""Whether a container really answers: looked at from inside of its own network namespace.

From there no policy and no other node can be in the way; a kubelet's own probes come from the
node, which NetworkPolicy lets through as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

Sockets = Callable[[int, int], socket.socket]
"""(address family, socket kind) -> a socket in the network namespace in question; OSError."""

_QUIET = 0.2
"""Seconds after which a datagram that nobody has refused counts as taken."""
_POLL = 0.02


async def until(answers: Callable[[], object], pause: float = _POLL) -> None:
    """Ask again and again; ``answers`` is a coroutine function that returns a truth value."""
    while not await answers():  # type: ignore[misc]
        await asyncio.sleep(pause)


async def tcp(sockets: Sockets, address: str, port: int, seconds: float = 1.0) -> bool:
    """Whether somebody takes connections there."""
    made = await connect(sockets, address, port, seconds)
    if made is None:
        return False
    made.close()
    return True


async def connect(
    sockets: Sockets, address: str, port: int, seconds: float
) -> socket.socket | None:
    """A connection, or None if there is none to be had."""
    loop = asyncio.get_running_loop()
    try:
        made = sockets(_family(address), socket.SOCK_STREAM)
    except OSError:
        return None
    made.setblocking(False)
    try:
        await asyncio.wait_for(loop.sock_connect(made, (address, port)), seconds)
    except (OSError, TimeoutError):
        made.close()
        return None
    except BaseException:
        made.close()
        raise
    return made


async def udp(sockets: Sockets, address: str, port: int) -> bool:
    """Whether a datagram is answered, or at least not refused."""
    loop = asyncio.get_running_loop()
    try:
        made = sockets(_family(address), socket.SOCK_DGRAM)
    except OSError:
        return False
    with contextlib.closing(made):
        made.setblocking(False)
        try:
            await loop.sock_connect(made, (address, port))
            await loop.sock_sendall(made, b"ready?\n")
            await asyncio.wait_for(loop.sock_recv(made, 2048), _QUIET)
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


async def http(
    sockets: Sockets, address: str, port: int, path: str, host: str, seconds: float
) -> bool:
    """Whether a GET is answered with a status from 200 to 399, as ``httpGet`` probes want it."""
    made = await connect(sockets, address, port, seconds)
    if made is None:
        return False
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe\r\n"
    with contextlib.closing(made):
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(made, (request + "Connection: close\r\n\r\n").encode())
                answer = b""
                while b"\r\n" not in answer:
                    data = await loop.sock_recv(made, 4096)
                    if not data:
                        return False
                    answer += data
        except (OSError, TimeoutError):
            return False
    words = answer.split(b"\r\n", 1)[0].split()
    return len(words) > 1 and words[1].isdigit() and 200 <= int(words[1]) < 400


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
