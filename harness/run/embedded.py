"""The embedded lab as a place for runs: by itself, or as a Kubernetes cluster (``--lab-api``)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cnis.cni import Cni
from harness.engines import make as make_
from harness.labs.base import Lab, LabError
from harness.labs.netns import detect
from harness.labs.netns.lab import NetnsLab

if TYPE_CHECKING:
    from harness.run.place import Place

#: What the in-house enforcer's data planes need of the kernel and of tools (see detect).
DATAPLANES = {
    "iptables": ("tool:iptables", "tool:ipset", "iptables", "ipset", "conntrack"),
    "nftables": ("tool:nft", "services"),
}
#: What kube-proxy needs, by its mode.
PROXY_MODES = {"iptables": ("tool:iptables", "iptables"), "nftables": ("tool:nft", "services")}


def check(cni: Cni, place: Place) -> list[str]:
    """Raises LabError where it cannot come up. Returns what the API's programs and the engine
    are."""
    engine = _engine_of(cni, place)
    shape = make_.fabric_of(cni, place.fabric)
    found = detect.abilities()
    fabric = detect.needed(shape, place.families, proxy=True)
    tools = (f"tool:{name}" for name in detect.NEEDED)
    for name in ("namespaces", *tools, *fabric):
        _need(found, name, f"the embedded lab ({place.fabric})")
    if engine and not place.api:
        for name in DATAPLANES[place.dataplane]:
            _need(found, name, f"data plane {place.dataplane}")
    if not place.api:
        return []
    if place.proxy == "kube-proxy":
        for name in PROXY_MODES[place.dataplane]:
            _need(found, name, f"kube-proxy in mode {place.dataplane}")
    make_.check(cni, place.brought, place.dataplane, found)
    make_.engine(cni, place.brought, place.dataplane)
    from harness.labs.controlplane import binaries

    api = f"API: {binaries.find(place.api_version, place.api_binaries)}"
    return [api, *make_.header(cni, place.brought), *_fan_out(place)]


def make(cni: Cni, place: Place, directory: Path) -> Lab:
    """The lab, not yet up. Raises LabError."""
    _engine_of(cni, place)
    if place.api:
        return _cluster(cni, place, directory)
    engine = cni.engine
    return NetnsLab(
        directory,
        fabric=place.fabric,
        families=place.families,
        nodes=place.node_names,
        engine=_filled(engine.argv) if engine else None,
        engine_env=engine.env if engine else None,
        dataplane=place.dataplane,
    )


def _cluster(cni: Cni, place: Place, directory: Path) -> Lab:
    from harness.labs.controlplane import binaries
    from harness.labs.controlplane.lab import EmbeddedClusterLab

    return EmbeddedClusterLab(
        directory,
        run=place.run,
        fabric=make_.fabric_of(cni, place.fabric),
        families=place.families,
        nodes=place.node_names,
        binaries=binaries.find(place.api_version, place.api_binaries),
        proxy=place.proxy,
        proxy_mode=place.dataplane,
        engine=make_.engine(cni, place.brought, place.dataplane),
        dataplane=place.dataplane,
        direct=place.fan_out.mode == "auto",
        fan_out=place.fan_out,
    )


def _fan_out(place: Place) -> list[str]:
    """The lab's own shells are quicker than any stream: others are taken if they are asked for."""
    asked = place.fan_out
    if asked.mode == "auto":
        return []
    return [f"fan-out: {asked}"]


def _engine_of(cni: Cni, place: Place) -> bool:
    """Whether there is an engine to run. Raises LabError for one that cannot be run so."""
    wanted, other = (cni.api_engine, cni.engine) if place.api else (cni.engine, cni.api_engine)
    if wanted is None and other is not None:
        raise LabError(
            f"{cni.title} is no engine for the embedded lab with"
            + ("" if place.api else "out")
            + " an API: its entry has no "
            + ("[api_engine]" if place.api else "[engine]"),
            hint="leave out --lab-api" if place.api else "take --lab-api",
        )
    return wanted is not None


def _filled(argv: tuple[str, ...]) -> list[str]:
    return [word.replace("{python}", sys.executable) for word in argv]


def _need(found: Mapping[str, detect.Ability], name: str, who: str) -> None:
    ability = found[name]
    if not ability.ok:
        raise LabError(f"{who} needs {ability.title}: {ability.reason}", hint=ability.hint)
