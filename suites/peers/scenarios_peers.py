"""Every kind of peer alone, and every pair of two of them in one rule.

``x/a`` takes connections from the peers, ``x/b`` makes connections to them, so that one look shows
both directions. That two peers of a rule add up, and never restrict each other, is what an engine
gets wrong that keeps one set, or one flag, for a whole rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from harness.model.actions import Apply
from harness.model.flow import Endpoint
from harness.model.policy import (
    EVERYTHING,
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    Peer,
    Requirement,
    Rule,
)
from harness.model.world import External
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Probes, Scenario, Step
from harness.scenarios.worlds import container_ports, world

OUTSIDE = External("outside", ("203.0.113.10",), container_ports([80]))
WORLD = world("three-by-three").with_(externals={"outside": OUTSIDE})
PROBES = Probes(
    sources=tuple(map(Endpoint.parse, ("*/*", "external:outside"))),
    targets=(Endpoint.parse("x/a"),),
    extra=(parse_cell("x/b -> */*:80"), parse_cell("x/b -> external:outside:80")),
)


def labels(**wanted: str) -> LabelSelector:
    return LabelSelector(tuple(sorted(wanted.items())))


def requirement(key: str, operator: Operator, *values: str) -> LabelSelector:
    return LabelSelector((), (Requirement(key, operator, values),))


class Kind(NamedTuple):
    """A kind of peer: how it is called, what it means, and the features that it has."""

    name: str
    means: str
    peer: Peer
    features: tuple[str, ...]


KINDS = (
    Kind(
        "all-pods",
        "every pod of the policy's own namespace",
        Peer(pod_selector=EVERYTHING),
        ("all-pods", "policy-namespace"),
    ),
    Kind(
        "pods-by-label",
        "pod c of the policy's own namespace",
        Peer(pod_selector=labels(pod="c")),
        ("pods-by-label", "policy-namespace"),
    ),
    Kind(
        "pods-by-expression",
        "pods of the policy's own namespace other than c",
        Peer(pod_selector=requirement("pod", Operator.NOT_IN, "c")),
        ("pods-by-label", "policy-namespace", "match-expressions"),
    ),
    Kind(
        "all-namespaces",
        "every pod of every namespace",
        Peer(namespace_selector=EVERYTHING),
        ("all-namespaces",),
    ),
    Kind(
        "namespaces-by-label",
        "every pod of y",
        Peer(namespace_selector=labels(ns="y")),
        ("namespaces-by-label",),
    ),
    Kind(
        "namespaces-by-name",
        "every pod of z, by the label that every namespace has",
        Peer(namespace_selector=labels(**{"kubernetes.io/metadata.name": "z"})),
        ("namespaces-by-default-label",),
    ),
    Kind(
        "namespaces-by-expression",
        "every pod of a namespace other than x and y",
        Peer(namespace_selector=requirement("ns", Operator.NOT_IN, "x", "y")),
        ("namespaces-by-label", "match-expressions"),
    ),
    Kind(
        "pods-in-namespaces",
        "pods named c in y: both selectors of one item have to match",
        Peer(pod_selector=labels(pod="c"), namespace_selector=labels(ns="y")),
        ("pods-by-label", "namespaces-by-label"),
    ),
    Kind(
        "pods-in-all-namespaces",
        "pods named b or c, wherever they are",
        Peer(requirement("pod", Operator.IN, "b", "c"), EVERYTHING),
        ("pods-by-label", "all-namespaces", "match-expressions"),
    ),
    Kind(
        "all-pods-in-namespace",
        "every pod of z, by an empty podSelector beside the namespaceSelector",
        Peer(pod_selector=EVERYTHING, namespace_selector=labels(ns="z")),
        ("all-pods", "namespaces-by-label"),
    ),
    Kind(
        "outside",
        "the outside host by its range",
        Peer(ip_block=IPBlock("203.0.113.0/24")),
        ("ip-block", "external"),
    ),
    Kind(
        "outside-except",
        "a range that holds the outside host less one that holds it too: nobody who is here",
        Peer(ip_block=IPBlock("203.0.112.0/23", ("203.0.113.0/28",))),
        ("ip-block", "ip-block-except", "external"),
    ),
)


def scenarios() -> Iterator[Scenario]:
    """Twelve kinds alone, and the 66 pairs of them."""
    for kind in KINDS:
        yield _scenario(f"peers/one/{kind.name}", (kind,))
    for one, other in combinations(KINDS, 2):
        yield _scenario(f"peers/two/{one.name}+{other.name}", (one, other))


def _scenario(name: str, kinds: tuple[Kind, ...]) -> Scenario:
    peers = tuple(kind.peer for kind in kinds)
    ingress = NetworkPolicy(
        "x", "in", labels(pod="a"), (Direction.INGRESS,), ingress=(Rule(peers),)
    )
    egress = NetworkPolicy("x", "out", labels(pod="b"), (Direction.EGRESS,), egress=(Rule(peers),))
    means = " or ".join(kind.means for kind in kinds)
    features = {"ingress", "egress", "target-pod-selector", "any-port-protocol", "tcp"}
    features |= {feature for kind in kinds for feature in kind.features}
    if len(kinds) > 1:
        features |= {"multi-peer"}
    return Scenario(
        id=name,
        title=f"A peer means {means}",
        why="the peers of one rule are a union; each means what it means alone",
        world=WORLD,
        steps=(Step("to x/a from it, and from x/b to it", (Apply(ingress), Apply(egress))),),
        features=frozenset(features),
        probes=PROBES,
    )
