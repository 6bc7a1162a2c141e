"""The harness's end of a worker's stream, and the shells of many clients that share it."""

from __future__ import annotations

import itertools
import selectors
import time
from collections.abc import Iterable

from harness.labs.base import LabError, Shell, ShellLostError
from harness.labs.cluster.frames import GREETING, FrameError, Kind, Messages, packed

OPEN_SECONDS = 60.0
_PIECE = 1 << 18
"""Bytes of one write: servers need not take messages of any size."""
_EARLY = 4000


class WorkerLine:
    """Implements :class:`harness.labs.base.Line` over ``stream``, a shell that runs the worker's
    program. ``name``: what errors call the worker."""

    def __init__(self, stream: Shell, name: str) -> None:
        self.name = name
        self.held = False
        self.over = ""
        """Why the stream has ended, or ""."""
        self._stream = stream
        self._fd = stream.fileno()
        self._messages = Messages()
        self._early: bytearray | None = bytearray()  # until the worker has greeted
        self._out: list[bytes] = []
        self._numbers = itertools.count(1)
        self._shells: dict[int, WorkerShell] = {}
        self._news: dict[WorkerShell, None] = {}

    @property
    def load(self) -> int:
        """How many shells it has."""
        return len(self._shells)

    def fileno(self) -> int:
        return self._fd

    def open(self, client: str, target: bytes) -> WorkerShell:
        """Ask for a shell; it is there when it is ``opened``, and not to be had if ``why`` is
        told: see :func:`wait_open`. Raises ShellLostError where the worker is gone."""
        if self.over:
            raise ShellLostError(self.over)
        number = next(self._numbers)
        shell = self._shells[number] = WorkerShell(self, number, client)
        self.say(Kind.OPEN, number, target)
        return shell

    def say(self, kind: Kind, number: int, data: bytes = b"") -> None:
        """Send a message now, or with the next :meth:`flush` if the line is held."""
        if kind is Kind.CLOSE:
            shell = self._shells.pop(number, None)
            if shell is not None:
                self._news.pop(shell, None)
        self._out.append(packed(kind, number, data))
        if not self.held:
            self.flush()

    def flush(self) -> None:
        """Send what waits. A stream that is gone is told by :meth:`news`."""
        if not self._out:
            return
        data, self._out = b"".join(self._out), []
        try:
            for at in range(0, len(data) if not self.over else 0, _PIECE):
                self._stream.send(data[at : at + _PIECE])
        except (LabError, OSError) as error:
            self.read()  # its last words, if it had any
            self._end(str(error))

    def news(self) -> list[Shell]:
        """Read the stream; the shells that have something to receive."""
        self.read()
        found, self._news = self._news, {}
        return list(found)

    def read(self) -> None:
        """Give what has come to the shells that it is for."""
        if self.over:
            return
        try:
            data = self._stream.receive()
            for kind, number, said in self._messages.feed(self._after_greeting(data)):
                shell = self._shells.get(number)
                if shell is None:
                    continue  # it was closed meanwhile
                if kind is Kind.OPENED:
                    shell.opened = True
                    continue
                if kind is Kind.HEARD:
                    shell.buffer += said
                elif kind is Kind.LOST:
                    shell.why = said.decode(errors="replace")
                    del self._shells[number]
                self._news[shell] = None
        except (LabError, OSError, FrameError) as error:
            self._end(str(error))

    def close(self) -> None:
        """End the worker's program, and with it all of its shells."""
        self._end("the fan-out was closed")
        self._stream.close()

    def _after_greeting(self, data: bytes) -> bytes:
        if self._early is None:
            return data
        self._early += data
        _, greeting, after = self._early.partition(GREETING)
        if not greeting:
            if len(self._early) > _EARLY:
                raise FrameError("what runs in it is not the worker's program")
            return b""
        self._early = None
        return bytes(after)

    def _end(self, why: str) -> None:
        if self.over:
            return
        self.over = f"{self.name} is gone: {why}"
        if self._early:
            self.over += f"; it had said: {self._early.decode(errors='replace').strip()[-500:]}"
        for shell in self._shells.values():
            shell.why = self.over
            self._news[shell] = None
        self._shells = {}


class WorkerShell:
    """Implements :class:`harness.labs.base.Shell`: a client's shell by way of a worker."""

    def __init__(self, line: WorkerLine, number: int, client: str) -> None:
        self.line = line
        self.client = client
        self.opened = False
        self.why = ""
        self.buffer = bytearray()
        self._number = number

    def fileno(self) -> int:
        return self.line.fileno()

    def send(self, data: bytes) -> None:
        """Write shell text. Raises ShellLostError."""
        if self.why:
            raise ShellLostError(self.why)
        self.line.say(Kind.SAID, self._number, data)

    def receive(self) -> bytes:
        """What has arrived. Raises ShellLostError at the end."""
        if not self.buffer and not self.why and not self.line.held:
            self.line.read()
        if self.why and not self.buffer:
            raise ShellLostError(self.why)
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def close(self) -> None:
        """Let the worker close its stream."""
        if not self.why:
            self.why = f"the shell in {self.client} was closed"
            self.line.say(Kind.CLOSE, self._number)


def wait_open(shells: Iterable[WorkerShell], seconds: float = OPEN_SECONDS) -> None:
    """Until each of them is open, or told why it cannot be had; ``seconds`` in which there is news
    of none of them are why as well."""
    left = set(shells)
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for line in {shell.line for shell in left}:
            selector.register(line.fileno(), selectors.EVENT_READ, line)
        while True:
            for key in selector.get_map().values():
                key.data.flush()
                key.data.read()
            before, left = left, {one for one in left if not (one.opened or one.why)}
            now = time.monotonic()
            deadline = now + seconds if len(left) < len(before) else deadline
            remaining = deadline - now
            if not left or remaining <= 0:
                break
            selector.select(remaining)
    for shell in left:
        shell.close()
        shell.why = f"{shell.line.name} has not opened {shell.client} within {seconds:g} s"
