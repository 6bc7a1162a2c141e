"""The AST of ClusterNetworkPolicy, ``policy.networking.k8s.io/v1alpha2``.

As in :mod:`harness.model.policy`, only what is written is kept here; the meaning (tiers,
priorities, fail-closed peers) is the oracle's and, separately, the enforcer's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.policy import NO_LABELS, Labels, LabelSelector, Protocol, Source


class Tier(StrEnum):
    """Admin is evaluated before NetworkPolicy, Baseline after it."""

    ADMIN = "Admin"
    BASELINE = "Baseline"


class RuleAction(StrEnum):
    """What a matching rule does."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"


@dataclass(frozen=True, slots=True)
class Subject:
    """``namespaces`` (``pod_selector`` is None) or ``pods`` (both selectors)."""

    namespace_selector: LabelSelector
    pod_selector: LabelSelector | None = None


@dataclass(frozen=True, slots=True)
class ClusterPeer:
    """One peer; exactly one field is set. All None: unknown to this reader, so it fails closed."""

    namespaces: LabelSelector | None = None
    pods: Subject | None = None
    networks: tuple[str, ...] | None = None
    nodes: LabelSelector | None = None
    domain_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ClusterPort:
    """One port match: ``port`` alone, ``port``..``end_port``, every port of ``protocol``, or a
    ``name``, which has no protocol of its own. All None: unknown to this reader, so it fails
    closed."""

    protocol: Protocol | None = None
    port: int | None = None
    end_port: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterRule:
    """One rule; the first that matches in a policy wins. Empty ``ports``: every port."""

    action: RuleAction
    peers: tuple[ClusterPeer, ...]
    ports: tuple[ClusterPort, ...] = ()
    name: str = ""
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ClusterNetworkPolicy:
    """A cluster-scoped policy; ``priority`` 0..1000, the lower the earlier."""

    name: str
    tier: Tier
    priority: int
    subject: Subject
    ingress: tuple[ClusterRule, ...] = ()
    egress: tuple[ClusterRule, ...] = ()
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    source: Source | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name
