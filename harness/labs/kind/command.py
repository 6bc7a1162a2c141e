"""Programs run to their end: with a deadline, in a session of their own, heard line by line.

In a session of its own a program does not get the terminal's Ctrl-C: what it has half done is for
the caller to take back, and the program is ended first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.labs.base import LabError

#: What a program gets between being asked and being made to end.
END_SECONDS = 5.0
_LINGER_SECONDS = 0.5
_TAIL_LINES = 15


class CommandError(LabError):
    """A program could not be run, ended with an error, or did not end in time.

    ``text`` is all that it printed; ``code`` None where it did not end by itself.
    """

    def __init__(self, message: str, *, hint: str = "", text: str = "", code: int | None = None):
        super().__init__(message, hint=hint, detail=tail(text))
        self.text = text
        self.code = code


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it printed."""
        return "\n".join(part.strip() for part in (self.err, self.out) if part.strip())


def run(
    argv: Sequence[str | Path],
    *,
    seconds: float,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    on_line: Callable[[str], None] | None = None,
    on_start: Callable[[int], None] | None = None,
    check: bool = True,
) -> Done:
    """Run a program. ``on_line`` gets each line of its stderr as it comes, ``on_start`` its pid.

    ``env`` is added to this process's own. Raises CommandError for a program that cannot be run or
    does not end within ``seconds``, and with ``check`` for one that ends with an error. Whatever
    is raised, Ctrl-C too, the program and all that it started have been ended.
    """
    words = [str(word) for word in argv]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(f"{words[0]} cannot be run: {error.strerror}") from None
    out, err = _Reader(process.stdout), _Reader(process.stderr, on_line)
    try:
        if on_start is not None:
            on_start(process.pid)
        if stdin is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(stdin.encode())
                process.stdin.close()
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        end(process)
        text = Done(-1, out.text(), err.text()).text
        raise CommandError(
            f"`{shown(words)}` has not ended within {seconds:g} s", text=text
        ) from None
    except BaseException:
        end(process)
        raise
    finally:
        if not (out.ended(_LINGER_SECONDS) and err.ended(_LINGER_SECONDS)):
            # Children that outlive it hold the pipes open: nobody waits for those.
            _kill(process.pid, signal.SIGKILL)
        out.close()
        err.close()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
    done = Done(code, out.text(), err.text())
    if check and code != 0:
        raise CommandError(
            f"`{shown(words)}` failed: {cause(done.text)}", text=done.text, code=code
        )
    return done


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that is in its session: asked first, then made to."""
    _kill(process.pid, signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process.pid, signal.SIGKILL)
        process.wait()


def _kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Reader:
    """Takes in a pipe in a thread, so that neither of two can block the program."""

    def __init__(
        self, pipe: IO[bytes] | None, on_line: Callable[[str], None] | None = None
    ) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._on_line = on_line
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed under its hands
            for raw in self._pipe:
                line = raw.decode(errors="replace").rstrip("\r\n")
                self._lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)

    def ended(self, seconds: float) -> bool:
        """Whether the pipe has come to its end."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            self._pipe.close()

    def text(self) -> str:
        self._thread.join(END_SECONDS)
        return "\n".join(self._lines)


def shown(argv: Sequence[str]) -> str:
    """The beginning of a command, for messages."""
    words = [Path(argv[0]).name, *argv[1:]]
    text = " ".join(words)
    return text if len(text) <= 100 else text[:97] + "..."


def cause(text: str) -> str:
    """The one line of a program's output that says why it failed: its last that names an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(("ERROR", "Error", "error")):
            return line.partition(":")[2].strip() or line
    return lines[-1] if lines else "it said nothing"


def tail(text: str) -> str:
    """The last lines of a program's output, indented."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
