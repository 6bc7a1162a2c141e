"""The program of the fan-out's workers, inside the cluster; see :mod:`harness.labs.cluster.fanout`.

``wait``
    what a worker's pod runs: tries whether the API server can be reached with the pod's service
    account, says so in a file that the pod's startup probe looks for, and waits for its end.
``serve``
    what the harness runs in that pod by exec: opens an exec stream to each client that it is told
    to, and passes on what either side says (:mod:`harness.labs.cluster.frames`). It ends with its
    input, so that nothing is left of a harness that has died.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.labs.base import LabError, Shell
from harness.labs.cluster import stream
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.connect import in_cluster
from harness.labs.cluster.frames import GREETING, FrameError, Kind, Messages, packed, read_target

READY = "/tmp/netpol-ready"  # noqa: S108 - in the container
_AT_ONCE = 8
#: For a role that was made a moment ago: API servers take it in when their watch tells them.
_ALLOWED_SECONDS = 10.0
_PAUSE = 0.1
_ENDED = 128 + signal.SIGTERM
_PIECE = 1 << 16

Open = Callable[[bytes], Shell]


class Worker:
    """One stream to the harness (two descriptors), and the shells of its share.

    ``opener`` opens the shell that an ``OPEN`` names; it may block and raise LabError.
    """

    def __init__(self, opener: Open, source: int, sink: int) -> None:
        self._opener = opener
        self._source, self._sink = source, sink
        self._messages = Messages()
        self._out = bytearray(GREETING)
        self._shells: dict[int, Shell] = {}
        self._opening: dict[int, list[bytes]] = {}  # what was said before the shell was there
        self._opened: deque[tuple[int, Shell | LabError]] = deque()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="open")
        self._selector = selectors.DefaultSelector()
        self._wake, self._nudge = socket.socketpair()
        self._over = False

    def run(self) -> None:
        """Until the harness has closed its end. Raises FrameError where it speaks otherwise."""
        for fd in (self._source, self._sink, self._wake.fileno()):
            os.set_blocking(fd, False)
        self._selector.register(self._source, selectors.EVENT_READ, self._take)
        self._selector.register(self._wake, selectors.EVENT_READ, self._take_opened)
        writing = False
        try:
            while not self._over:
                self._write()
                if bool(self._out) != writing:
                    writing = bool(self._out)
                    if writing:  # the harness reads slowly, and must be listened to meanwhile
                        self._selector.register(self._sink, selectors.EVENT_WRITE, self._write)
                    else:
                        self._selector.unregister(self._sink)
                for key, _ in self._selector.select():
                    key.data()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for shell in self._shells.values():
                shell.close()
            self._selector.close()
            self._wake.close()
            self._nudge.close()

    # -- the harness ---------------------------------------------------------------------------

    def _take(self) -> None:
        try:
            data = os.read(self._source, _PIECE)
        except BlockingIOError:
            return
        self._over = not data
        for kind, client, said in self._messages.feed(data):
            match kind:
                case Kind.OPEN:
                    self._opening[client] = []
                    self._pool.submit(self._open, client, said)
                case Kind.SAID if client in self._opening:
                    self._opening[client].append(said)
                case Kind.SAID:
                    self._say(client, said)
                case Kind.CLOSE:
                    self._opening.pop(client, None)
                    self._close(client)

    def _tell(self, kind: Kind, client: int, data: bytes = b"") -> None:
        self._out += packed(kind, client, data)

    def _write(self) -> None:
        """As much of what there is to tell as goes now: all of a turn in one piece."""
        try:
            while self._out:
                del self._out[: os.write(self._sink, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._over = True

    # -- the clients ---------------------------------------------------------------------------

    def _open(self, client: int, where: bytes) -> None:
        """In a thread: a handshake takes a while, and a hundred of them wait for one another."""
        opened: Shell | LabError
        try:
            opened = self._opener(where)
        except LabError as error:
            opened = error
        except (OSError, ValueError) as error:
            opened = LabError(f"no stream: {error}")
        self._opened.append((client, opened))
        with contextlib.suppress(OSError):  # it is over
            self._nudge.send(b"!")

    def _take_opened(self) -> None:
        self._wake.recv(_PIECE)
        while self._opened:
            client, shell = self._opened.popleft()
            waiting = self._opening.pop(client, None)
            if isinstance(shell, LabError):
                if waiting is not None:
                    self._tell(Kind.LOST, client, str(shell).encode())
            elif waiting is None:  # closed meanwhile
                shell.close()
            else:
                self._shells[client] = shell
                self._selector.register(shell, selectors.EVENT_READ, lambda c=client: self._hear(c))
                self._tell(Kind.OPENED, client)
                for said in waiting:
                    self._say(client, said)

    def _say(self, client: int, said: bytes) -> None:
        shell = self._shells.get(client)
        if shell is None:
            return  # it was lost, and that was told
        try:
            shell.send(said)
        except (LabError, OSError) as error:
            self._lose(client, str(error))

    def _hear(self, client: int) -> None:
        shell = self._shells.get(client)
        if shell is None:
            return  # lost in this very turn
        try:
            data = shell.receive()
        except (LabError, OSError) as error:
            self._lose(client, str(error))
            return
        if data:
            self._tell(Kind.HEARD, client, data)

    def _lose(self, client: int, why: str) -> None:
        self._close(client)
        self._tell(Kind.LOST, client, why.encode())

    def _close(self, client: int) -> None:
        shell = self._shells.pop(client, None)
        if shell is not None:
            self._selector.unregister(shell)
            shell.close()


def exec_shell(api: Api, where: bytes, seconds: float = _ALLOWED_SECONDS) -> stream.ExecShell:
    """The shell that an ``OPEN`` asks for. Raises LabError, FrameError."""
    namespace, pod, container, protocols = read_target(where)
    deadline = time.monotonic() + seconds
    while True:
        try:
            return stream.ExecShell(api, namespace, pod, container, protocols=protocols)
        except ApiError as error:
            if error.status != 403 or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def serve() -> int:
    """Serve the harness on standard input and output. Nobody reads the errors from there on."""
    api = in_cluster()
    os.dup(2)  # stays open: containerd takes the end of either output for the end of all
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with contextlib.suppress(FrameError):  # the harness is of another version: it is told enough
        Worker(lambda where: exec_shell(api, where), 0, 1).run()
    return 0


def wait() -> int:
    """See whether the API server answers, say so, and wait for SIGTERM."""
    api = in_cluster()
    version = api.request("GET", "/version")["gitVersion"]
    index = os.environ.get("JOB_COMPLETION_INDEX", "0")
    print(f"worker {index}: {api.server}, Kubernetes {version}, can be reached", flush=True)
    # Not 0: that would be the end of its share for the Job, which is to make another worker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    Path(READY).touch()
    while True:
        signal.pause()


def main(argv: Sequence[str]) -> int:
    """The program. What is wrong is told on standard error, in one line."""
    known = {"serve": serve, "wait": wait}
    if len(argv) != 1 or argv[0] not in known:
        print(f"usage: python -m harness.labs.cluster.worker {'|'.join(known)}", file=sys.stderr)
        return 2
    try:
        return known[argv[0]]()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
