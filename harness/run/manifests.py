"""The manifests of a catalogue entry: where their text comes from, held against its digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
from harness.cnis import patch
from harness.cnis.cni import Cni, CniError, Manifest
from harness.labs import download, folders
from harness.labs.base import LabError

Json = dict[str, Any]
Say = Callable[[str], None]

#: The checkout, with the files that entries name: ``clusters/``, ``deploy/``.
ROOT = Path(harness.__file__).parents[1]


def at_version(cni: Cni, version: str) -> Cni:
    """The entry as of another of the versions that it pins. Raises CniError where it pins none."""
    if not version:
        return cni
    found = _of_version(cni, version)
    if found is None:
        known = ", ".join(one.version for one in cni.manifests if one.version) or "none"
        raise CniError(
            f"--lab-cni-version {version}: the catalogue pins no such version of {cni.title}; it "
            f"has {known} (--lab-cni-manifest takes a file of any)"
        )
    return replace(
        cni,
        version=version.removeprefix("v"),
        manifests=(found,),
        images=found.images or tuple(_retagged(one, cni.version, version) for one in cni.images),
    )


def _of_version(cni: Cni, version: str) -> Manifest | None:
    wanted = version.removeprefix("v")
    found = (one for one in cni.manifests if one.version.removeprefix("v") == wanted)
    return next(found, None)


def _retagged(image: str, old: str, new: str) -> str:
    head, colon, tag = image.rpartition(":")
    return f"{head}{colon}{tag.replace(old, new.removeprefix('v'))}"


def objects(
    cni: Cni,
    values: Mapping[str, str],
    *,
    files: Sequence[Path] = (),
    folder: Path | None = None,
    offline: bool = False,
    say: Say = lambda _: None,
) -> tuple[list[Json], list[str]]:
    """What to apply for an entry, and notes. ``files`` take the place of its manifests, ``folder``
    may hold those; ``offline``: nothing is downloaded. Raises CniError and LabError."""
    if files:
        found = [one for file in files for one in patch.read(_text(file), str(file))]
        return patch.prepared(cni, found, values, lenient=True)
    if not cni.manifests:
        return patch.extras(cni.extras), []
    pinned = cni.manifests[0]
    path = local(pinned, folder) or fetch(pinned, offline=offline, say=say)
    found = patch.read(_text(path), pinned.url or pinned.file)
    return patch.prepared(cni, found, values, images=pinned.images)


def local(manifest: Manifest, folder: Path | None = None) -> Path | None:
    """Where a manifest is on this machine: in the checkout, in ``folder``, in the cache; None
    where it has to be downloaded. Raises LabError for a file of the checkout that is not there."""
    if manifest.file:
        path = ROOT / manifest.file
        if not path.is_file():
            raise LabError(f"{path} is not there: run it from a checkout")
        return path
    name = manifest.url.rpartition("/")[2]
    for path in (*([folder / name] if folder else []), _cached(manifest)):
        if path.is_file() and download.digest_of(path) == manifest.sha256:
            return path
    return None


def fetch(manifest: Manifest, *, offline: bool = False, say: Say = lambda _: None) -> Path:
    """Download a manifest into the cache. Raises LabError."""
    if offline:
        raise LabError(
            f"{manifest.url} is not in the cache, and nothing is to be downloaded "
            "(--lab-offline or --lab-images)",
            hint=f"bring it along as {_cached(manifest)}, or as a file in --lab-images, or another "
            "with --lab-cni-manifest",
        )
    path = _cached(manifest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download.download(manifest.url, manifest.sha256, path, say)
    except OSError as error:
        raise LabError(f"{error.filename or path} cannot be written: {error.strerror}") from None
    except download.DownloadError as error:
        hint = f"{error.hint}; --lab-cni-manifest takes a file of your own"
        raise LabError(error.message, hint=hint, detail=error.detail) from None
    return path


def _cached(manifest: Manifest) -> Path:
    name = manifest.url.rpartition("/")[2]
    return folders.cache() / "manifests" / f"{manifest.sha256[:16]}-{name}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CniError(f"{path} is no text file") from None
    except OSError as error:
        raise CniError(f"{path}: {error.strerror}") from None
