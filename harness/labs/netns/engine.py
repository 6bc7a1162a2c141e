"""A policy engine in a node: a process that reads change events and programs the kernel.

Events are JSON lines on its standard input, acknowledgements JSON lines on its standard output::

    {"seq": 7, "type": "ADDED", "object": {…}}     ADDED, MODIFIED, DELETED; SYNCED has no object
    {"seq": 7, "ok": true, "seconds": 0.004, "errors": []}

An acknowledgement means that everything up to ``seq`` is in force in this node's kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.labs.base import LabError
from harness.labs.netns.client import Holder
from harness.labs.netns.topology import node_box

ACKNOWLEDGE_SECONDS = 60.0


def argv_for(argv: Sequence[str], placeholders: Mapping[str, str]) -> list[str]:
    """A command line with ``{node}``, ``{dataplane}`` … filled in; other braces stay."""
    filled = list(argv)
    for name, value in placeholders.items():
        filled = [argument.replace("{" + name + "}", value) for argument in filled]
    return filled


class Engine:
    """One engine process. Its standard error goes to ``log``."""

    def __init__(
        self,
        holder: Holder,
        node: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.node = node
        self.log = log
        self.seconds: list[float] = []
        """How long it took for each acknowledgement, by its own account."""
        self._told = 0
        self._acknowledged = 0
        self._errors: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        theirs_in, self._stdin = os.pipe()
        self._stdout, theirs_out = os.pipe()
        os.set_blocking(self._stdin, False)
        with log.open("ab") as stderr:
            try:
                self.process = holder.spawn(
                    node_box(node),
                    argv,
                    stdin=theirs_in,
                    stdout=theirs_out,
                    stderr=stderr.fileno(),
                    env=env,
                )
            finally:
                os.close(theirs_in)
                os.close(theirs_out)
        self._reader = threading.Thread(target=self._read, name=f"engine-{node}", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return not self._ended and self.process.poll() is None

    def send(self, lines: bytes, seq: int) -> None:
        """Write events, ``seq`` the last of them. LabError when it is dead or does not read."""
        self._told = seq
        deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
        writable = select.poll()
        writable.register(self._stdin, select.POLLOUT)
        rest = memoryview(lines)
        while rest:
            try:
                rest = rest[os.write(self._stdin, rest[: 1 << 16]) :]
            except BlockingIOError:
                left = max(0.0, deadline - time.monotonic())
                if not writable.poll(left * 1000):
                    raise self._trouble("does not read its events") from None
            except OSError:
                raise self._trouble("has ended") from None

    def wait(self) -> None:
        """Wait until everything that it was told is in force. Raises LabError."""
        seq, timeout = self._told, ACKNOWLEDGE_SECONDS
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._errors or self._acknowledged >= seq, timeout
            )
            if self._errors:
                errors, self._errors = self._errors, []
                raise self._trouble("reports errors: " + "; ".join(errors))
            if self._acknowledged >= seq:
                return
        raise self._trouble("has ended" if self._ended else f"has not answered for {timeout:g} s")

    def check(self) -> None:
        """Raises LabError where it has ended: what its rules let through says nothing of it."""
        if not self.alive:
            raise self._trouble("has ended")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it."""
        self.process.signal(number)

    def close(self) -> None:
        """End it."""
        self.abandon()
        self.process.close()
        self._reader.join(5)

    def abandon(self) -> None:
        """Let go of it without waiting: the whole lab is about to end."""
        fd, self._stdin = self._stdin, -1
        if fd >= 0:
            os.close(fd)

    def complaints(self, lines: int = 30) -> str:
        """The last lines of its standard error."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _read(self) -> None:
        with os.fdopen(self._stdout, "rb") as stdout:
            for line in stdout:
                try:
                    answer = json.loads(line)
                    seq, ok = int(answer["seq"]), bool(answer["ok"])
                except (ValueError, KeyError, TypeError):
                    seq, ok, answer = 0, False, {"errors": [f"says {line!r}"]}
                with self._changed:
                    self._acknowledged = max(self._acknowledged, seq)
                    self.seconds.append(float(answer.get("seconds", 0.0)))
                    if not ok:
                        self._errors += [str(e) for e in answer.get("errors") or ["(no reason)"]]
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _trouble(self, what: str) -> LabError:
        return LabError(
            f"the policy engine on {self.node} {what} ({' '.join(self.process.argv)})",
            hint=f"its standard error is in {self.log}",
            detail=self.complaints(),
        )
