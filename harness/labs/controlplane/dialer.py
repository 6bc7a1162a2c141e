"""Sockets inside the lab for programs outside of it, with nothing listening on the host.

A socket belongs for good to the network namespace that it was made in, wherever its descriptor
goes. So one small process in the lab makes sockets in any of its network namespaces and hands
them out over a socket pair; whoever gets one connects, binds and listens as if it were there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from harness.labs.netns import wire
from harness.labs.netns.client import Holder, Process

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from harness.labs.controlplane.dialer import serve; serve()"
)
_ANSWER_SECONDS = 30.0


class Dialer:
    """Makes sockets in the network namespaces of one lab. Any thread may call it."""

    def __init__(self, holder: Holder) -> None:
        ours, theirs = socket.socketpair()
        with theirs, Path(os.devnull).open("wb") as null:
            self._process: Process = holder.spawn(
                "",
                [sys.executable, "-S", "-c", _START, _ROOT],
                stdin=theirs.fileno(),
                stdout=null.fileno(),
                stderr=null.fileno(),
            )
        ours.settimeout(_ANSWER_SECONDS)
        self._socket = ours
        self._receiver = wire.Receiver(ours)
        self._lock = threading.Lock()

    def open(self, namespace: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A new socket in a network namespace of the lab.

        ``namespace`` is a path as the lab's processes see it: ``/run/netns/NODE``, or
        ``/proc/PID/ns/net`` of a process. Raises OSError if there is no such namespace (any
        more), LabError if the lab is gone.
        """
        with self._lock:
            try:
                request = {"namespace": namespace, "family": int(family), "kind": int(kind)}
                wire.send(self._socket, request)
                answer, fds = self._answer()
            except OSError as error:
                raise LabError(
                    f"no socket can be had from the embedded lab: {error.strerror or error}",
                    hint="its holder process has died, or was asked to end",
                ) from None
        if "errno" in answer:
            raise OSError(answer["errno"], f"{namespace}: {os.strerror(answer['errno'])}")
        return socket.socket(fileno=fds[0])

    def open_on(self, node: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A new socket in a node's network namespace."""
        return self.open(f"/run/netns/{node}", family, kind)

    def connect(self, node: str, address: str, port: int, timeout: float = 10.0) -> socket.socket:
        """A connection from a node. Raises OSError as connecting does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.open_on(node, family)
        try:
            made.settimeout(timeout)
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def listen(self, node: str, address: str, port: int) -> socket.socket:
        """A listening TCP socket on a node. Raises OSError as binding does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.open_on(node, family)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            made.listen(128)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """End the process. Sockets that it has made live on."""
        with contextlib.suppress(OSError):
            self._socket.close()
        with contextlib.suppress(OSError, LabError):
            self._process.close()

    def _answer(self) -> tuple[dict[str, Any], list[int]]:
        while True:
            for answer in self._receiver.messages():
                return answer
            if not self._receiver.read():
                raise ConnectionResetError("its dialer has ended")


def serve() -> None:
    """The process in the lab: answers on descriptor 0 until the other side closes it.

    Another thread does it, because a namespace is entered by one thread alone: to the holder,
    which ends whoever is in a pod that goes, this process stays where it was started.
    """
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()


def _serve() -> None:
    from harness.labs.netns import syscalls

    peer = socket.socket(fileno=0)
    receiver = wire.Receiver(peer)
    while receiver.read():
        for request, _ in receiver.messages():
            try:
                fd = os.open(request["namespace"], os.O_RDONLY)
                try:
                    syscalls.setns(fd, syscalls.CLONE_NEWNET)
                finally:
                    os.close(fd)
                made = socket.socket(request["family"], request["kind"])
            except OSError as error:
                wire.send(peer, {"errno": error.errno})
                continue
            wire.send(peer, {}, [made.fileno()])
            made.close()
