"""Running the tools that talk to the kernel: text in, success or a readable error out."""

from __future__ import annotations

import contextlib
import subprocess
from collections import deque
from collections.abc import Sequence

TIMEOUT = 60.0  # seconds; a tool that takes longer is stuck


class ToolError(Exception):
    """A tool refused what it was given; the text says which tool, what it said, and the line."""


class TooLargeError(ToolError):
    """One transaction was larger than the kernel takes from here; nothing of it was done."""


class AbsentError(ToolError):
    """A tool is not installed."""


#: Process numbers of the tools that ran last: what they did was done by us.
recent: deque[int] = deque(maxlen=64)


def run(argv: Sequence[str], text: str = "") -> str:
    """Give ``text`` to a tool, return its output. Raises ToolError."""
    return run_all([(argv, text)])[0]


def run_all(calls: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Several tools side by side, each with its text; all have ended when this returns or raises
    the ToolError of the first that failed."""
    with contextlib.ExitStack() as stack:
        programs = []
        for argv, text in calls:
            program = stack.enter_context(_start(argv))
            programs.append((argv, text, program))
        outcomes = [_finish(*one) for one in programs]
    for outcome in outcomes:
        if isinstance(outcome, ToolError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, str)]


def _start(argv: Sequence[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    try:
        program = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError as error:
        raise AbsentError(f"{argv[0]} is not installed") from error
    recent.append(program.pid)
    return program


def _finish(argv: Sequence[str], text: str, program: subprocess.Popen[str]) -> str | ToolError:
    try:
        output, said = program.communicate(text, TIMEOUT)
    except subprocess.TimeoutExpired:
        program.kill()
        return ToolError(f"{argv[0]} did not end within {TIMEOUT:g} s")
    return failure(argv, said) if program.returncode else output


def failure(argv: Sequence[str], said: str) -> ToolError:
    """The error for what a tool said."""
    message = f"{' '.join(argv)}: {said.strip()[:2000]}"
    if "Message too long" in said:
        return TooLargeError(message)
    return ToolError(message)
