"""One line of the doctor's table, and how a program is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

#: Where programs for administrators are, which ordinary users often have not on their PATH.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
ANSWER_SECONDS = 10.0


class State(StrEnum):
    """``limited``: it works, and the step says what would make it better. ``absent``: it is not
    there and nothing needs it."""

    YES = "yes"
    LIMITED = "limited"
    NO = "no"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and seen. ``step`` is the one thing to do; empty where all is well."""

    group: str
    name: str
    state: State
    found: str
    step: str = ""

    @property
    def can(self) -> bool:
        return self.state in (State.YES, State.LIMITED)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a program ended: its exit code (None: it could not be asked) and all that it printed."""

    code: int | None
    text: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def last_line(self) -> str:
        lines = self.text.strip().splitlines()
        return lines[-1].strip() if lines else ""


def which(name: str) -> str | None:
    """The path of a program, administrators' folders included."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))


def ask(argv: Sequence[str], stdin: str = "") -> Answer:
    """Runs a program for at most ``ANSWER_SECONDS``; what goes wrong is in the answer."""
    path = which(argv[0])
    if path is None:
        return Answer(None, f"{argv[0]}: not found")
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Answer(None, f"{argv[0]} did not answer within {ANSWER_SECONDS:.0f} s")
    except OSError as error:
        return Answer(None, f"{path}: {error.strerror}")
    return Answer(done.returncode, done.stdout)
