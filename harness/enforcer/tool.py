"""Running the tools that talk to the kernel: text in, success or a readable error out."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

TIMEOUT = 60.0  # seconds; a tool that takes longer is stuck


class ToolError(Exception):
    """A tool refused what it was given; the text says which tool, what it said, and the line."""


class TooLargeError(ToolError):
    """One transaction was larger than the kernel takes from here; nothing of it was done."""


class AbsentError(ToolError):
    """A tool is not installed."""


def run(argv: Sequence[str], text: str = "") -> str:
    """Give ``text`` to a tool, return its output. Raises ToolError."""
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise AbsentError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{argv[0]} did not end within {TIMEOUT:g} s") from error
    if done.returncode:
        raise failure(argv, done.stderr)
    return done.stdout


def failure(argv: Sequence[str], said: str) -> ToolError:
    """The error for what a tool said."""
    message = f"{' '.join(argv)}: {said.strip()[:2000]}"
    if "Message too long" in said:
        return TooLargeError(message)
    return ToolError(message)
