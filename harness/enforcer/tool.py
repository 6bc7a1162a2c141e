"""Running the tools that talk to the kernel: text in, success or a readable error out."""

from __future__ import annotations

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
    pipe = subprocess.PIPE
    try:
        program = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError as error:
        raise AbsentError(f"{argv[0]} is not installed") from error
    recent.append(program.pid)
    with program:
        try:
            output, said = program.communicate(text, TIMEOUT)
        except subprocess.TimeoutExpired as error:
            program.kill()
            raise ToolError(f"{argv[0]} did not end within {TIMEOUT:g} s") from error
    if program.returncode:
        raise failure(argv, said)
    return output


def failure(argv: Sequence[str], said: str) -> ToolError:
    """The error for what a tool said."""
    message = f"{' '.join(argv)}: {said.strip()[:2000]}"
    if "Message too long" in said:
        return TooLargeError(message)
    return ToolError(message)
