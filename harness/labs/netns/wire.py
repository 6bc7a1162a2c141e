"""Messages between the lab and its holder: one JSON object a message, with file descriptors.

A message on the stream socket is a 4-byte length and a JSON object; the descriptors that belong
to it travel with its first byte (SCM_RIGHTS), and ``"fds"`` says how many they are.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_LENGTH = struct.Struct("!I")
_MAX_FDS = 200


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; blocks until the peer has room for it."""
    body = json.dumps({**message, "fds": len(fds)} if fds else message).encode()
    data = _LENGTH.pack(len(body)) + body
    sent = 0
    if fds:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        sent = sock.sendmsg([data], [rights])
    if rest := data[sent:]:  # else the peer may have done it all, and closed, by now
        sock.sendall(rest)


class Receiver:
    """Cuts what arrives on a socket into messages, each with its descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self._fds: list[int] = []

    def read(self) -> bool:
        """Take in what is there (waits on a blocking socket). False: the peer is gone."""
        size = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._sock.recvmsg(1 << 18, size, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(payload[: len(payload) - len(payload) % rights.itemsize])
                self._fds.extend(rights)
        self._data += data
        return bool(data)

    def messages(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """The messages that are complete, in order."""
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if len(self._data) < _LENGTH.size + length:
                return
            message = json.loads(self._data[_LENGTH.size : _LENGTH.size + length])
            del self._data[: _LENGTH.size + length]
            count = message.pop("fds", 0)
            fds, self._fds = self._fds[:count], self._fds[count:]
            yield message, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors, those that are closed already too."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
