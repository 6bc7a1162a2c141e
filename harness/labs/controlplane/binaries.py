"""Finds the programs of a Kubernetes control plane and sees that they are what they should be.

Where they are looked for, the first good one of each name winning:

1. the folder that ``--lab-api-binaries`` names: then this one only, and a fault in it is an error;
2. ``$KUBEBUILDER_ASSETS`` and the store of ``setup-envtest``: the field's convention. They hold
   etcd and kube-apiserver alone, so that the rest comes from further down;
3. ``PATH``;
4. the user's cache, which ``netpol api fetch`` and ``make api-binaries`` fill.

In 2 to 4 a program that is of another version, for another processor or broken is passed over;
should none be good, the error tells what was wrong with each.
"""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.labs import folders
from harness.labs.base import LabError

DEFAULT_VERSION = "1.36"
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")

#: The oldest etcd that a Kubernetes of today works with.
OLDEST_ETCD = (3, 5)

#: ``--version`` takes 0.1 s; a program that has not answered by then is something else.
ANSWER_SECONDS = 20.0

#: machine name of the kernel -> (e_machine of the ELF header, name of the processor in Go)
_PROCESSORS = {
    "x86_64": (62, "amd64"),
    "aarch64": (183, "arm64"),
    "ppc64le": (21, "ppc64le"),
    "s390x": (22, "s390x"),
    "riscv64": (243, "riscv64"),
}


class BinariesError(LabError):
    """A program of the control plane is missing or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Binary:
    """One program that was found and checked. ``version`` is its own word, such as ``1.36.5``."""

    name: str
    path: Path
    version: str
    place: str


@dataclass(frozen=True, slots=True)
class Binaries:
    """The five programs of a control plane, by name (``NAMES``)."""

    found: Mapping[str, Binary]

    def __getitem__(self, name: str) -> Path:
        return self.found[name].path

    @property
    def version(self) -> str:
        """The exact version of the API server, such as ``1.36.5``."""
        return self.found["kube-apiserver"].version

    def __str__(self) -> str:
        places = sorted({str(binary.path.parent) for binary in self.found.values()})
        etcd = self.found["etcd"].version
        return f"Kubernetes {self.version}, etcd {etcd} in {', '.join(places)}"


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere to look. ``folders`` in order of preference; none where ``absent`` says why."""

    title: str
    folders: tuple[Path, ...] = ()
    absent: str = ""


def find(
    version: str = DEFAULT_VERSION,
    directory: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Binaries:
    """The programs for Kubernetes ``version`` (``1.36``: any patch; ``1.36.5``: this one).

    With ``directory`` only there. Raises ``BinariesError``, which names each program that lacks,
    what was seen in each place, and the step that mends it.
    """
    wanted = parse_version(version)
    if directory is None:
        where = places(wanted, environ)
    elif os.path.isdir(directory):
        where = [Place(str(directory), (directory,))]
    else:
        raise BinariesError(
            f"{directory} is no folder that can be read: the programs of Kubernetes {version} "
            "cannot be taken from there",
            hint=f"name the folder that holds {', '.join(NAMES)}",
        )
    with ThreadPoolExecutor(len(NAMES)) as pool:
        results = list(pool.map(lambda name: _first_good(name, wanted, where), NAMES))
    found = {result.name: result for result in results if isinstance(result, Binary)}
    faults = {n: r for n, r in zip(NAMES, results, strict=True) if not isinstance(r, Binary)}
    if faults:
        raise _not_found(version, directory, faults)
    return Binaries(found)


def places(wanted: tuple[int, ...], environ: Mapping[str, str]) -> list[Place]:
    """Where programs are looked for when no folder was named, in order."""
    assets = environ.get("KUBEBUILDER_ASSETS", "")
    path = tuple(Path(part) for part in environ.get("PATH", "").split(os.pathsep) if part)
    suffix = f"-linux-{go_processor()}"
    return [
        Place("KUBEBUILDER_ASSETS", (Path(assets),) if assets else (), "not set"),
        _store("setup-envtest's store", envtest_home(environ), wanted, suffix),
        Place("PATH", path, "empty"),
        _store("the cache", cache_home(environ), wanted, ""),
    ]


def cache_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's cache of control planes: one folder for each exact version."""
    return folders.cache(environ) / "api"


def envtest_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where ``setup-envtest`` keeps its folders, named ``1.36.0-linux-amd64`` and alike."""
    return folders.base("XDG_DATA_HOME", environ) / "kubebuilder-envtest" / "k8s"


def go_processor() -> str:
    """This machine's processor in Go's (and so in Kubernetes' releases') terms."""
    return _PROCESSORS.get(platform.machine(), (0, platform.machine()))[1]


def parse_version(text: str) -> tuple[int, ...]:
    """``1.36`` or ``1.36.5``, with or without a ``v`` ahead, as numbers."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise BinariesError(
            f"{text!r} is no version of Kubernetes",
            hint=f"give a minor version such as {DEFAULT_VERSION}, or an exact one such as 1.36.5",
        )
    return tuple(int(part) for part in match.groups() if part is not None)


