"""The NetworkPolicy AST: what a manifest says, and nothing of what it means.

Mirrors ``networking.k8s.io/v1`` after the API server's own defaulting of single fields (a port
without a protocol is TCP). Everything that has to be *interpreted* (an absent ``policyTypes``, an
empty selector, a missing rule list) is kept as written, because the oracle and the in-house
enforcer each interpret it on their own: one mistake made twice would bless itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Labels = Mapping[str, str]
NO_LABELS: Labels = MappingProxyType({})


class Protocol(StrEnum):
    """Transport protocols that NetworkPolicy knows."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class Operator(StrEnum):
    """Operators of a label selector requirement."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Direction(StrEnum):
    """The two directions a policy can isolate, spelled as in ``policyTypes``."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an object or a rule was written: ``file`` may be ``<stdin>`` or ``cluster:NAME``;
    ``line`` is 0 where there are none."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Requirement:
    """One ``matchExpressions`` item."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """``matchLabels`` (sorted by key) and ``matchExpressions`` (as written); both empty: all."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()


EVERYTHING = LabelSelector()


@dataclass(frozen=True, slots=True)
class IPBlock:
    """An address range in CIDR notation less some ranges inside of it."""

    cidr: str
    except_: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """One item of ``from``/``to``: selectors (either or both), or an ipBlock alone."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """One item of ``ports``. ``port``: number, name, or None for every port of the protocol."""

    protocol: Protocol = Protocol.TCP
    port: int | str | None = None
    end_port: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One ingress or egress rule. Empty ``peers``: every peer; empty ``ports``: every port."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A ``networking.k8s.io/v1`` NetworkPolicy; ``policy_types`` is empty where absent."""

    namespace: str
    name: str
    pod_selector: LabelSelector = EVERYTHING
    policy_types: tuple[Direction, ...] = ()
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    source: Source | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
