"""The policy engine itself: started again, and before nodes whose addresses are the lab's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness.labs.base import Lab
from harness.labs.netns.lab import NetnsLab
from harness.labs.server import NODE_SERVER_PORT
from harness.model.actions import Apply, Relabel
from harness.model.flow import Endpoint, Verdict, Via
from harness.model.policy import (
    EVERYTHING,
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Peer,
    Protocol,
    Rule,
)
from harness.model.world import World
from harness.run.runner import Looked
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Checked, Expectation, Probes, Scenario, Step
from harness.scenarios.worlds import world

A, B = (LabelSelector((("pod", name),)) for name in "ab")


def restart(looked: Looked) -> Iterator[Checked]:
    """Start the engines of all nodes again; the kernel's rules stay as they are meanwhile."""
    lab = looked.lab
    assert isinstance(lab, NetnsLab)
    for name in lab.node_names:
        lab.start_engine(name)
    lab.wait_for_engines(lab.node_names)
    yield Checked("the engines were started again", "passed", ", ".join(lab.node_names))


@pytest.fixture
def engines(lab: Lab) -> None:
    """Only where there are engines that can be started again."""
    if not isinstance(lab, NetnsLab) or not lab.engines:
        pytest.skip("only engines of the embedded lab, without an API, are started again here")


@pytest.mark.usefixtures("engines")
@pytest.mark.ingress
@pytest.mark.egress
@pytest.mark.tcp
def test_an_engine_that_starts_again_knows_all_pods(run_scenario: Any) -> None:
    """Pods and policies that are there already count as those that come later."""
    everybody = NetworkPolicy(
        "x", "everybody", A, (Direction.INGRESS,), (Rule((Peer(None, EVERYTHING),)),)
    )
    neighbours = NetworkPolicy(
        "y", "neighbours", B, (Direction.EGRESS,), (), (Rule((Peer(EVERYTHING),)),)
    )
    cells = {
        "y/a -> x/a:80": Verdict.ALLOW,
        "external:outside -> x/a:80": Verdict.DENY,
        "y/b -> y/a:80": Verdict.ALLOW,
        "y/b -> x/b:80": Verdict.DENY,
    }
    expect = tuple(Expectation(parse_cell(text), verdict) for text, verdict in cells.items())
    run_scenario(
        Scenario(
            id="engine/restart",
            title="An engine that starts again knows the pods that are there",
            why="what policies mean does not depend on what came first: engine, pod or policy",
            world=world("two-by-two"),
            steps=(
                Step(
                    "two policies", (Apply(everybody), Apply(neighbours)), expect=expect,
                    checks=(restart,),
                ),
                Step("the engines have started again", expect=expect),
                Step(
                    "and hear of what changes",
                    (Relabel("Pod", "y", "a", {"pod": "b"}),),
                    expect=(Expectation(parse_cell("y/a -> x/b:80"), Verdict.DENY),),
                ),
            ),
            features=frozenset(
                {"startup-order", "ingress", "egress", "all-namespaces", "all-pods",
                 "set-pod-labels", "external", "tcp"}
            ),
            probes=Probes(sources=(Endpoint.parse("*/*"), Endpoint.parse("external:outside"))),
        )
    )  # fmt: skip


@pytest.mark.egress
@pytest.mark.node
@pytest.mark.tcp
@pytest.mark.parametrize("but", ["nothing", "its-own-node", "another-node"])
def test_a_range_less_a_nodes_address(but: str, lab: Lab, run_scenario: Any) -> None:
    """Everything outside is open, but for one node's address: that one's, and only that."""
    found = lab.resolve(World()).nodes
    nodes = {name: node for name, node in found.items() if any(":" not in ip for ip in node.ips)}
    if len(nodes) < 3:
        pytest.skip("it takes three nodes with IPv4")
    own, other = sorted(nodes)[-1], sorted(nodes)[0]
    left_out = {"nothing": None, "its-own-node": own, "another-node": other}[but]
    address = next((ip for ip in nodes[left_out].ips if ":" not in ip), "") if left_out else ""
    block = IPBlock("0.0.0.0/0", (f"{address}/32",) if address else ())
    base = world("two-by-two")
    pods = {**base.pods, ("x", "a"): replace(base.pods["x", "a"], node=own)}
    run_scenario(
        Scenario(
            id=f"engine/range-less-{but}",
            title=f"A range less {but.replace('-', ' ')}, for a pod that connects to nodes",
            why="an except takes its addresses out of the range, whose ever they are; what of it "
            "holds for nodes is left to the implementation",
            world=base.with_(pods=pods),
            steps=(
                Step(
                    "the policy is created",
                    (
                        Apply(
                            NetworkPolicy(
                                "x",
                                "out",
                                A,
                                (Direction.EGRESS,),
                                (),
                                (Rule((Peer(ip_block=block),)),),
                            )
                        ),
                    ),
                ),
            ),
            features=frozenset(
                {"egress", "target-pod-selector", "ip-block", "node", "profile", "tcp"}
                | ({"ip-block-except"} if address else set())
            ),
            probes=Probes(
                ports=((NODE_SERVER_PORT, Protocol.TCP),),
                vias=(Via.NODE_IP,),
                sources=(Endpoint.parse("x/a"), Endpoint.parse("x/b")),
                targets=(Endpoint.parse("node:*"),),
            ),
        )
    )
