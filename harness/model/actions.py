"""Actions: the only ways in which a World changes. Labs perform the same ones for real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.policy import NetworkPolicy
from harness.model.world import External, Namespace, Node, Phase, Pod, Service

Object = Namespace | Pod | Service | Node | External | NetworkPolicy | ClusterNetworkPolicy


@dataclass(frozen=True, slots=True)
class Apply:
    """Create the object, or replace the one of that kind and name."""

    object: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete by kind (the class's name) and key. A namespace takes its contents with it."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Relabel:
    """Set labels of a Pod or Namespace; a value of None takes the label away."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str | None] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """Let a pod's containers end: phase Succeeded or Failed; it keeps its API object."""

    namespace: str
    name: str
    phase: Phase = Phase.SUCCEEDED


Action = Apply | Delete | Relabel | Finish
