"""Where a run takes place: from names to a lab, and what has to be there before one is made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.cnis.cni import Cni
from harness.engines.found import Found
from harness.labs.base import Lab, LabError
from harness.labs.netns.lab import NODES
from harness.run import embedded

API_VERSION = "1.36"
"""Of Kubernetes, for ``--lab-api``."""
#: Container engines that kind can use.
ENGINES = ("docker", "podman", "nerdctl")


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked for. ``families``: 4, 6 or both, IPv4 first. ``nodes``: how many.

    ``api``: the embedded lab as a Kubernetes cluster, with ``proxy`` (``kube-proxy`` or ``lab``)
    and the programs of ``api_version``, in ``api_binaries`` or wherever they are found.
    ``brought``: the CNI's policy engine, where it is another's.

    On a cluster that exists: ``context`` of the kubeconfig ("": the current one), images of one's
    own, ``yes``: it may look like production, ``wide``: scenarios that reach into all namespaces
    may run. ``run`` and ``worker`` mark what is made through an API.
    """

    lab: str = "netns"
    fabric: str = "routed"
    families: tuple[int, ...] = (4,)
    dataplane: str = "iptables"
    nodes: int = 3
    api: bool = False
    proxy: str = "kube-proxy"
    api_version: str = API_VERSION
    api_binaries: Path | None = None
    brought: Found | None = None
    run: str = "lab"
    worker: str = ""
    context: str = ""
    server_image: str = ""
    client_image: str = ""
    yes: bool = False
    wide: bool = False

    @property
    def name(self) -> str:
        """What records call it."""
        return f"{self.lab}+api" if self.api else self.lab

    @property
    def families_name(self) -> str:
        """As the command line has it."""
        return "dual" if len(self.families) > 1 else f"ipv{self.families[0]}"

    @property
    def node_names(self) -> tuple[str, ...]:
        """As kind names them: control-plane, worker, worker2, worker3, …"""
        more = (f"worker{n}" for n in range(len(NODES), self.nodes))
        return (*NODES, *more)[: self.nodes]


def check(cni: Cni, place: Place) -> list[str]:
    """Raises LabError, with the one step that mends it, where the lab cannot come up on this
    machine. Nothing is left running or written. Returns lines for the header."""
    if place.lab == "netns":
        return embedded.check(cni, place)
    if place.lab == "kubeconfig":
        from harness.run import existing

        return existing.check(cni, place)
    raise LabError(_no_cluster(cni))


def make(cni: Cni, place: Place, directory: Path) -> Lab:
    """The lab, not yet up. Its logs go to ``directory``. Raises LabError."""
    if place.lab == "netns":
        return embedded.make(cni, place, directory)
    if place.lab == "kubeconfig":
        from harness.run import existing

        return existing.make(cni, place)
    raise LabError(_no_cluster(cni))


def clear_away(place: Place) -> None:
    """At the end of a run: what its workers have left on a cluster that they share. Raises
    LabError."""
    if place.lab == "kubeconfig":
        from harness.run import existing

        existing.clear_away(place)


def engine(cni: Cni, place: Place) -> bool:
    """Whether a policy engine runs in the lab's own nodes."""
    return place.lab == "netns" and bool(cni.api_engine if place.api else cni.engine)


def way_in(lab: Lab) -> str:
    """How a person gets into a lab that is up."""
    holder = getattr(lab, "holder", None)  # the embedded lab's, with and without an API
    if holder is None:
        return ""
    pid = holder.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    enter = f"nsenter --preserve-credentials -t {children[0] if children else pid} -U -m -n -p"
    node = list(lab.facts()["nodes"])[-1]
    return f"Into a node: {enter} ip netns exec {node} sh"


def _no_cluster(cni: Cni) -> str:
    """One sentence that helps."""
    instead = "take --cni enforcer, which runs on the embedded lab and needs neither"
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None or shutil.which("kind") is None:
        lacks = "neither docker nor podman nor nerdctl" if engine is None else "no kind"
        return (
            f"{cni.title} runs on a kind cluster, and there is {lacks} on PATH: install "
            f"{'one of them, and kind' if engine is None else 'kind'} 0.32 or newer, or {instead}"
        )
    return f"{cni.title} runs on a kind cluster, which is not to be had yet: {instead}"
