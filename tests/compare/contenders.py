"""Who is compared: the in-house enforcer on both data planes, and every engine that is here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cnis import catalogue
from harness.cnis.cni import Cni
from harness.engines import choose, make
from harness.engines.choose import Wanted
from harness.engines.found import Found
from harness.labs.base import LabError
from harness.labs.netns import detect
from harness.run.place import Place


@dataclass(frozen=True, slots=True)
class Contender:
    """``arguments``: what pytest is told to run the suites with it."""

    name: str
    cni: Cni
    found: Found | None
    place: Place
    arguments: tuple[str, ...]

    @property
    def says(self) -> str:
        """What it is, its version and its digest."""
        if self.found is None:
            return "this checkout"
        version = f"version {self.found.version or 'not told'}"
        return f"{self.cni.summary}; {version}, {self.found.digest[:19]}"


def enforcer() -> Iterator[Contender]:
    cni = catalogue.get("enforcer")
    for plane in ("iptables", "nftables"):
        arguments = ("--lab-api", "--cni", "enforcer", "--lab-dataplane", plane)
        yield Contender(f"enforcer, {plane}", cni, None, _place(cni, None, plane), arguments)


def none(like: Place) -> Contender:
    """The same network without an engine."""
    place = Place(fabric=like.fabric, dataplane=like.dataplane, nodes=1, api=True)
    return Contender("no engine", catalogue.get("none"), None, place, ())


def foreign(brought: Sequence[str], only: Sequence[str] = ()) -> tuple[list[Contender], list[str]]:
    """Every engine that is here, and why each other one is not compared.

    ``brought``: more of them, as ``ENTRY.toml:ENGINE``. ``only``: of the catalogue's, these.
    """
    there: list[Contender] = []
    missing: list[str] = []
    for one in brought:
        file, _, engine = one.partition(":")
        wanted = Wanted(Path(file).stem, Path(file).read_text(), Path(engine))
        arguments = ("--lab-engine-file", file, "--lab-engine", engine)
        _add(wanted, arguments, there, missing)
    for name in catalogue.names():
        cni = catalogue.get(name)
        if cni.api_engine is None or not cni.api_engine.foreign:
            continue
        if only and name not in only:
            missing.append(f"{cni.title} was left out of this run")
        else:
            _add(Wanted(name), ("--lab", "netns", "--cni", name), there, missing)
    return there, missing


def _add(
    wanted: Wanted, arguments: tuple[str, ...], there: list[Contender], missing: list[str]
) -> None:
    try:
        cni, found = choose.choose(wanted)
    except LabError as error:
        missing.append(error.message)
        return
    assert cni.api_engine is not None
    planes = tuple(cni.api_engine.dataplanes) or ("nftables",)
    abilities = detect.abilities()
    for plane in planes:
        try:
            make.check(cni, found, plane, abilities)
        except LabError as error:
            missing.append(error.message)
            continue
        title = f"{cni.title}, {plane}" if len(planes) > 1 else cni.title
        words = (*arguments, "--lab-dataplane", plane)
        there.append(Contender(title, cni, found, _place(cni, found, plane), words))


def _place(cni: Cni, found: Found | None, plane: str) -> Place:
    return Place(fabric=cni.fabric, dataplane=plane, nodes=1, api=True, brought=found)
