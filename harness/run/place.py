"""Where a run takes place: from names to a lab, and what has to be there before one is made."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.cnis.cni import Cni
from harness.labs.base import Lab, LabError
from harness.labs.netns import detect
from harness.labs.netns.fabric import FABRICS
from harness.labs.netns.lab import NODES, NetnsLab

#: Container engines that kind can use.
ENGINES = ("docker", "podman", "nerdctl")
#: What the in-house enforcer's data planes need of the kernel and of tools (see detect).
DATAPLANES = {
    "iptables": ("tool:iptables", "tool:ipset", "iptables", "ipset", "conntrack"),
    "nftables": ("tool:nft", "services"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked for. ``families``: 4, 6 or both, IPv4 first. ``nodes``: how many."""

    lab: str = "netns"
    fabric: str = "routed"
    families: tuple[int, ...] = (4,)
    dataplane: str = "iptables"
    nodes: int = 3

    @property
    def families_name(self) -> str:
        """As the command line has it."""
        return "dual" if len(self.families) > 1 else f"ipv{self.families[0]}"

    @property
    def node_names(self) -> tuple[str, ...]:
        """As kind names them: control-plane, worker, worker2, worker3, …"""
        more = (f"worker{n}" for n in range(len(NODES), self.nodes))
        return (*NODES, *more)[: self.nodes]


def check(cni: Cni, place: Place) -> None:
    """Raises LabError, with the one step that mends it, where the lab cannot come up on this
    machine. Nothing is left running or written."""
    if place.lab != "netns":
        raise LabError(_no_cluster(cni, place))
    found = detect.abilities()
    fabric = detect.needed(FABRICS[place.fabric], place.families, proxy=True)
    tools = (f"tool:{name}" for name in detect.NEEDED)
    for name in ("namespaces", *tools, *fabric):
        _need(found, name, f"the embedded lab ({place.fabric})")
    if cni.engine is not None:
        for name in DATAPLANES[place.dataplane]:
            _need(found, name, f"data plane {place.dataplane}")


def make(cni: Cni, place: Place, directory: Path) -> Lab:
    """The lab, not yet up. Its logs go to ``directory``. Raises LabError."""
    if place.lab != "netns":
        raise LabError(_no_cluster(cni, place))
    engine = cni.engine
    argv = [word.replace("{python}", sys.executable) for word in engine.argv] if engine else None
    return NetnsLab(
        directory,
        fabric=place.fabric,
        families=place.families,
        nodes=place.node_names,
        engine=argv,
        engine_env=engine.env if engine else None,
        dataplane=place.dataplane,
    )


def way_in(lab: Lab) -> str:
    """How a person gets into a lab that is up."""
    if not isinstance(lab, NetnsLab):
        return ""
    pid = lab.holder.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    enter = f"nsenter --preserve-credentials -t {children[0] if children else pid} -U -m -n -p"
    return f"Into a node: {enter} ip netns exec {lab.node_names[-1]} sh"


def _need(found: Mapping[str, detect.Ability], name: str, who: str) -> None:
    ability = found[name]
    if not ability.ok:
        raise LabError(f"{who} needs {ability.title}: {ability.reason}", hint=ability.hint)


def _no_cluster(cni: Cni, place: Place) -> str:
    """One sentence that helps."""
    instead = "take --cni enforcer, which runs on the embedded lab and needs neither"
    if place.lab == "kubeconfig":
        return f"--lab kubeconfig is not to be had yet: {instead}"
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None or shutil.which("kind") is None:
        lacks = "neither docker nor podman nor nerdctl" if engine is None else "no kind"
        return (
            f"{cni.title} runs on a kind cluster, and there is {lacks} on PATH: install "
            f"{'one of them, and kind' if engine is None else 'kind'} 0.32 or newer, or {instead}"
        )
    return f"{cni.title} runs on a kind cluster, which is not to be had yet: {instead}"
