"""ClusterNetworkPolicy: both tiers, both directions, each protocol.

In each the same three things: what is accepted and denied, that the first rule that matches wins,
and that Pass leaves the tier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from harness.model.actions import Apply
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.flow import Endpoint, Verdict
from harness.model.policy import EVERYTHING, LabelSelector, Protocol
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Expectation, Probes, Scenario, Step
from harness.scenarios.worlds import grid

ACCEPT, DENY, PASS = RuleAction.ACCEPT, RuleAction.DENY, RuleAction.PASS
ALL = ClusterPeer(namespaces=EVERYTHING)


def label(**wanted: str) -> LabelSelector:
    return LabelSelector(tuple(sorted(wanted.items())))


def pods(namespace: str, pod: str) -> ClusterPeer:
    return ClusterPeer(pods=Subject(label(ns=namespace), label(pod=pod)))


def scenarios() -> Iterator[Scenario]:
    """Twelve of them."""
    for tier, direction, protocol in product(Tier, ("ingress", "egress"), Protocol):
        yield _scenario(tier, direction, protocol)


def _scenario(tier: Tier, direction: str, protocol: Protocol) -> Scenario:
    def policy(*rules: ClusterRule) -> Apply:
        subject = Subject(label(ns="x"), label(pod="a"))
        sides = {direction: rules}
        return Apply(ClusterNetworkPolicy("p", tier, 50, subject, **sides))

    def expect(**verdicts: str) -> tuple[Expectation, ...]:
        found = []
        for verdict, others in verdicts.items():
            for other in others.split():
                who, _, port = other.partition(":")
                ways = (who, "x/a") if direction == "ingress" else ("x/a", who)
                cell = parse_cell(f"{ways[0]} -> {ways[1]}:{port}/{protocol}")
                found.append(Expectation(cell, Verdict(verdict)))
        return tuple(found)

    at_80 = (ClusterPort(protocol, 80),)
    a, b = pods("y", "a"), pods("y", "b")
    steps = (
        Step(
            "y/a at port 80, y/b not at all",
            (
                policy(
                    ClusterRule(ACCEPT, (a,), at_80),
                    ClusterRule(DENY, (a,)),
                    ClusterRule(DENY, (b,)),
                    ClusterRule(ACCEPT, (b,)),
                ),
            ),
            why="the first rule that matches wins; who meets no rule is left alone",
            expect=expect(allow="y/a:80 x/b:80", deny="y/a:81 y/b:80"),
        ),
        Step(
            "the same rules in another order",
            (
                policy(
                    ClusterRule(DENY, (a,)),
                    ClusterRule(ACCEPT, (a,), at_80),
                    ClusterRule(ACCEPT, (b,)),
                    ClusterRule(DENY, (b,)),
                ),
            ),
            why="the first rule that matches wins",
            expect=expect(allow="y/b:80 y/b:81", deny="y/a:80 y/a:81"),
        ),
        Step(
            "y/b is passed on, all others are denied",
            (policy(ClusterRule(PASS, (b,), at_80), ClusterRule(DENY, (ALL,))),),
            why="Pass leaves the tier, and nothing else speaks of it",
            expect=expect(allow="y/b:80", deny="y/b:81 y/a:80 x/b:80"),
        ),
    )
    subject = (Endpoint.parse("x/a"),)
    ends = {"targets": subject} if direction == "ingress" else {"sources": subject}
    name = f"tiers/{tier}-{direction}-{protocol}".lower()
    features = {"cluster-network-policy", direction, protocol.lower(), "update-policy"}
    return Scenario(
        id=name,
        title=f"Rules of the {tier} tier for {direction} over {protocol}",
        why="Accept and Deny end it, the first rule that matches wins, Pass leaves the tier",
        world=grid("xy", "ab", protocols=(protocol,), services=False),
        steps=steps,
        features=frozenset(features),
        probes=Probes(ports=((80, protocol), (81, protocol)), **ends),
    )
