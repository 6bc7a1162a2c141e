"""Images by digest, without Docker: skopeo copies them, umoci unpacks them, both from Debian."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.labs.base import LabError

Progress = Callable[[str], None]
PACKAGES = {"skopeo": "skopeo", "umoci": "umoci"}
#: Registries on this machine speak plain HTTP, as Docker has it.
LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?/")
_SECONDS = 1800.0
_ANSWER_SECONDS = 120.0
_TAG = "image"


class ImageError(LabError):
    """An image cannot be had, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An unpacked image: its root file system, and its environment."""

    root: Path
    env: dict[str, str]


def digest_of(reference: str) -> str:
    """What a tag stands for at this moment: ``sha256:…``. Raises ImageError."""
    line = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", *_tls("", reference)]
    return _run([*line, f"docker://{reference}"], _ANSWER_SECONDS).strip()


def tags(repository: str) -> list[str]:
    """All tags of a repository, as its registry lists them. Raises ImageError."""
    line = ["skopeo", "list-tags", *_tls("", f"{repository}/"), f"docker://{repository}"]
    try:
        return [str(tag) for tag in json.loads(_run(line, _ANSWER_SECONDS))["Tags"]]
    except (ValueError, KeyError, TypeError):
        raise ImageError(
            f"the registry's list of the tags of {repository} cannot be read"
        ) from None


def pull(reference: str, target: Path, progress: Progress) -> None:
    """An image out of its registry (``NAME@sha256:…``), unpacked into ``target``."""
    _unpack(f"docker://{reference}", target, progress, _tls("src-", reference))


def unpack_archive(archive: Path, name: str, target: Path, progress: Progress) -> None:
    """The image ``name`` out of an archive as `docker save` or an OCI tool makes them."""
    _unpack(f"{_transport(archive)}:{archive}{f':{name}' if name else ''}", target, progress, [])


def opened(target: Path) -> Unpacked:
    """What :func:`pull` has left in a folder. Raises ImageError."""
    try:
        process = json.loads((target / "config.json").read_text(encoding="utf-8"))["process"]
        env = dict(one.split("=", 1) for one in process.get("env", ()) if "=" in one)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{target} holds no unpacked image: {error}") from None
    return Unpacked(target / "rootfs", env)


def names_in(archive: Path) -> list[str]:
    """The names of the images in an archive; a single image may have none. Raises ImageError."""
    try:
        with tarfile.open(archive) as tar:
            members = set(tar.getnames())
            if "manifest.json" in members:
                told = json.loads(_member(tar, "manifest.json"))
                return [name for one in told for name in one.get("RepoTags") or ()]
            told = json.loads(_member(tar, "index.json"))["manifests"]
            key = "org.opencontainers.image.ref.name"
            found = ((one.get("annotations") or {}).get(key) for one in told)
            return [name for name in found if name]
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(
            f"{archive} is no image archive: {error}",
            hint="`skopeo copy docker://NAME docker-archive:FILE:NAME` makes one",
        ) from None


def _transport(archive: Path) -> str:
    with tarfile.open(archive) as tar:
        return "docker-archive" if "manifest.json" in tar.getnames() else "oci-archive"


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()


def _unpack(source: str, target: Path, progress: Progress, options: Sequence[str]) -> None:
    layout, bundle = target / "oci", target / "bundle"
    copy = ["skopeo", "--insecure-policy", "copy", *options, source, f"oci:{layout}:{_TAG}"]
    _run(copy, _SECONDS, progress)
    progress("unpacking")
    # Rootless also where this is root: in a lab there is one user, whoever runs it.
    _run(["umoci", "unpack", "--rootless", "--image", f"{layout}:{_TAG}", str(bundle)], _SECONDS)
    shutil.rmtree(layout)
    for name in ("config.json", "rootfs"):
        (bundle / name).rename(target / name)
    shutil.rmtree(bundle)


def _tls(prefix: str, reference: str) -> list[str]:
    return [f"--{prefix}tls-verify=false"] if LOOPBACK.match(reference) else []


def _run(argv: Sequence[str], seconds: float, progress: Progress | None = None) -> str:
    """Run one of the two to its end; its output. Each line is told where progress is wanted."""
    tool = argv[0]
    if shutil.which(tool) is None:
        raise ImageError(
            f"images need {tool}, which is not installed",
            hint=f"apt-get install {' '.join(PACKAGES.values())}",
        )
    lines: list[str] = []
    try:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if progress is None else subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            try:
                if progress is None:
                    out, complaints = process.communicate(timeout=seconds)
                else:
                    assert process.stdout is not None
                    for line in process.stdout:
                        lines.append(line)
                        progress(line.rstrip())
                    process.wait(seconds)
                    out = complaints = "".join(lines)
            except BaseException:
                process.kill()
                raise
    except subprocess.TimeoutExpired:
        raise ImageError(f"`{' '.join(argv)}` has not ended after {seconds:g} s") from None
    if process.returncode != 0:
        raise ImageError(_cause(argv, complaints))
    return out


def _cause(argv: Sequence[str], text: str) -> str:
    """The last of what a tool complained of, without its log's furniture."""
    last = (text.strip().splitlines() or ["it said nothing"])[-1]
    said = re.search(r'msg="(.*)"\s*$', last)
    what = said[1].replace('\\"', '"') if said else last
    return f"{argv[0]}: {argv[-1] if argv[0] == 'umoci' else _named(argv)}: {what}"


def _named(argv: Sequence[str]) -> str:
    return next((word for word in argv if "://" in word or "-archive:" in word), argv[-1])
