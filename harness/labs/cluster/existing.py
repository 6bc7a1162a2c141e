"""A lab on a cluster that exists and that others use: ``--lab kubeconfig``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.labs.base import Evidence, LabError, Shell
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.lab import ClusterLab
from harness.labs.cluster.names import SYSTEM, Names
from harness.labs.cluster.objects import RUN_LABEL, WORKER_LABEL, Images
from harness.labs.cluster.spread import FanOut
from harness.labs.cluster.survey import Survey
from harness.model.actions import Action
from harness.model.flow import Cell, Endpoint
from harness.model.world import Pod, World

SHARED = "all"
"""The worker of what all workers of a run share: the pods that stand for nodes."""
ALONE = "main"
"""The worker's name where there is but one."""


class ExistingLab(ClusterLab):
    """Implements :class:`harness.labs.base.Lab` in namespaces of its own.

    ``run`` is the id of the run and ``worker`` the xdist worker ("" where there is none); a
    scenario's namespace ``x`` is ``np-RUN-WORKER-x``, ``RUN`` the id's last part. ``most``: how
    many nodes are used. What the workers share is deleted by
    :func:`sweep`.
    """

    name = "kubeconfig"

    def __init__(
        self,
        api: Api,
        survey: Survey,
        *,
        run: str,
        worker: str = "",
        images: Images | None = None,
        most: int = 3,
        fan_out: FanOut | None = None,
    ) -> None:
        super().__init__(api, run=run, images=images, fan_out=fan_out)
        self.worker = worker or ALONE
        self.survey = survey
        prefix = "-".join(filter(None, ("np", run.rpartition("-")[2], worker)))
        kept = (*SYSTEM, self.node_namespace)
        self.names = Names(prefix, survey.aliases(most), kept)

    @property
    def selector(self) -> str:
        """See :class:`ClusterLab`: what is this worker's, and what all share."""
        return f"{RUN_LABEL}={self.run},{WORKER_LABEL} in ({self.worker},{SHARED})"

    def marks(self, namespace: str) -> dict[str, str]:
        """See :class:`ClusterLab`."""
        worker = SHARED if namespace == self.node_namespace else self.worker
        return {RUN_LABEL: self.run, WORKER_LABEL: worker}

    @property
    def fan_out_name(self) -> str:
        """See :class:`ClusterLab`: each worker of a run has a Job of its own."""
        return f"fan-out-{self.worker}"

    def fan_out_marks(self) -> dict[str, str]:
        """See :class:`ClusterLab`."""
        return {RUN_LABEL: self.run, WORKER_LABEL: self.worker}

    def connect(self) -> None:
        """See :class:`ClusterLab`; nodes that are not used are left out."""
        super().connect()
        used = set(self.names.nodes.values())
        nodes = {name: node for name, node in self.world.nodes.items() if name in used}
        self.world = self.world.with_(nodes=nodes)

    def make_node_clients(self) -> None:
        """See :class:`ClusterLab`. Where they cannot be had, what needs them is missing."""
        try:
            super().make_node_clients()
        except LabError as error:
            why = f"pods on the nodes' own network cannot be had: {error.message}"
            self.features -= {"node-client"}
            self.missing = {**self.missing, "node-client": why}
            gone = (key for key in self.world.pods if key[0] == self.node_namespace)
            pods = {key: self.world.pods[key] for key in self.world.pods.keys() - set(gone)}
            self.world = self.world.with_(pods=pods)

    def create_pod(self, pod: Pod) -> None:
        """See :class:`ClusterLab`; another worker may have made what is shared."""
        try:
            super().create_pod(pod)
        except ApiError as error:
            if error.status != 409 or pod.namespace != self.node_namespace:
                raise

    def _delete_all(self) -> None:
        self.delete(f"{RUN_LABEL}={self.run},{WORKER_LABEL}={self.worker}")
        if self.worker == ALONE:
            sweep(self.api, self.run)

    def answers_as(self, pod: Pod) -> str:
        """See :class:`ClusterLab`: as scenarios call it."""
        if pod.namespace == self.node_namespace:
            return super().answers_as(pod)
        return f"{self.names.own(pod.namespace)}/{pod.name}"

    # -- the scenario's names, in and out ----------------------------------------------------

    def dns_namespace(self, namespace: str) -> str:
        """What a namespace is called in names of Services."""
        return self.names.namespace(namespace)

    def apply(self, actions: Sequence[Action]) -> float:
        """See :class:`harness.labs.base.Lab`."""
        return super().apply([self.names.action(action) for action in actions])

    def resolve(self, world: World) -> World:
        """See :class:`harness.labs.base.Lab`."""
        return self.names.back(world, super().resolve(self.names.world(world)))

    def shell(self, client: Endpoint) -> Shell:
        """See :class:`harness.labs.base.Lab`."""
        return super().shell(self.names.endpoint(client))

    def gather(self, clients: Sequence[Endpoint]) -> None:
        """See :class:`ClusterLab`."""
        super().gather([self.names.endpoint(client) for client in clients])

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`."""
        return super().evidence(self.names.world(world), [self.names.cell(cell) for cell in cells])

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        return {
            **super().facts(),
            "node_names": dict(self.names.nodes),
            "namespaces": f"np-{self.run.rpartition('-')[2]}-*",
        }


def sweep(api: Api, run: str) -> None:
    """Delete all that a run has made, whichever worker did. Raises LabError where the cluster does
    not answer."""
    lab = ClusterLab(api, run=run)
    lab.check()
    lab.delete(lab.selector)
