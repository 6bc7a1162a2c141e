"""Which engine a run takes: what was given, else what is here, else a sentence that helps."""

from __future__ import annotations

import os
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cnis import catalogue
from harness.cnis.cni import Cni
from harness.engines import images, releases, store
from harness.engines.found import CHANGES, EngineError, Found, in_directory, in_file, version_told
from harness.engines.images import Progress

VARIABLE = "NETPOL_ENGINES"
"""Environment variable: a directory that holds engines' directories, NAME/ for ``--cni NAME``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: an entry of the catalogue by name or (with ``entry``) as TOML text, and
    where its engine is. ``engine`` is a program, a directory, or an image archive; ``images`` a
    directory of archives; ``version`` a release, empty for the entry's own."""

    name: str
    entry: str | None = None
    engine: Path | None = None
    images: Path | None = None
    version: str = ""


def choose(
    wanted: Wanted,
    progress: Progress = lambda _: None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Cni, Found | None]:
    """The CNI and its engine, with what the engine's directory changes of the entry.

    No engine where none has to be brought. Raises CniError and EngineError.
    """
    cni = _entry(wanted, "")
    if cni.api_engine is None or not cni.api_engine.foreign:
        if wanted.engine is not None:
            raise EngineError(
                f"--lab-engine {wanted.engine}: {cni.title} has no engine that could be brought",
                hint="it is for entries with programs in [api_engine], such as calico",
            )
        return cni, None
    place = _place(wanted, cni, environ, progress)
    changes = _changes(place)
    if changes:
        cni = _entry(wanted, changes)
    found = in_directory(cni, place) if place.is_dir() else in_file(cni, place)
    version = found.version or _entry_version(changes)
    return replace(cni, version=version), replace(found, version=version)


def here(cni: Cni, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where this CNI's engine is without being given, the first choice first. An entry whose
    engine is like another's takes that one's as well."""
    data = cni.api_engine
    given = environ.get(VARIABLE)
    names = [cni.name, *([data.like] if data and data.like else [])]
    there = [Path(given, name) for name in names] if given else []
    found = [place for place in there if place.exists()][:1]
    if data is None or not data.image:
        return found
    fetched = store.fetched(cni)
    own = [folder for folder in fetched if folder.name == cni.version]
    return [*found, *own, *(folder for folder in fetched[::-1] if folder not in own)]


def _entry(wanted: Wanted, changes: str) -> Cni:
    if wanted.entry is not None:
        return catalogue.parse(wanted.name, wanted.entry, changes)
    return catalogue.get(wanted.name, changes)


def _changes(place: Path) -> str:
    file = place / CHANGES if place.is_dir() else place.parent / CHANGES
    if not file.is_file():
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{file} cannot be read: {error}") from None


def _entry_version(changes: str) -> str:
    """The version that an engine.toml tells, if it does."""
    return str(tomllib.loads(changes).get("version", ""))


def _place(wanted: Wanted, cni: Cni, environ: Mapping[str, str], progress: Progress) -> Path:
    """The program or the directory."""
    if wanted.engine is not None:
        if not wanted.engine.exists():
            raise EngineError(f"--lab-engine {wanted.engine}: there is no such file or directory")
        if wanted.engine.is_file() and tarfile.is_tarfile(wanted.engine):
            return _from_archive(cni, [wanted.engine], wanted.version, progress)
        return wanted.engine
    if wanted.images is not None:
        archives = sorted(wanted.images.glob("*.tar")) if wanted.images.is_dir() else []
        if not archives:
            raise EngineError(f"--lab-images {wanted.images}: no directory with archives (*.tar)")
        return _from_archive(cni, archives, wanted.version, progress)
    there = here(cni, environ)
    if wanted.version:
        fits = [p for p in there if version_told(p) == wanted.version.removeprefix("v")]
        if not fits and cni.api_engine is not None and cni.api_engine.image:
            raise EngineError(
                f"there is no engine of {cni.title} {wanted.version} here",
                hint=f"netpol engine fetch {cni.name} --version {wanted.version}",
            )
        there = fits or there
    if there:
        return there[0]
    get = f"`netpol engine fetch {cni.name}` gets it out of its image"
    image = cni.api_engine.image if cni.api_engine else ""
    raise EngineError(
        f"there is no policy engine of {cni.title} here",
        hint=f"{f'{get} ({image}); or ' if image else ''}give its program or directory: "
        f"--lab-engine PATH, or ${VARIABLE} with {cni.name}/ in it",
    )


def _from_archive(cni: Cni, archives: list[Path], version: str, progress: Progress) -> Path:
    """The archive that holds the engine's image, unpacked."""
    engine = store.with_image(cni)
    own = engine.image.rpartition("/")[2]
    seen: list[str] = []
    fits: list[tuple[str, Path]] = []
    for archive in archives:
        names = images.names_in(archive)
        seen += names
        if len(archives) == 1 and len(names) < 2:
            fits.append((names[0] if names else "", archive))
            continue
        fits += [(n, archive) for n in names if n.rpartition("/")[2].partition(":")[0] == own]
    if version:
        tag = releases.tag_of(engine, version.removeprefix("v"))
        fits = [(name, archive) for name, archive in fits if name.endswith(f":{tag}")]
    if not fits:
        raise EngineError(
            f"none of the archives holds {engine.image}{f' {version}' if version else ''}: "
            f"they hold {', '.join(seen) or 'nothing with a name'}"
        )
    name, archive = fits[-1]
    crds = next((p for p in (archive.parent / "crds",) if p.is_dir()), None)
    return store.from_archive(cni, archive, name, crds, progress)
