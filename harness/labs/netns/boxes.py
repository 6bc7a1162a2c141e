"""What the holder remembers: boxes, requests to make them, and the processes that stay in them."""

from __future__ import annotations

import os
from collections.abc import Callable

from harness.labs.netns import furnish
from harness.labs.netns import syscalls as sys_
from harness.labs.netns.furnish import say


class Box:
    """Namespaces held by descriptors (order of ``furnish.KINDS``)."""

    def __init__(self, fds: list[int], shares_net: bool) -> None:
        self.fds = fds
        self.shares_net = shares_net
        self.server: Server | None = None

    def enter(self) -> None:
        for fd, (_, flag) in zip(self.fds, furnish.KINDS, strict=True):
            sys_.setns(fd, flag)

    def ids(self) -> set[tuple[str, int]]:
        """Kind and inode of what is this box's alone: who lives in there belongs to it."""
        return {
            (kind, os.fstat(fd).st_ino)
            for fd, (kind, _) in zip(self.fds, furnish.KINDS, strict=True)
            if kind == "mnt" or (kind == "net" and not self.shares_net)
        }


class Make:
    """A ``make`` request under way."""

    def __init__(self, request: int, left: int) -> None:
        self.request = request
        self.left = left
        self.errors: dict[str, str] = {}


class Server:
    """The process that stays in a box, and what it says on standard error."""

    def __init__(self, box: str, pid: int, fd: int) -> None:
        self.box = box
        self.pid = pid
        self.fd = fd
        self.code: int | None = None
        self.wanted = True
        self._said = ""
        self._until = ""
        self._then: Callable[[str], None] | None = None
        os.set_blocking(fd, False)

    def wait_for(self, text: str, then: Callable[[str], None]) -> None:
        """Call ``then("")`` once it has said ``text``, or with an error when it ends before."""
        self._said, self._until, self._then = "", text, then

    def hear(self) -> bool:
        """Read all that it has said; False at the end."""
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._take(data.decode(errors="replace"))

    def _take(self, text: str) -> None:
        for line in text.splitlines():
            if "[notice]" not in line:  # nginx tells much at this level, readiness among it
                say(f"{self.box}: {line}")
        if self._then:
            self._said += text
            if self._until in self._said:
                self._done("")

    def ended(self, code: int) -> None:
        """It was reaped."""
        self.code = code
        if self.fd >= 0:
            self.hear()  # its last words
        if self.wanted:
            say(f"{self.box}: its process ended with {code}")
        self._done(self._said.strip() or f"its process ended with {code}")

    def _done(self, error: str) -> None:
        then, self._then = self._then, None
        if then:
            then(error)
