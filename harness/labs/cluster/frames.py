"""Many clients' shells over one byte stream: what the harness and a worker say. Pure.

A message is a kind, the number of a client and data. Messages follow one another without anything
between them, so that as many as there are at a time go out in one write: on an exec stream that is
one WebSocket message for a hundred clients, where each client's own stream would have its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

#: What a worker says first. All before it is what went wrong while its program started.
GREETING = b"netpol fan-out 1\n"

_HEAD = struct.Struct(">BII")
_LONGEST = 1 << 26


class Kind(IntEnum):
    """``OPEN`` (data: :func:`target`), ``SAID`` and ``CLOSE`` go to a worker; ``OPENED``,
    ``HEARD`` and ``LOST`` (data: why) come from it."""

    OPEN = 1
    SAID = 2
    CLOSE = 3
    OPENED = 4
    HEARD = 5
    LOST = 6


class Message(NamedTuple):
    """``client`` is a number that is never used for another client of the same stream."""

    kind: Kind
    client: int
    data: bytes = b""


class FrameError(ValueError):
    """What came is no message: one end speaks something else."""


def packed(kind: Kind, client: int, data: bytes = b"") -> bytes:
    """A message as bytes."""
    return _HEAD.pack(kind, client, len(data)) + data


class Messages:
    """Takes a stream apart: bytes in, messages out, in whatever pieces they come."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete now. Raises FrameError."""
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= _HEAD.size:
                kind, client, length = _HEAD.unpack_from(self._rest, at)
                if not Kind.OPEN <= kind <= Kind.LOST or length > _LONGEST:
                    raise FrameError(f"no message begins with {bytes(self._rest[at : at + 40])!r}")
                end = at + _HEAD.size + length
                if len(self._rest) < end:
                    break
                data = bytes(self._rest[at + _HEAD.size : end])
                at = end
                yield Message(Kind(kind), client, data)
        finally:
            del self._rest[:at]


def target(namespace: str, pod: str, container: str, protocols: tuple[str, ...]) -> bytes:
    """Which container to open a shell in, and the subprotocols of exec streams, the best first."""
    return "\n".join((namespace, pod, container, *protocols)).encode()


def read_target(data: bytes) -> tuple[str, str, str, tuple[str, ...]]:
    """What :func:`target` has written. Raises FrameError."""
    words = data.decode(errors="replace").split("\n")
    namespace, pod, container, *protocols = [*words, "", ""]
    if not (namespace and pod and container):
        raise FrameError(f"no container is named by {data!r}")
    return namespace, pod, container, tuple(filter(None, protocols))
