"""Where a run takes place: from names to a lab, and what has to be there before one is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.cnis.cni import Cni
from harness.engines.found import Found
from harness.labs.base import Lab
from harness.labs.cluster.spread import FanOut
from harness.labs.netns.lab import NODES
from harness.run import embedded

API_VERSION = "1.36"
"""Of Kubernetes, for ``--lab-api``."""


@dataclass(frozen=True, slots=True)
class KindOptions:
    """What can be asked for of ``--lab kind``.

    ``image``: a node image or a version of Kubernetes; ``config``: a file in the place of the
    catalogue's; ``clusters``: how many; ``reuse``: the name of one that is there; ``files``:
    manifests in the place of the catalogue's; ``archives``: a directory of image archives;
    ``offline``: nothing is downloaded; ``network``: the entry whose network a mere policy engine
    stands on.
    """

    image: str = ""
    config: Path | None = None
    clusters: int = 1
    reuse: str = ""
    files: tuple[Path, ...] = ()
    archives: Path | None = None
    offline: bool = False
    network: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked for. ``families``: 4, 6 or both, IPv4 first. ``nodes``: how many.

    ``api``: the embedded lab as a Kubernetes cluster, with ``proxy`` (``kube-proxy`` or ``lab``)
    and the programs of ``api_version``, in ``api_binaries`` or wherever they are found.
    ``brought``: the CNI's policy engine, where it is another's.

    On a cluster that exists: ``context`` of the kubeconfig ("": the current one), images of one's
    own, ``yes``: it may look like production, ``wide``: scenarios that reach into all namespaces
    may run; ``dry_run``: nothing will be made. ``run`` and ``worker`` mark what is made through
    an API. ``fan_out``: where clients' exec streams come from.
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
    dry_run: bool = False
    kind: KindOptions = KindOptions()
    fan_out: FanOut = field(default_factory=FanOut)

    @property
    def name(self) -> str:
        """What records call it."""
        return f"{self.lab}+api" if self.api else self.lab

    @property
    def shared(self) -> bool:
        """Whether all workers have one cluster, and maybe others as well."""
        return self.lab in ("kubeconfig", "kind")

    @property
    def reaches_all(self) -> bool:
        """Whether scenarios may reach into all namespaces: a cluster of one's own has no others."""
        return self.wide or (self.lab == "kind" and not self.kind.reuse)

    def words(self, engine: bool) -> str:
        """What it is like, for the header. ``engine``: one runs in its nodes."""
        if self.lab == "kind":
            return f"lab kind: {self.nodes} nodes, {self.families_name}"
        if self.lab != "netns":
            return f"lab {self.name}: {self.nodes} nodes at most"
        proxy = f", proxy {self.proxy}" if self.api else ""
        plane = f", data plane {self.dataplane}" if engine else ""
        families = "+".join(f"IPv{family}" for family in self.families)
        return (
            f"lab {self.name}: {self.nodes} nodes, fabric {self.fabric}{proxy}{plane}, {families}"
        )

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
    from harness.run import kinds

    return kinds.check(cni, place)


def make(cni: Cni, place: Place, directory: Path) -> Lab:
    """The lab, not yet up. Its logs go to ``directory``. Raises LabError."""
    if place.lab == "netns":
        return embedded.make(cni, place, directory)
    if place.lab == "kubeconfig":
        from harness.run import existing

        return existing.make(cni, place)
    from harness.run import kinds

    return kinds.make(cni, place)


def prepare(
    cni: Cni, place: Place, logs: Path, say: Callable[[str], None], *, keep_failed: bool
) -> None:
    """What the run's first process makes for all: a kind cluster. Raises LabError, and the tests
    tell of it. ``say`` gets a line for each phase."""
    if place.lab == "kind":
        from harness.run import kinds

        kinds.prepare(cni, place, logs, say, keep_failed=keep_failed)


def finish(cni: Cni, place: Place, logs: Path, *, failed: bool, keep: bool) -> Iterator[str]:
    """The end of what :func:`prepare` has made; lines for people."""
    if place.lab == "kind":
        from harness.run import kinds

        yield from kinds.finish(cni, place, logs, failed=failed, keep=keep)


def entries(cni: Cni, place: Place) -> tuple[Cni, ...]:
    """The catalogue's entries whose known deviations show here: the CNI's, and that of the network
    which a mere policy engine stands on. Raises LabError."""
    if place.lab != "kind":
        return (cni,)
    from harness.run import kinds

    return kinds.entries(cni, place)


def recognise(context: str) -> str:
    """The catalogue's name of the CNI of a cluster that exists. Raises LabError."""
    from harness.run import existing

    return existing.recognise(context)


def clear_away(place: Place, *, keep: bool) -> str:
    """At the end of a run: what its workers have left on a cluster that they share, deleted or
    kept; a line for people. Raises LabError."""
    if place.lab != "kubeconfig":
        return ""
    from harness.run import existing

    if keep:
        return existing.keep(place)
    existing.clear_away(place)
    return ""


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
