"""Where playgrounds are remembered: a folder for each, which nobody but its user can enter.

A lab is up for as long as its keeper (:mod:`harness.play.keeper`) holds the lock on the file
``lock``: the kernel lets go of it however the keeper ends, so nothing that is stale looks alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.labs import folders
from harness.labs.base import LabError

DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class PlayError(LabError):
    """What was asked for cannot be done with the playgrounds that there are."""


def base(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of all labs: below ``$XDG_STATE_HOME``, or else ``~/.local/state``."""
    return folders.state(environ) / "labs"


@dataclass(frozen=True, slots=True)
class Home:
    """One lab's folder. It may not exist."""

    name: str
    directory: Path

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def log(self) -> Path:
        """What the keeper complains of."""
        return self.directory / "keeper.log"

    def make(self) -> int:
        """Make the folder and take its lock: the descriptor. Raises PlayError if it is taken."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PlayError(
                f"{error.filename}: {error.strerror}: a lab cannot be remembered there",
                hint="set XDG_STATE_HOME to a folder of yours",
            ) from None
        if _lock(lock):
            return lock
        os.close(lock)
        raise PlayError(
            f"lab {self.name} is up already",
            hint=f"`netpol lab down --name {self.name}` ends it; --name gives another one a name",
        )

    def is_up(self) -> bool:
        """Whether its keeper lives."""
        with self.ending() as ended:
            return not ended()

    @contextlib.contextmanager
    def ending(self) -> Iterator[Callable[[], bool]]:
        """A question that can be asked again and again: whether the keeper of now has ended.
        Also when the folder is gone by then."""
        try:
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            yield lambda: True
            return
        try:
            yield lambda: _lock(lock)
        finally:
            os.close(lock)  # and so lets go of it

    def keeper(self) -> int:
        """Its process, as the lock's file has it; 0 where it says nothing."""
        try:
            return int((self.directory / "lock").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def listen(self) -> socket.socket:
        """The keeper's socket, in the folder."""
        path = self.directory / "socket"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        made = socket.socket(socket.AF_UNIX)
        with self._short() as folder:
            made.bind(f"{folder}/socket")
        made.listen(16)
        return made

    def connect(self) -> socket.socket:
        """A connection to the keeper. Raises PlayError, which tells what is there instead."""
        made = socket.socket(socket.AF_UNIX)
        try:
            with self._short() as folder:
                made.connect(f"{folder}/socket")
        except OSError:
            made.close()
            raise self.not_up() from None
        return made

    def not_up(self) -> PlayError:
        """Why nobody answers."""
        if self.is_up():
            return PlayError(f"lab {self.name} is still coming up, or going down")
        if self.directory.exists():
            return PlayError(
                f"lab {self.name} is gone: it ended without `netpol lab down`",
                hint=f"`netpol clean` takes what is left of it away; the last words are in "
                f"{self.log}",
            )
        up = [home.name for home in homes() if home.is_up()]
        hint = f"up is {', '.join(up)} (--name)" if up else "`netpol lab up` makes one"
        return PlayError(f"there is no lab {self.name}", hint=hint)

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def _short(self) -> Iterator[str]:
        """The folder by a short name: a socket's may have no more than 107 characters."""
        folder = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}"
        finally:
            os.close(folder)


def home(name: str) -> Home:
    """Raises PlayError for what can be no name."""
    if not _NAME.fullmatch(name):
        raise PlayError(
            f"{name!r} can be no lab's name",
            hint="up to 32 lower-case letters, digits and dashes, no dash first or last",
        )
    return Home(name, base() / name)


def homes() -> list[Home]:
    """All that are remembered, stale ones too."""
    with contextlib.suppress(OSError):
        found = sorted(path for path in base().iterdir() if path.is_dir())
        return [Home(path.name, path) for path in found if _NAME.fullmatch(path.name)]
    return []


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
