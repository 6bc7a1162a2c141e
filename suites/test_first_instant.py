"""A pod that comes under a policy is isolated from its first instant, whatever may come late.

What allows it something may lag; what denies may not (concept page, "Pod lifecycle"). Clients try
from before the pod exists, without a pause, at the address that it will have.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from harness.labs.base import Lab
from harness.model.actions import Apply
from harness.model.flow import Cell, Endpoint, Outcome, Verdict
from harness.model.policy import Direction, LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import Pod, World
from harness.probes.prober import GRACE, Prober
from harness.run.runner import Looked
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Checked, Expectation, Probes, Scenario, Step
from harness.scenarios.worlds import world

pytestmark = [
    getattr(pytest.mark, "startup-order"),
    getattr(pytest.mark, "create-pod"),
    pytest.mark.ingress,
    pytest.mark.tcp,
]
BEAT, PATIENCE = 0.02, 0.3  # seconds between tries, and that each of them is given
LATE = Endpoint.parse("x/late")
KEPT_OUT = tuple(map(Endpoint.parse, ("x/b", "y/a")))


class Knocking:
    """Clients that try, again and again, in a thread of their own."""

    def __init__(self, looked: Looked, late: Pod, family: int) -> None:
        self.prober = Prober(looked.lab)
        self.prober.begin(looked.world.with_(pods={**looked.world.pods, late.key: late}))
        self.cells = [Cell(client, LATE, 80, family=family) for client in KEPT_OUT]
        self.outcomes: Counter[Outcome] = Counter()
        self.stop = threading.Event()
        self.tries(2)  # shells are opened here, not beside what the lab does meanwhile
        self.thread = threading.Thread(target=self.tries)
        self.thread.start()

    def tries(self, rounds: int = 100_000) -> None:
        for _ in range(rounds):
            if self.stop.is_set():
                return
            self.prober.launch(self.cells)
            until = self.prober.now() + BEAT
            while self.prober.now() < until:
                self.listen(until)

    def listen(self, until: float) -> None:
        now = self.prober.now()
        self.prober.cut(p for p in self.prober.running() if now - (p.sent or now) > PATIENCE)
        for probe in self.prober.collect(until):
            self.outcomes[probe.seen.outcome if probe.seen else Outcome.TIMEOUT] += 1

    def end(self) -> None:
        """Try no more; those that are out are heard to their end first."""
        self.stop.set()
        self.thread.join()
        deadline = self.prober.now() + GRACE
        while self.prober.running() and self.prober.now() < deadline:
            self.listen(self.prober.now() + BEAT)
        self.prober.close()


def test_nobody_gets_in_before_the_policy(lab: Lab, run_scenario: Any) -> None:
    """Who is kept out never gets in, not even while the pod is coming up."""
    if "address-reuse" not in lab.features:
        pytest.skip(f"address-reuse: {lab.missing.get('address-reuse', 'not offered here')}")
    node = sorted(lab.resolve(World()).nodes.values(), key=str)[-1]
    network = ip_network(next(iter(node.pod_cidrs)))
    late = Pod(
        LATE.namespace,
        LATE.name,
        {"pod": "late"},
        node=node.name,
        ips=(str(network[200]),),
        ports=world("two-by-two").pods["x", "a"].ports,
    )
    friends = Rule((Peer(LabelSelector((("pod", "b"),)), LabelSelector((("ns", "y"),))),))
    policy = NetworkPolicy(
        "x", "friends", LabelSelector((("pod", "late"),)), (Direction.INGRESS,), (friends,)
    )
    family = 6 if ":" in late.ips[0] else 4
    knocking: list[Knocking] = []

    def begin(looked: Looked) -> Iterator[Checked]:
        knocking.append(Knocking(looked, late, family))
        yield Checked("clients try", "passed", f"{len(KEPT_OUT)}, each {BEAT * 1000:.0f} ms")

    def end(_: Looked) -> Iterator[Checked]:
        one = knocking[0]
        one.end()
        told = ", ".join(f"{outcome} {count}" for outcome, count in one.outcomes.most_common())
        good = not one.outcomes[Outcome.ALLOWED] and one.outcomes.total() > 0
        yield Checked("nobody got in", "passed" if good else "failed", told)

    def cell(text: str) -> Cell:
        return replace(parse_cell(text), family=family)

    try:
        run_scenario(
            Scenario(
                id="first-instant/ingress",
                title="A new pod is isolated from its first instant",
                why="once a policy has been handled, a pod that comes later starts isolated",
                world=world("two-by-two"),
                steps=(
                    Step("the policy is there first", (Apply(policy),), checks=(begin,)),
                    Step(
                        "the pod comes",
                        (Apply(late),),
                        probes=Probes(targets=(LATE,), families=(family,)),
                        expect=(
                            Expectation(cell("y/b -> x/late:80"), Verdict.ALLOW),
                            Expectation(cell("y/a -> x/late:80"), Verdict.DENY),
                        ),
                        checks=(end,),
                    ),
                ),
                features=frozenset(
                    {"startup-order", "create-pod", "ingress", "target-pod-selector", "tcp"}
                ),
                probes=Probes(families=(family,)),
            )
        )
    finally:
        for one in knocking:
            one.end()
