"""An engine that is here: which program, on which file system, how it is known."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from harness.cnis.cni import Cni
from harness.cnis.engine import Program
from harness.engines import images
from harness.labs.base import LabError

Json = dict[str, Any]
NOTE = "engine.json"
"""What a fetched engine's folder says of itself: version, reference, digest."""
CHANGES = "engine.toml"


class EngineError(LabError):
    """There is no such engine here, or it is not what it should be."""


@dataclass(frozen=True, slots=True)
class Found:
    """``program`` is its path where it runs: on this machine, or below ``root``. ``source`` says
    in words where it is from; ``digest`` is the image's, or that of the program itself."""

    program: str
    argv: tuple[str, ...]
    source: str
    digest: str
    version: str = ""
    root: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    crds: tuple[Json, ...] = ()


def in_file(cni: Cni, path: Path) -> Found:
    """An engine that is one program. Its CRDs are in a ``crds`` beside it, or beside its ``bin``.
    Raises EngineError."""
    chosen = _by_name(_engine(cni), path.name)
    homes = (path.parent, path.parent.parent) if path.parent.name == "bin" else (path.parent,)
    crds = next((home / "crds" for home in homes if (home / "crds").is_dir()), None)
    return _on_machine(cni, path, chosen, f"program {path}", crds)


def in_directory(cni: Cni, home: Path) -> Found:
    """An engine's directory: ``rootfs/`` with ``config.json`` (an unpacked image) or ``bin/``;
    ``crds/``; ``engine.json``. Raises EngineError."""
    programs = _engine(cni)
    crds = home / "crds"
    if (home / "rootfs").is_dir():
        note = _note(home)
        unpacked = images.opened(home)
        for program in programs:
            if (unpacked.root / program.path.lstrip("/")).is_file():
                return Found(
                    f"/{program.path.lstrip('/')}",
                    program.argv,
                    str(note.get("source") or f"image in {home}"),
                    str(note.get("digest") or ""),
                    str(note.get("version") or ""),
                    unpacked.root,
                    unpacked.env,
                    read_crds(crds),
                )
        raise EngineError(
            f"the image in {home} has none of {', '.join(p.path for p in programs)}: it is no "
            f"{cni.title}, or another release keeps its engine elsewhere",
            hint="say where in [[api_engine.programs]] of an engine.toml beside it",
        )
    there = sorted(p for p in _listed(home / "bin") if p.is_file() and os.access(p, os.X_OK))
    for program in programs:
        for path in there:
            if path.name == PurePath(program.path).name:
                return _on_machine(cni, path, program, f"directory {home}", crds)
    if len(there) == 1:
        chosen = _by_name(programs, there[0].name)
        return _on_machine(cni, there[0], chosen, f"directory {home}", crds)
    wanted = " or ".join(dict.fromkeys(PurePath(p.path).name for p in programs))
    raise EngineError(
        f"{home} is no engine of {cni.title}: it has neither rootfs/ nor an executable "
        f"bin/{wanted}",
        hint="docs/engines.md says what an engine's directory holds",
    )


def version_told(home: Path) -> str:
    """The version that a fetched engine's folder tells."""
    return str(_note(home).get("version") or "")


def read_crds(folder: Path) -> tuple[Json, ...]:
    """All CustomResourceDefinitions in the YAML files of a folder. Raises EngineError."""
    found: list[Json] = []
    for path in sorted(_listed(folder)):
        if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
            continue
        try:
            things = list(yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise EngineError(f"{path} cannot be read as YAML: {error}") from None
        found += crds_among(things)
    return tuple(found)


def crds_among(things: Sequence[Any]) -> list[Json]:
    """The CustomResourceDefinitions among what YAML files hold, lists opened."""
    found: list[Json] = []
    for one in things:
        if isinstance(one, dict) and one.get("kind") == "List":
            found += crds_among(one.get("items") or ())
        elif isinstance(one, dict) and one.get("kind") == "CustomResourceDefinition":
            found.append({key: value for key, value in one.items() if key != "status"})
    return found


def _engine(cni: Cni) -> tuple[Program, ...]:
    if cni.api_engine is None or not cni.api_engine.foreign:
        raise EngineError(
            f"{cni.title} is not run from an engine of its own on the embedded lab",
            hint="--lab-engine is for entries with programs in [api_engine], such as calico",
        )
    return cni.api_engine.programs


def _by_name(programs: Sequence[Program], name: str) -> Program:
    """The program of that file name, else the one whose name it begins with, else the first."""
    names = [(PurePath(program.path).name, program) for program in programs]
    fitting = [(own, p) for own, p in names if name == own or name.startswith(own)]
    return max(fitting, key=lambda one: len(one[0]))[1] if fitting else programs[0]


def _on_machine(cni: Cni, path: Path, program: Program, source: str, crds: Path | None) -> Found:
    path = path.resolve()
    if not os.access(path, os.X_OK) or not path.is_file():
        raise EngineError(
            f"{path}, the engine of {cni.title}, is no file that may be executed",
            hint=f"chmod +x {path}",
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = read_crds(crds) if crds else ()
    return Found(str(path), program.argv, source, f"sha256:{digest}", crds=found)


def _note(home: Path) -> Json:
    try:
        note = json.loads((home / NOTE).read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise EngineError(f"{home / NOTE} cannot be read: {error}") from None
    return note if isinstance(note, dict) else {}


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
