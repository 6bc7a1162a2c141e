"""Downloads a release's programs, each held against the digest that its project publishes.

Kubernetes publishes ``release/vX.Y.Z/bin/linux/ARCH/NAME`` with the digest beside it in
``NAME.sha256``, and the newest patch of a minor in ``release/stable-X.Y.txt``; etcd an archive a
release, with the digests of all of them in ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

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
from harness.labs.controlplane.store import Progress, T, fill

KUBERNETES_URL = "https://dl.k8s.io"
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download"

#: Time to connect, and the longest silence in the middle of a download.
SILENCE_SECONDS = 30.0
#: Between two of the three tries at one address.
RETRY_SECONDS = 1.0
#: Seconds between two lines about one download.
LINE_SECONDS = 2.0


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


def _may_pass(error: BaseException) -> bool:
    """Whether trying again can help: not where the server says that there is no such thing."""
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    return isinstance(error, requests.RequestException)


def _again(call: Callable[..., T], *args: Any) -> T:
    return Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(3),
        wait=wait_fixed(RETRY_SECONDS),
        reraise=True,
    )(call, *args)


def _text(address: str) -> str:
    with _reaching(address):
        return _again(_get, address)


def _get(address: str) -> str:
    answer = requests.get(address, timeout=SILENCE_SECONDS)
    answer.raise_for_status()
    return answer.text


def _download(address: str, digest: str, path: Path, progress: Progress) -> None:
    """Writes what ``address`` has to ``path``; raises unless its SHA-256 is ``digest``."""
    begun = time.monotonic()
    with _reaching(address):
        found, size = _again(_stream, address, path, progress)
    if found != digest:
        raise BinariesError(
            f"{address} is not what was published: its SHA-256 is {found}, published is {digest}",
            hint="nothing of it was kept; try again, and see what stands between here and there",
        )
    progress(f"{path.name}: {size / 1e6:.1f} MB in {time.monotonic() - begun:.0f} s, digest good")


def _stream(address: str, path: Path, progress: Progress) -> tuple[str, int]:
    """The SHA-256 and the size in bytes of what came from ``address`` and went to ``path``."""
    sha256, size, said = hashlib.sha256(), 0, time.monotonic()
    with (
        requests.get(address, timeout=SILENCE_SECONDS, stream=True) as answer,
        path.open("wb") as file,
    ):
        answer.raise_for_status()
        total = int(answer.headers.get("Content-Length", 0))
        for chunk in answer.iter_content(1 << 16):
            file.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
            if time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                of = f" of {total / 1e6:.1f}" if total else ""
                progress(f"{path.name}: {size / 1e6:.1f}{of} MB")
    return sha256.hexdigest(), size


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Turns what ``requests`` raises into words for people."""
    build = "`make api-binaries` in a checkout builds the programs"
    try:
        yield
    except requests.HTTPError as error:
        # Its text is such as "404 Client Error: Not Found for url: ..."
        raise BinariesError(
            f"{address} is not to be had: {str(error).partition(' for url')[0]}",
            hint=f"see that this version was released for linux/{go_processor()}; or {build}",
        ) from error
    except requests.RequestException as error:
        raise BinariesError(
            f"{address} cannot be reached or broke off: {type(error).__name__}",
            hint=f"see the connection and the proxy settings, then try again; or {build}",
            detail=str(error),
        ) from error
