"""Fills a folder of the user's cache so that nobody ever meets a half-filled one.

A lock file keeps two who want the same folder apart; what the first one made, the second finds.
The work is done in a folder beside it, and only what was checked there takes the real name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from harness.labs.controlplane.binaries import BinariesError

#: Longer than any build takes; a holder that was killed has lost its lock at once.
WAIT_SECONDS = 3600.0

Progress = Callable[[str], None]
T = TypeVar("T")


def fill(
    folder: Path,
    make: Callable[[Path], None],
    check: Callable[[Path], T],
    progress: Progress,
) -> T:
    """What ``check(folder)`` returns, after ``make`` has filled the folder where it had to.

    ``check`` raises ``BinariesError`` for a folder that is not whole. ``make`` gets an empty
    folder beside ``folder``. Files that ``folder`` has besides those of ``make`` are left alone.
    Raises ``BinariesError``, also for a disk that is full or may not be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"waiting for the one who fills {folder} just now")
            lock.acquire(timeout=WAIT_SECONDS)
        try:
            return _fill_locked(folder, make, check, progress)
        finally:
            lock.release()
    except Timeout:
        raise BinariesError(
            f"{folder} was still being filled by another process after {WAIT_SECONDS:g} s",
            hint="end that process and try again",
        ) from None
    except OSError as error:
        raise BinariesError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}",
            hint="make room or mend the permissions there, or name another folder",
        ) from error


def _fill_locked(
    folder: Path, make: Callable[[Path], None], check: Callable[[Path], T], progress: Progress
) -> T:
    try:
        whole = check(folder)
    except BinariesError:
        pass
    else:
        progress(f"{folder} is whole already: nothing to do")
        return whole
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of one who was killed
    partial.mkdir()
    try:
        make(partial)
        check(partial)
        if folder.exists():
            for path in sorted(partial.iterdir()):
                if (folder / path.name).is_dir():
                    shutil.rmtree(folder / path.name)
                os.replace(path, folder / path.name)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return check(folder)
