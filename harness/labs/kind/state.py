"""What is remembered of kind clusters that the harness made: a folder for each, the user's own.

It holds the kubeconfig, the configuration and ``cluster.json``. A cluster without such a folder is
somebody else's, whatever it is called: it is never deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.labs import folders
from harness.labs.base import LabError

PREFIX = "netpol-"
"""Every cluster of the harness is called so at the beginning."""
MAKING, UP, FAILED, KEPT = "making", "up", "failed", "kept"


@dataclass(frozen=True, slots=True)
class Known:
    """One cluster. ``owner`` is the process that will delete it, with the time of its start, so
    that another of the same number is not taken for it. ``creating``: kind, while it makes it."""

    name: str
    run: str
    cni: str
    runtime: str
    state: str = MAKING
    owner: int = 0
    owner_started: str = ""
    creating: int = 0
    creating_started: str = ""
    error: str = ""
    seconds: dict[str, float] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody will delete it: its owner is gone, and it is not one that was kept."""
        return self.state != KEPT and started(self.owner) != self.owner_started


def home(environ: Mapping[str, str] | None = None) -> Path:
    """Where the folders are: below ``$XDG_STATE_HOME``, or else ``~/.local/state``."""
    return folders.state(environ) / "kind"


def folder(name: str) -> Path:
    """The folder of a cluster; it may not exist."""
    return home() / name


def kubeconfig(name: str) -> Path:
    return folder(name) / "kubeconfig"


def write(known: Known) -> None:
    """Remember a cluster, in one step. Raises LabError where that cannot be."""
    directory = folder(known.name)
    part = directory / ".cluster.json"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_text(json.dumps(asdict(known), indent=2), encoding="utf-8")
        part.replace(directory / "cluster.json")
    except OSError as error:
        raise LabError(
            f"{error.filename}: {error.strerror}: a cluster cannot be remembered there",
            hint="set XDG_STATE_HOME to a folder of yours",
        ) from None


def read(name: str) -> Known | None:
    """What is remembered of a cluster; None if it is not ours, or cannot be read."""
    try:
        data: dict[str, Any] = json.loads((folder(name) / "cluster.json").read_text())
        return Known(**data)
    except (OSError, ValueError, TypeError):
        return None


def all_known() -> list[Known]:
    """Every cluster that is remembered, by name."""
    there = sorted(home().iterdir()) if home().is_dir() else []
    return [known for path in there if (known := read(path.name)) is not None]


def change(name: str, **fields: Any) -> None:
    """Change what is remembered of a cluster, if it is."""
    known = read(name)
    if known is not None:
        write(replace(known, **fields))


def forget(name: str) -> None:
    """Remove a cluster's folder."""
    shutil.rmtree(folder(name), ignore_errors=True)


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty if there is none."""
    if pid <= 0:
        return ""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
