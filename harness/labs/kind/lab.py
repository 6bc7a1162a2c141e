"""Scenarios on a kind cluster that is up: the cluster lab, with evidence from kind's nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.labs.base import Evidence, LabError, processors_here
from harness.labs.cluster import stream
from harness.labs.cluster.api import Api, path
from harness.labs.cluster.existing import ExistingLab
from harness.labs.cluster.survey import Survey
from harness.labs.kind import state
from harness.labs.kind.ready import Waiter
from harness.labs.kind.recipe import Look, Rollout
from harness.labs.kind.runtime import Runtime
from harness.model.flow import Cell
from harness.model.routing import nodes_of
from harness.model.world import World

_LOOK_SECONDS = 30.0
_MOST_CHARACTERS = 400_000


class KindLab(ExistingLab):
    """Implements :class:`harness.labs.base.Lab` on kind cluster ``cluster``, which is up; others
    make and end it: see :class:`harness.labs.kind.cluster.KindCluster`. ``looks`` are its evidence,
    beside what has become of the CNI's own pods (``rollouts``).
    """

    name = "kind"
    processors = processors_here()  # its clients run on this machine

    def __init__(
        self,
        api: Api,
        survey: Survey,
        *,
        cluster: str,
        runtime: Runtime,
        looks: Sequence[Look] = (),
        rollouts: Sequence[Rollout] = (),
        **options: Any,
    ) -> None:
        super().__init__(api, survey, **options)
        self.cluster = cluster
        self.runtime = runtime
        self.looks = tuple(looks)
        self.rollouts = tuple(rollouts)
        self._images: list[str] | None = None

    # -- evidence ----------------------------------------------------------------------------

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`: what the data plane says on the nodes of the cells,
        from the node or out of the CNI's own container."""
        theirs = self.names.world(world)
        nodes = nodes_of(theirs, [self.names.cell(cell) for cell in cells], self.world.nodes)
        wanted = [(look, node) for node in nodes for look in self.looks]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda one: self._look(*one), wanted))
        return (
            *self._unsteady(),
            *(one for one in found if one.text.strip()),
            *super().evidence(world, cells),
        )

    def _unsteady(self) -> Iterator[Evidence]:
        lines = Waiter(self.api).unsteady(self.rollouts)
        if lines:
            spaces = dict.fromkeys(one.namespace for one in self.rollouts)
            asked = ", ".join(f"GET {path('Pod', space)}" for space in spaces)
            yield Evidence("pods of the CNI that are not steady", "", asked, "\n".join(lines))

    def _look(self, look: Look, node: str) -> Evidence:
        shown = " ".join(look.argv)
        try:
            if look.workload:
                namespace, kind, name, container = look.workload.split("/")
                pod = self._pod_on(namespace, kind, name, node)
                where = f"{namespace}/{pod} ({container}): {shown}"
                code, text = stream.run(
                    self.api,
                    namespace,
                    pod,
                    container,
                    look.argv,
                    seconds=_LOOK_SECONDS,
                    protocols=self.protocols,
                )
            else:
                where = f"{self.runtime.name} exec {node} {shown}"
                done = self.runtime.exec(node, look.argv, seconds=_LOOK_SECONDS, check=False)
                code, text = done.code, done.out or done.err
            if code != 0:
                text = f"(ended with {code}) {text}"
        except LabError as error:
            where, text = shown, f"(not to be had: {error.message})"
        return Evidence(look.title, node, where, text[:_MOST_CHARACTERS])

    def _pod_on(self, namespace: str, kind: str, name: str, node: str) -> str:
        """The pod of a workload on a node. Raises LabError."""
        item = self.api.get(kind, namespace, name)
        labels = item["spec"]["selector"].get("matchLabels") or {}
        chosen = {
            "labelSelector": ",".join(f"{key}={value}" for key, value in labels.items()),
            "fieldSelector": f"spec.nodeName={node}",
        }
        for pod in self.api.list("Pod", namespace, **chosen)["items"]:
            return str(pod["metadata"]["name"])
        raise LabError(f"{kind} {namespace}/{name} has no pod on {node}")

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        known = state.read(self.cluster)
        return {
            **super().facts(),
            "cluster": self.cluster,
            "runtime": self.runtime.name,
            "start_seconds": {
                name: round(one, 1) for name, one in ((known and known.seconds) or {}).items()
            },
            "cni_images": self._cni_images(),
        }

    def _cni_images(self) -> list[str]:
        """What the cluster's DaemonSets really run."""
        if self._images is None:
            found: set[str] = set()
            for item in self.api.list("DaemonSet")["items"]:
                spec = item["spec"]["template"]["spec"]
                found |= {one["image"] for one in spec["containers"]}
            self._images = sorted(found)
        return self._images
