"""A terminal of one's own for a command in the lab, and the copying between it and the user's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator

_CHUNK = 1 << 16


def both(*descriptors: int) -> bool:
    """Whether all of these are terminals."""
    return all(os.isatty(one) for one in descriptors)


def relay(start: Callable[[int], Callable[[], int]]) -> int:
    """Run a command on a new terminal, joined to the user's own, to its end; its exit code.

    ``start`` is given the command's end and returns what waits for the exit code. Keys go to the
    command as they are typed, Ctrl-C too.
    """
    ours, theirs = os.openpty()
    _resize(ours)
    try:
        with contextlib.closing(os.fdopen(theirs, "rb", closefd=True, buffering=0)) as end:
            wait = start(end.fileno())
        with _raw(0), _resizing(ours):
            return _copy(ours, wait)
    finally:
        os.close(ours)


def _copy(ours: int, wait: Callable[[], int]) -> int:
    """Copy until the command's last process has let go of its terminal, or it has ended."""
    code: list[int] = []
    failure: list[BaseException] = []
    woken, wake = os.pipe()

    def hear() -> None:
        try:
            code.append(wait())
        except BaseException as error:  # raised again below, where people hear of it
            failure.append(error)
        os.close(wake)

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    with selectors.DefaultSelector() as selector:
        for one in (0, ours, woken):
            selector.register(one, selectors.EVENT_READ)
        ended = False
        while not ended:
            for key, _ in selector.select():
                if key.fd == 0:
                    data = os.read(0, _CHUNK)
                    if not data:
                        selector.unregister(0)
                    _write(ours, data)
                elif key.fd == ours:
                    ended = not _shown(ours)
                else:
                    ended = True
    thread.join()
    os.set_blocking(ours, False)
    while _shown(ours):  # what it said last
        pass
    os.close(woken)
    if failure:
        raise failure[0]
    return 128 - code[0] if code[0] < 0 else code[0]


def _shown(ours: int) -> bool:
    """Show what the command has written. False: there is nothing, or nobody left to write."""
    try:
        data = os.read(ours, _CHUNK)
    except OSError:  # EIO: the other end is closed; EAGAIN: nothing is there
        return False
    _write(1, data)
    return bool(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(ours: int) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda *_: _resize(ours))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _resize(ours: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(ours, termios.TIOCSWINSZ, size)