def check(path: Path, name: str, wanted: tuple[int, ...]) -> str:
    """The version that the program at ``path`` says it has.

    Raises ``BinariesError`` unless it is a program for this machine, may be run, answers
    ``--version`` in time, and says that it is ``name`` of a version that begins with ``wanted``
    (etcd: ``OLDEST_ETCD`` or newer).
    """
    if not path.is_file():
        raise BinariesError(f"{path} is no file", hint=f"put the program {name} in its place")
    if not os.access(path, os.X_OK):
        raise BinariesError(f"{path} may not be run", hint=f"chmod +x {path}")
    _check_header(path)
    answer = _ask(path)
    match = re.search(
        r"^etcd Version: (\d+\.\d+\.\d+\S*)" if name == "etcd" else r"^Kubernetes v(\S+)",
        answer,
        re.MULTILINE,
    )
    if match is None:
        first = answer.strip().partition("\n")[0][:120]
        raise BinariesError(
            f"{path} does not tell the version of {name}: it answered {first!r}",
            hint=f"put the program {name} in its place",
        )
    version = match[1]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if name == "etcd":
        good, need = numbers >= OLDEST_ETCD, ".".join(map(str, OLDEST_ETCD)) + " or newer"
    else:
        good, need = numbers[: len(wanted)] == wanted, ".".join(map(str, wanted))
    if not good:
        raise BinariesError(
            f"{path} is {version}, wanted is {need}",
            hint=f"put {name} {need} in its place"
            + ("" if name == "etcd" else f", or ask for version {'.'.join(map(str, numbers[:2]))}"),
        )
    return version


def _check_header(path: Path) -> None:
    """Reads the ELF header (see elf(5)) so that a foreign program is named as what it is."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError as error:
        raise BinariesError(f"{path} cannot be read: {error.strerror}") from error
    hint = "take the Linux build for this machine's processor"
    if len(header) < 20 or header[:4] != b"\x7fELF":
        raise BinariesError(f"{path} is no Linux program (it has no ELF header)", hint=hint)
    (machine,) = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)
    here = platform.machine()
    if here in _PROCESSORS and machine != _PROCESSORS[here][0]:
        named = dict(_PROCESSORS.values())
        other = named.get(machine, f"ELF machine {machine}")
        raise BinariesError(
            f"{path} is for another processor: {other}, this one is {go_processor()}", hint=hint
        )


def _ask(path: Path) -> str:
    hint = f"remove {path} and get it anew"
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BinariesError(
            f"{path} --version has not answered within {ANSWER_SECONDS:g} s", hint=hint
        ) from None
    except OSError as error:
        raise BinariesError(f"{path} cannot be run: {error.strerror}", hint=hint) from error
    answer = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        how = (
            f"was ended by signal {-done.returncode}"
            if done.returncode < 0
            else f"ended with exit code {done.returncode}"
        )
        last = "\n".join(answer.strip().splitlines()[-5:])
        raise BinariesError(f"{path} --version {how}", hint=hint, detail=last)
    return answer


@dataclass(frozen=True, slots=True)
class _Fault:
    place: str
    what: str
    hint: str = ""


def _first_good(
    name: str, wanted: tuple[int, ...], where: list[Place]
) -> Binary | tuple[_Fault, ...]:
    faults: list[_Fault] = []
    for place in where:
        # os.path.exists: a folder on PATH that this user may not enter is as good as absent.
        candidates = [path for f in place.folders if os.path.exists(path := f / name)]
        for path in candidates:
            try:
                return Binary(name, path, check(path, name, wanted), place.title)
            except BinariesError as error:
                faults.append(_Fault(place.title, error.message, error.hint))
        if not place.folders:
            faults.append(_Fault(place.title, place.absent))
        elif not candidates:
            faults.append(_Fault(place.title, "not there"))
    return tuple(faults)


def _not_found(
    version: str, directory: Path | None, faults: Mapping[str, tuple[_Fault, ...]]
) -> BinariesError:
    """One error for all that lacks: per place, what was wrong there with which programs."""
    seen: dict[tuple[str, str], list[str]] = {}
    for name, of_name in faults.items():
        for fault in of_name:
            seen.setdefault((fault.place, fault.what), []).append(name)
    lines = [
        f"  {place}: {what} ({'all five' if len(names) == len(NAMES) else ', '.join(names)})"
        for (place, what), names in seen.items()
    ]
    minor = ".".join(version.removeprefix("v").split(".")[:2])
    hint = (
        f"`netpol api fetch --version {minor}` downloads them; `make api-binaries` in a checkout "
        "builds them"
    )
    if directory is not None:
        own = next((fault.hint for of_name in faults.values() for fault in of_name), "")
        hint = own or f"put them into {directory}, or leave --lab-api-binaries out; {hint}"
    return BinariesError(
        f"no usable {', '.join(faults)} of Kubernetes {version}",
        hint=hint,
        detail="  looked in:\n" + "\n".join(lines),
    )


def _store(title: str, home: Path, wanted: tuple[int, ...], suffix: str) -> Place:
    """The folders in ``home`` that are named after a version which begins with ``wanted``."""
    try:
        present = list(home.iterdir())
    except OSError:
        present = []
    folders: list[tuple[tuple[int, ...], Path]] = []
    for folder in present:
        match = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)" + re.escape(suffix), folder.name)
        if match and (numbers := tuple(map(int, match.groups())))[: len(wanted)] == wanted:
            folders.append((numbers, folder))
    best_first = tuple(folder for _, folder in sorted(folders, reverse=True))
    text = ".".join(map(str, wanted))
    return Place(f"{title} ({home})", best_first, f"no folder for {text}{suffix}")
