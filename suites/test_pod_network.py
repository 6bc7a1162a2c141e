"""The three rules of a pod network, on each kind of fabric, without any policy.

Pods reach each other without NAT; nodes and pods reach each other without NAT; the address that a
pod sees on itself is the one that others see. Every server says which address it saw a client
with; each client is asked for its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import Any

import pytest

from harness.labs.server import NODE_SERVER_PORT
from harness.model.flow import CellResult, Endpoint, EndpointKind, Outcome, Via
from harness.model.policy import Protocol
from harness.model.world import World
from harness.run.runner import Looked
from harness.scenarios.scenario import Checked, Probes, Scenario, Step
from harness.scenarios.worlds import world

FABRICS = ("routed", "overlay", "bridged")
pytestmark = [
    pytest.mark.parametrize("fabric", FABRICS),
    getattr(pytest.mark, "three-rules"),
    getattr(pytest.mark, "no-policy"),
    pytest.mark.tcp,
]
PODS, NODES = Endpoint.parse("*/*"), Endpoint(EndpointKind.NODE, "", "*")


def two_on_each_node() -> World:
    """Four pods, so that each has one beside it and others on the other node."""
    base = world("two-by-two")
    places = {"a": "worker", "b": "worker2"}
    return base.with_(
        pods={key: replace(pod, node=places[pod.name]) for key, pod in base.pods.items()},
        services={},
    )


def rule(fabric: str, number: int, title: str, probes: Probes, *checks: Any) -> Scenario:
    return Scenario(
        id=f"pod-network/{fabric}/{number}",
        title=title,
        why="one of the three rules that every pod network has to obey",
        world=two_on_each_node(),
        steps=(Step("all at once", probes=probes, checks=checks),),
        features=frozenset({"three-rules", "no-policy", "same-node", "cross-node", "tcp"}),
    )


def own_addresses(looked: Looked, who: Endpoint) -> set[str]:
    """The addresses that a pod or node has by its own account."""
    _, text, _ = looked.prober.run(who, ["ip", "addr"], 10)
    lines = (line.split() for line in text.splitlines())
    return {line[1].partition("/")[0] for line in lines if line and line[0] in ("inet", "inet6")}


def unchanged(results: list[CellResult], looked: Looked) -> Iterator[str]:
    """What is wrong with the addresses that servers saw their clients with."""
    own = {who: own_addresses(looked, who) for who in {r.cell.source for r in results}}
    for result in results:
        mine = own[result.cell.source]
        # A cell that was not allowed says so itself.
        saw = {o.seen_source for o in result.observations if o.outcome is Outcome.ALLOWED}
        for other in sorted(saw - mine):
            yield (
                f"{result.cell}: the server saw {other or 'nothing'}, the client has "
                f"{', '.join(sorted(mine))}"
            )


def without_nat(looked: Looked) -> Iterator[Checked]:
    """Servers saw each client with an address of its own."""
    wrong = list(unchanged(list(looked.results), looked))
    asked = len(looked.results)
    yield Checked(
        "no address was translated",
        "failed" if wrong or not asked else "passed",
        "\n".join(wrong) or f"{asked} connections",
    )


def sees_itself(looked: Looked) -> Iterator[Checked]:
    """A pod has on itself the address that others reach it at and see it with."""
    for (namespace, name), pod in sorted(looked.world.pods.items()):
        who = Endpoint(EndpointKind.POD, namespace, name)
        if namespace == "kube-system":
            continue
        own = own_addresses(looked, who)
        seen = {
            o.seen_source
            for o in chain.from_iterable(
                r.observations for r in looked.results if r.cell.source == who
            )
            if o.outcome is Outcome.ALLOWED
        }
        good = bool(seen) and seen <= set(pod.ips) <= own
        yield Checked(
            f"{who} sees itself as others do",
            "passed" if good else "failed",
            f"on itself {sorted(own)}, reached at {list(pod.ips)}, seen with {sorted(seen)}",
        )


def in_the_nodes_range(looked: Looked) -> Iterator[Checked]:
    """Addresses are handed out of the range of the node (host-local, as in the seed's demo)."""
    if looked.cni and looked.cni.own_ipam and looked.lab.name != "netns":
        why = f"{looked.cni.title} hands out addresses by itself, not out of the nodes' ranges"
        yield Checked("pods have addresses of their nodes' ranges", "skipped", why)
        return
    for pod in sorted(looked.world.pods.values(), key=str):
        cidrs = looked.world.nodes[pod.node or ""].pod_cidrs
        outside = [
            ip for ip in pod.ips if not any(ip_address(ip) in ip_network(cidr) for cidr in cidrs)
        ]
        yield Checked(
            f"{pod} has an address of its node's range",
            "failed" if outside or not cidrs else "passed",
            f"{', '.join(pod.ips)} in {', '.join(cidrs)}",
        )


def test_pods_reach_pods_without_nat(fabric: str, run_scenario: Any) -> None:
    """Rule 1, on one node and across nodes."""
    run_scenario(
        rule(fabric, 1, "Pods reach each other without NAT", Probes(), without_nat), fabric=fabric
    )


def test_nodes_and_pods_reach_each_other_without_nat(fabric: str, run_scenario: Any) -> None:
    """Rule 2, both ways, each node and each pod."""
    probes = Probes(
        ports=((80, Protocol.TCP), (NODE_SERVER_PORT, Protocol.TCP)),
        vias=(Via.POD_IP, Via.NODE_IP),
        sources=(PODS, NODES),
        targets=(PODS, NODES),
    )
    run_scenario(
        rule(fabric, 2, "Nodes and pods reach each other without NAT", probes, without_nat),
        fabric=fabric,
    )


def test_a_pod_sees_itself_as_others_do(fabric: str, run_scenario: Any) -> None:
    """Rule 3, and the address is one of its node's range."""
    run_scenario(
        rule(
            fabric,
            3,
            "The address that a pod sees on itself is the one that others see",
            Probes(),
            sees_itself,
            in_the_nodes_range,
        ),
        fabric=fabric,
    )
