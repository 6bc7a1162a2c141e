"""A client's long-lived shell: a socket to a busybox ``sh`` in its box."""

from __future__ import annotations

import socket

from harness.labs.base import ShellLostError
from harness.labs.netns.client import Holder, Process

ENVIRONMENT = {"PATH": "/run/netpol/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PS1": "", "HOME": "/run"}
"""As in a busybox image: its own applets come first."""


class NetnsShell:
    """Implements :class:`harness.labs.base.Shell`."""

    def __init__(self, holder: Holder, box: str, name: str) -> None:
        self._name = name
        self._socket, theirs = socket.socketpair()
        try:
            fd = theirs.fileno()
            self._process: Process = holder.spawn(
                box, ["busybox", "sh"], stdin=fd, stdout=fd, stderr=fd, env=ENVIRONMENT, cwd="/run"
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.setblocking(False)
        self._closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Write shell text; waits while the shell is busy reading (at most 10 s)."""
        self._socket.settimeout(10)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(str(error)) from error
        finally:
            if not self._closed:
                self._socket.setblocking(False)

    def receive(self) -> bytes:
        """What has arrived. Raises ShellLostError when the shell has ended."""
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._lost(str(error)) from error
        if not data:
            raise self._lost("it has ended")
        return data

    def close(self) -> None:
        """End the shell and what it has started."""
        self._closed = True
        self._socket.close()
        self._process.close()

    def _lost(self, why: str) -> ShellLostError:
        return ShellLostError(
            f"the shell in {self._name} is gone: {why}",
            hint="the pod was deleted or finished, or the lab's holder process died",
        )
