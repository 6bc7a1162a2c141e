"""Downloads a release's programs, each held against the digest that its project publishes.

Kubernetes publishes ``release/vX.Y.Z/bin/linux/ARCH/NAME`` with the digest beside it in
``NAME.sha256``, and the newest patch of a minor in ``release/stable-X.Y.txt``; etcd an archive a
release, with the digests of all of them in ``SHA256SUMS``.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.labs import download
from harness.labs.controlplane.binaries import (
    NAMES,
    Binaries,
    BinariesError,
    cache_home,
    find,
    go_processor,
    parse_version,
)
from harness.labs.controlplane.build import releases
from harness.labs.controlplane.store import Progress, fill

KUBERNETES_URL = "https://dl.k8s.io"
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download"


def fetch(
    version: str,
    dest: Path | None = None,
    progress: Progress = print,
    *,
    kubernetes_url: str = KUBERNETES_URL,
    etcd_url: str = ETCD_URL,
) -> Binaries:
    """The programs of Kubernetes ``version`` in ``dest`` (default: the user's cache).

    ``1.36`` is its newest patch, ``1.36.5`` this one. What is whole there already is not
    downloaded again. Raises ``BinariesError`` for a version that was never released, a server
    that does not answer, and bytes that are not those that were published; nothing is left then.
    """
    numbers = parse_version(version)
    exact = ".".join(map(str, numbers))
    if len(numbers) == 2:
        exact = _newest_patch(exact, kubernetes_url)
        progress(f"the newest Kubernetes {version} is {exact}")

    def make(target: Path) -> None:
        _etcd(etcd_for(exact), etcd_url, target, progress)
        for name in NAMES:
            if name != "etcd":
                _kubernetes(name, exact, kubernetes_url, target, progress)

    return fill(dest or cache_home() / exact, make, partial(find, exact), progress)


def etcd_for(version: str) -> str:
    """The etcd that goes with Kubernetes ``version``: the one its build here has, else the
    newest known here (Kubernetes works with older and newer ones of etcd's API version 3)."""
    known = releases()
    minor = ".".join(version.split(".")[:2])
    newest = max(known.values(), key=lambda release: parse_version(release.etcd))
    return known.get(minor, newest).etcd


def _newest_patch(minor: str, url: str) -> str:
    address = f"{url}/release/stable-{minor}.txt"
    text = _text(address).strip()
    if not re.fullmatch(rf"v{re.escape(minor)}\.\d+", text):
        raise BinariesError(
            f"{address} names no patch of Kubernetes {minor}: it says {text[:60]!r}",
            hint="see that nothing between here and there answers in its place",
        )
    return text.removeprefix("v")


def _kubernetes(name: str, version: str, url: str, target: Path, progress: Progress) -> None:
    address = f"{url}/release/v{version}/bin/linux/{go_processor()}/{name}"
    digest = _digest(_text(f"{address}.sha256").split()[:1], f"{address}.sha256")
    _download(address, digest, target / name, progress)
    (target / name).chmod(0o755)


def _etcd(version: str, url: str, target: Path, progress: Progress) -> None:
    stem = f"etcd-v{version}-linux-{go_processor()}"
    sums = f"{url}/v{version}/SHA256SUMS"
    pairs = (line.split() for line in _text(sums).splitlines())
    digests = [pair[0] for pair in pairs if pair[1:] == [f"{stem}.tar.gz"]]
    archive = target / f"{stem}.tar.gz"
    _download(f"{url}/v{version}/{archive.name}", _digest(digests, sums), archive, progress)
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"{stem}/etcd")
            if member is None:
                raise KeyError(f"{stem}/etcd")
            with member, (target / "etcd").open("wb") as file:
                shutil.copyfileobj(member, file)
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise BinariesError(
            f"{archive.name} holds no {stem}/etcd",
            hint="see the release notes of etcd",
            detail=str(error),
        ) from error
    archive.unlink()
    (target / "etcd").chmod(0o755)


def _digest(found: list[str], where: str) -> str:
    if len(found) != 1 or not re.fullmatch(r"[0-9a-fA-F]{64}", found[0]):
        raise BinariesError(
            f"{where} has no SHA-256 digest for this machine's processor ({go_processor()})",
            hint="`make api-binaries` in a checkout builds the programs",
        )
    return found[0].lower()


def _text(address: str) -> str:
    with _explained():
        return download.text(address)


def _download(address: str, digest: str, path: Path, progress: Progress) -> None:
    """Writes what ``address`` has to ``path``; raises unless its SHA-256 is ``digest``."""
    with _explained():
        download.download(address, digest, path, progress)


@contextmanager
def _explained() -> Iterator[None]:
    """Adds what else brings these programs."""
    build = "`make api-binaries` in a checkout builds the programs"
    try:
        yield
    except download.NotThereError as error:
        released = f"see that this version was released for linux/{go_processor()}"
        raise BinariesError(
            error.message, hint=f"{released}; or {build}", detail=error.detail
        ) from error
    except download.DownloadError as error:
        hint = (
            error.hint if isinstance(error, download.DigestError) else f"{error.hint}; or {build}"
        )
        raise BinariesError(error.message, hint=hint, detail=error.detail) from error
