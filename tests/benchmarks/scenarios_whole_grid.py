"""Whole looks at nine pods: every pair, two ports, TCP and UDP, 288 cells a case.

As much a case as Cyclonus asks (324, for it counts each pod and itself as well), so that seconds a
case and seconds a cell can be held against it on one cluster. Named on the command line, on any
lab::

    pytest tests/benchmarks/scenarios_whole_grid.py --cni calico --lab kind -n 2 --durations=0
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.model.actions import Apply
from harness.model.policy import (
    EVERYTHING,
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Protocol,
    Rule,
)
from harness.scenarios.scenario import Probes, Scenario, Step
from harness.scenarios.worlds import world

PORTS = tuple(
    (number, protocol) for number in (80, 81) for protocol in (Protocol.TCP, Protocol.UDP)
)


def pod(name: str) -> LabelSelector:
    return LabelSelector((("pod", name),))


def space(name: str) -> LabelSelector:
    return LabelSelector((("ns", name),))


#: What is selected, and what it may do in and out (None: it is not shut off in that direction).
SHAPES: dict[str, tuple[LabelSelector, tuple[Rule, ...] | None, tuple[Rule, ...] | None]] = {
    "nobody-in": (pod("a"), (), None),
    "nowhere-out": (pod("a"), None, ()),
    "neither": (EVERYTHING, (), ()),
    "everybody-in": (pod("a"), (Rule(),), None),
    "from-pods": (pod("a"), (Rule((Peer(pod_selector=pod("c")),)),), None),
    "from-a-namespace": (EVERYTHING, (Rule((Peer(namespace_selector=space("y")),)),), None),
    "to-pods-of-a-namespace": (
        pod("a"),
        None,
        (Rule((Peer(pod_selector=pod("b"), namespace_selector=space("z")),)),),
    ),
    "one-port-in": (pod("a"), (Rule((), (PolicyPort(Protocol.TCP, 80),)),), None),
    "one-udp-port-out": (pod("a"), None, (Rule((), (PolicyPort(Protocol.UDP, 81),)),)),
    "a-named-port-in": (pod("a"), (Rule((), (PolicyPort(Protocol.TCP, "serve-81-tcp"),)),), None),
    "two-peers-two-ports": (
        pod("a"),
        (
            Rule(
                (Peer(pod_selector=pod("b")), Peer(namespace_selector=space("z"))),
                (PolicyPort(Protocol.TCP, 80), PolicyPort(Protocol.UDP, 80)),
            ),
        ),
        None,
    ),
    "both-directions": (
        pod("b"),
        (Rule((Peer(namespace_selector=EVERYTHING),)),),
        (Rule((Peer(pod_selector=EVERYTHING),)),),
    ),
}


def scenarios() -> Iterator[Scenario]:
    """Twelve shapes of a policy, in each of the three namespaces."""
    for namespace in "xyz":
        for name, (selector, ingress, egress) in SHAPES.items():
            types = [Direction.INGRESS] * (ingress is not None)
            types += [Direction.EGRESS] * (egress is not None)
            policy = NetworkPolicy(
                namespace, "p", selector, tuple(types), ingress=ingress or (), egress=egress or ()
            )
            yield Scenario(
                id=f"whole-grid/{namespace}/{name}",
                title=f"{name.replace('-', ' ').capitalize()}, in {namespace}",
                why="as many cells a case as the peers whose speed is compared",
                world=world("three-by-three"),
                steps=(Step("all that there is", (Apply(policy),)),),
                features=frozenset({d.value.lower() for d in types} | {"tcp", "udp"}),
                probes=Probes(ports=PORTS),
            )
