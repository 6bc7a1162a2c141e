"""The World: all that decides reachability, as immutable values.

A World holds what the Kubernetes API would hold, reduced to the fields that matter here. Actions
(:mod:`harness.model.actions`) turn one World into the next; labs make the same change for real and
fill in what only they know (addresses, nodes). Nothing in here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.model.policy import NO_LABELS, Labels, NetworkPolicy, Protocol, Source

if TYPE_CHECKING:
    from harness.model.cluster_policy import ClusterNetworkPolicy

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


class Phase(StrEnum):
    """``status.phase`` of a pod."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Workload(StrEnum):
    """What a pod of the harness runs: an nginx server, a busybox client, or (both) in one pod."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Namespace:
    """``labels`` always holds ``kubernetes.io/metadata.name``, as the API server sees to it."""

    name: str
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    annotations: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    source: Source | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.labels.get(NAMESPACE_NAME_LABEL) != self.name:
            object.__setattr__(self, "labels", {**self.labels, NAMESPACE_NAME_LABEL: self.name})


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A declared container port (1..65535); ``container`` tells a sidecar's ports apart.

    ``host_port``: the node's port that leads to it, None for none.
    """

    port: int
    protocol: Protocol = Protocol.TCP
    name: str | None = None
    container: str = "server"
    host_port: int | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. ``ips`` is empty until it has an address (or asks a lab for these addresses)."""

    namespace: str
    name: str
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    node: str | None = None
    ips: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False
    phase: Phase = Phase.RUNNING
    ready: bool = True
    terminating: bool = False
    workload: Workload = Workload.BOTH
    # What the pod should say at "/" on its first port; None: the harness's one-line answer.
    page: str | None = None
    uid: str = ""
    source: Source | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def live(self) -> bool:
        """Succeeded and Failed pods have no address and match no selector."""
        return self.phase not in (Phase.SUCCEEDED, Phase.FAILED)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; ``target_port`` is a number or a container port's name."""

    port: int
    target_port: int | str
    protocol: Protocol = Protocol.TCP
    name: str | None = None
    node_port: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A Service. ``cluster_ips`` is empty until assigned; headless: never assigned."""

    namespace: str
    name: str
    selector: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    ports: tuple[ServicePort, ...] = ()
    cluster_ips: tuple[str, ...] = ()
    type: str = "ClusterIP"
    headless: bool = False
    external_traffic_policy: str = "Cluster"
    source: Source | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its own addresses, and the pod CIDRs out of ``spec.podCIDRs``."""

    name: str
    ips: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)


@dataclass(frozen=True, slots=True)
class External:
    """A host outside of the cluster, as a client and as a target."""

    name: str
    ips: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()


Key = tuple[str, str]
WorldObject = "Namespace | Pod | Service | Node | NetworkPolicy | ClusterNetworkPolicy"


@dataclass(frozen=True, slots=True)
class World:
    """A snapshot. The mappings are never mutated: :meth:`with_` copies the one it changes.

    Keys: namespaces, nodes, externals and cluster_policies by name; the others by
    ``(namespace, name)``.
    """

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    pods: Mapping[Key, Pod] = field(default_factory=dict)
    services: Mapping[Key, Service] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    externals: Mapping[str, External] = field(default_factory=dict)
    policies: Mapping[Key, NetworkPolicy] = field(default_factory=dict)
    cluster_policies: Mapping[str, ClusterNetworkPolicy] = field(default_factory=dict)

    def namespace_labels(self, name: str) -> Labels:
        """Labels of a namespace; one that was never declared has just its name label."""
        known = self.namespaces.get(name)
        return known.labels if known else {NAMESPACE_NAME_LABEL: name}

    def backends(self, service: Service) -> tuple[Pod, ...]:
        """Ready pods that the Service's selector matches (equality), by name; none if empty."""
        if not service.selector:
            return ()
        wanted = service.selector.items()
        return tuple(
            pod
            for key, pod in sorted(self.pods.items())
            if key[0] == service.namespace
            and pod.phase is Phase.RUNNING
            and pod.ready
            and not pod.terminating
            and wanted <= dict(pod.labels).items()
        )

    def with_(self, **changes: object) -> World:
        """A copy with whole mappings replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]
