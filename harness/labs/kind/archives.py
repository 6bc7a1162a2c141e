"""Image archives: which images are in them, so that one that lacks is told before anything is made.

Both forms that runtimes write are known: ``manifest.json`` of ``docker save``, and ``index.json``
of the OCI layout.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from harness.model.image import full

_LARGEST_INDEX = 1 << 22
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def find(directory: Path) -> dict[Path, list[str]]:
    """The archives of a directory (``*.tar``) with the images of each, by their full names.

    Raises LabError for a directory without one, and for a file that is none.
    """
    if not directory.is_dir():
        raise LabError(f"--lab-images: {directory} is no directory")
    files = sorted(directory.glob("*.tar"))
    if not files:
        raise LabError(
            f"--lab-images: {directory} holds no image archive (*.tar)",
            hint="`docker save -o FILE.tar IMAGE…` writes one; `netpol cni images NAME` lists what "
            "is wanted",
        )
    return {file: images(file) for file in files}


def images(file: Path) -> list[str]:
    """The names of the images in an archive. Raises LabError for a file that is none."""
    found: dict[str, Any] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.name in ("manifest.json", "index.json") and member.size < _LARGEST_INDEX:
                    content = tar.extractfile(member)
                    if content is not None:
                        found[member.name] = json.loads(content.read())
    except (tarfile.TarError, OSError, ValueError) as error:
        raise LabError(f"{file} is no image archive: {error}") from None
    names = [
        name for one in found.get("manifest.json") or () for name in one.get("RepoTags") or ()
    ] or list(_of_index(found.get("index.json") or {}))
    if not found:
        raise LabError(f"{file} is no image archive: it has neither manifest.json nor index.json")
    return [full(name) for name in dict.fromkeys(names)]


def _of_index(index: Any) -> Iterable[str]:
    for one in index.get("manifests") or ():
        notes = one.get("annotations") or {}
        name = next((notes[key] for key in _NAMES if ":" in notes.get(key, "")), "")
        if name:
            yield name


def lacking(wanted: Iterable[str], archives: dict[Path, list[str]]) -> list[str]:
    """Images that are in none of the archives. A digest cannot be looked up: its tag has to do."""
    there = {name for names in archives.values() for name in names}
    return [
        name for name in dict.fromkeys(map(full, wanted)) if name.partition("@")[0] not in there
    ]
