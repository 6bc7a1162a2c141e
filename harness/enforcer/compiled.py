"""The compiled form: what this node's kernel has to enforce, in no data plane's own words.

Everything is frozen and compares by value; a part that did not change between two snapshots is
the very same object, so that a data plane finds what changed by looking at identities.

* A **target** is all policies of one direction that select pods by the same namespace and
  selector. Its rows are what those policies allow together, one row for each distinct list of
  ports (by the digest of that list, :func:`harness.enforcer.names.of_ports`): the number of rows
  does not grow with policies that say the same of other peers.
* A **layer** is one ClusterNetworkPolicy in one direction: steps, of which the first that matches
  decides.
* A **pod** has a way for each direction: layers of the admin tier, targets, layers of the baseline
  tier; ``None`` is a direction that no policy speaks of.
* The **pod sets** and **named ports** give the addresses that the rows speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from harness.enforcer.ranges import Range, family_of
from harness.model.cluster_policy import RuleAction
from harness.model.policy import Direction, LabelSelector, Protocol

PodKey = tuple[str, str]


class Anything(Enum):
    """The one value :data:`ANY`: no restriction."""

    ANY = "any"


ANY = Anything.ANY


class PodQuery(NamedTuple):
    """Pods by a selector, in one namespace (a name) or in all that a selector finds."""

    namespaces: str | LabelSelector
    pods: LabelSelector


class PortSpan(NamedTuple):
    """Numbers ``first`` to ``last`` of a protocol; 0 to 65535 is all of the protocol."""

    protocol: Protocol
    first: int
    last: int


class Ports(NamedTuple):
    """Numbers, and names that each destination pod resolves for itself. Both empty: no port."""

    spans: tuple[PortSpan, ...]
    names: tuple[tuple[Protocol, str], ...]


class Blocks(NamedTuple):
    """Address ranges of both families."""

    v4: tuple[Range, ...]
    v6: tuple[Range, ...]

    def of(self, family: int) -> tuple[Range, ...]:
        return self.v4 if family == 4 else self.v6


class Peers(NamedTuple):
    """Who may be at the other end: any pod that one of the queries finds, or an address."""

    pods: frozenset[PodQuery]
    blocks: Blocks


class Row(NamedTuple):
    """Peers and ports that go together, and the rules of policies that say so."""

    peers: Peers | Anything
    ports: Ports | Anything
    origins: tuple[str, ...]


Rows = Mapping[str, Row]


class Target(NamedTuple):
    """The policies of one direction that select the same pods."""

    direction: Direction
    query: PodQuery


class Addresses(NamedTuple):
    """Addresses of both families."""

    v4: frozenset[str]
    v6: frozenset[str]

    def of(self, family: int) -> frozenset[str]:
        return self.v4 if family == 4 else self.v6


class Doors(NamedTuple):
    """Numbers that pods of both families give to one port name: ``(address, port)``."""

    v4: frozenset[tuple[str, int]]
    v6: frozenset[tuple[str, int]]

    def of(self, family: int) -> frozenset[tuple[str, int]]:
        return self.v4 if family == 4 else self.v6


class Step(NamedTuple):
    """What a layer does with packets that a row matches."""

    action: RuleAction
    row: Row


class Layer(NamedTuple):
    """One ClusterNetworkPolicy in one direction; layers of a tier are ordered as these fields."""

    priority: int
    name: str
    direction: Direction


class Way(NamedTuple):
    """What a connection of a pod meets in one direction: what the admin layers do not decide, the
    targets decide if there are any (None: no NetworkPolicy isolates), else the baseline layers."""

    admin: tuple[Layer, ...]
    targets: tuple[Target, ...] | None
    baseline: tuple[Layer, ...]


class LocalPod(NamedTuple):
    """A pod of this node that has an address."""

    addresses: tuple[str, ...]
    ingress: Way | None
    egress: Way | None

    def way(self, direction: Direction) -> Way | None:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Compiled:
    """One snapshot for one node. ``guarded``: prefixes whose unknown addresses are shut."""

    pods: Mapping[PodKey, LocalPod] = field(default_factory=dict)
    targets: Mapping[Target, Rows] = field(default_factory=dict)
    layers: Mapping[Layer, tuple[Step, ...]] = field(default_factory=dict)
    pod_sets: Mapping[frozenset[PodQuery], Addresses] = field(default_factory=dict)
    named_ports: Mapping[tuple[Protocol, str], Doors] = field(default_factory=dict)
    guarded: tuple[str, ...] = ()

    def of(self, family: int) -> Compiled:
        """What one address family needs: nothing of the policies while no pod of this node has an
        address of it, as on every node of a cluster with the other family alone."""
        addresses = (one for pod in self.pods.values() for one in pod.addresses)
        if any(family_of(one) == family for one in addresses):
            return self
        return Compiled(guarded=self.guarded)


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """The keys under which one has another object than the other."""
    found = [key for key, value in new.items() if old.get(key) is not value]
    return found + [key for key in old if key not in new]


def guard_unions(layers: Mapping[Layer, tuple[Step, ...]]) -> frozenset[frozenset[PodQuery]]:
    """The unions by which some step keeps packets from what comes after it."""
    return frozenset(
        step.row.peers.pods
        for steps in layers.values()
        for step in steps
        if step.action is not RuleAction.ACCEPT
        and not isinstance(step.row.peers, Anything)
        and step.row.peers.pods
    )
