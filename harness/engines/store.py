"""Engines out of images, in the user's cache: fetched once, by digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import requests
import yaml

from harness.cnis.cni import Cni
from harness.cnis.engine import ApiEngine
from harness.engines import images, releases
from harness.engines.found import NOTE, EngineError, Found, crds_among, in_directory
from harness.engines.images import Progress
from harness.labs import folders
from harness.labs.controlplane.binaries import BinariesError
from harness.labs.controlplane.store import fill

_SECONDS = 60.0


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where fetched engines are kept: a folder for each CNI, in it one for each version."""
    return folders.cache(environ) / "engines"


def fetch(
    cni: Cni,
    version: str,
    progress: Progress,
    *,
    repository: str = "",
    crds: Path | None = None,
    again: bool = False,
) -> Path:
    """A release's engine in the cache, out of its image; its folder. Raises LabError.

    ``repository``: the image's name in another registry. ``crds``: a file or folder with its
    CustomResourceDefinitions, where the entry's own address of them is not to be used. ``again``:
    ask the registry what the tag stands for now, also where the cache has that version.
    """
    engine = with_image(cni)
    name = repository or engine.image
    if not releases.is_whole(version):
        known = releases.released(engine, name)
        version = releases.exact(version, known, name)
        progress(f"the release is {version}")
    folder = _shelf(cni) / version.removeprefix("v")
    if not again and (folder / NOTE).is_file():
        progress(f"{cni.title} {version} is in {folder} already")
        return folder
    tag = releases.tag_of(engine, version.removeprefix("v"))
    digest = images.digest_of(f"{name}:{tag}")
    progress(f"{name}:{tag} is {digest}")

    def make(target: Path) -> None:
        images.pull(f"{name}@{digest}", target, progress)
        _bring_crds(cni, engine, version, crds, target, progress)
        note = {"cni": cni.name, "version": version.removeprefix("v"), "digest": digest}
        _write(target, {**note, "source": f"image {name}:{tag}@{digest}"})

    fill(folder, make, partial(_check, cni, digest), progress)
    return folder


def from_archive(cni: Cni, archive: Path, name: str, crds: Path | None, progress: Progress) -> Path:
    """An archive's image in the cache; its folder. Raises LabError."""
    with archive.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    folder = _shelf(cni) / f"archive-{digest[7:19]}"
    tag = name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else ""
    found = releases.versions_among(with_image(cni), [tag])

    def make(target: Path) -> None:
        images.unpack_archive(archive, name, target, progress)
        if crds is not None:
            _copy_crds(crds, target)
        note = {"cni": cni.name, "version": "".join(found), "digest": digest}
        _write(target, {**note, "source": f"archive {archive}" + f", image {name}" * bool(name)})

    fill(folder, make, partial(_check, cni, digest), progress)
    return folder


def fetched(cni: Cni) -> list[Path]:
    """The folders of this CNI's releases in the cache, the oldest first."""
    place = _shelf(cni)
    there = [f for f in place.iterdir() if (f / NOTE).is_file()] if place.is_dir() else []
    known = {folder.name: folder for folder in there if releases.is_whole(folder.name)}
    engine = with_image(cni)
    tags = {releases.tag_of(engine, name): name for name in known}
    return [known[version] for version in releases.versions_among(engine, tags)]


def _shelf(cni: Cni) -> Path:
    """Entries with one and the same engine share what was fetched."""
    return home() / (with_image(cni).like or cni.name)


def with_image(cni: Cni) -> ApiEngine:
    """The engine's data. Raises EngineError where it comes in no image."""
    if cni.api_engine is None or not cni.api_engine.image:
        raise EngineError(f"the entry of {cni.title} names no image with an engine in it")
    return cni.api_engine


def _check(cni: Cni, digest: str, folder: Path) -> Found:
    """A folder that is whole. BinariesError, which the store wants, where it is not."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BinariesError(f"{folder} is not whole: {error}") from None
    if note.get("digest") != digest:
        raise BinariesError(f"{folder} is another image: {note.get('digest')}")
    return in_directory(cni, folder)


def _write(target: Path, note: Mapping[str, str]) -> None:
    (target / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _bring_crds(
    cni: Cni,
    engine: ApiEngine,
    version: str,
    given: Path | None,
    target: Path,
    progress: Progress,
) -> None:
    if given is not None:
        _copy_crds(given, target)
        return
    if not engine.crds:
        return
    address = engine.crds.replace("{version}", version.removeprefix("v"))
    pinned = next((m.sha256 for m in cni.manifests if m.url == address), "")
    text = _text(address)
    digest = hashlib.sha256(text).hexdigest()
    if pinned and digest != pinned:
        raise EngineError(
            f"{address} is not what the catalogue pins: its SHA-256 is {digest}, pinned is {pinned}"
        )
    progress(f"{address}: SHA-256 {digest}{', as pinned' if pinned else ', which nothing pins'}")
    _save_crds(text, address, target)


def _copy_crds(given: Path, target: Path) -> None:
    files = sorted(given.glob("*.y*ml")) if given.is_dir() else [given]
    for path in files:
        _save_crds(path.read_bytes(), str(path), target)


def _save_crds(text: bytes, source: str, target: Path) -> None:
    try:
        found = crds_among(list(yaml.load_all(text, yaml.CSafeLoader)))
    except yaml.YAMLError as error:
        raise EngineError(f"{source} cannot be read as YAML: {error}") from None
    if not found:
        raise EngineError(f"{source} holds no CustomResourceDefinition")
    (target / "crds").mkdir(exist_ok=True)
    name = Path(source).stem
    out = yaml.dump_all(found, Dumper=yaml.CSafeDumper, sort_keys=False)
    (target / "crds" / f"{name}.yaml").write_text(out, encoding="utf-8")


def _text(address: str) -> bytes:
    try:
        answer = requests.get(address, timeout=_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise EngineError(
            f"the CustomResourceDefinitions cannot be had from {address}: {error}",
            hint="bring them along: --crds FILE",
        ) from None
    return answer.content
