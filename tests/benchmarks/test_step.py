"""Seconds of one step of nine pods, and where they go.

Run alone, with ``-s`` to see the table. The bounds are far above what an idle machine shows, so
that they fail for a fault and not for a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from harness.cnis import catalogue
from harness.model.actions import Apply, Delete
from harness.model.policy import NetworkPolicy
from harness.report.record import StepRecord
from harness.run import place
from harness.run.runner import Runner
from harness.scenarios import worlds
from harness.scenarios.scenario import Scenario, Step

TURNS = 5
BOUND = 5.0
STEPS = (
    Step("shut", (Apply(NetworkPolicy("x", "deny")),)),
    Step("open", (Delete("NetworkPolicy", "x", "deny"),)),
)
SCENARIO = Scenario(
    "benchmark/step", "shut and open", "how long it takes", worlds.world("three-by-three"), STEPS
)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["iptables", "nftables"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    cni = catalogue.get("enforcer")
    lab = place.make(cni, place.Place(dataplane=request.param), tmp_path / "lab")
    lab.up()
    runner = Runner(lab, cni)
    yield runner
    runner.close()
    lab.down()


def parts(step: StepRecord) -> dict[str, float]:
    """Seconds by what they were spent on: ``settle`` until the last cell agreed, ``hold`` for the
    window and the look after it, ``record`` for all that comes after."""
    times = step.timeline
    return {
        "apply": times["applied"],
        "settle": times["agreed"] - times["applied"],
        "hold": times["held"] - times["agreed"],
        "record": times["ended"] - times["held"],
        "whole": times["ended"],
    }


def test_one_step(runner: Runner, request: pytest.FixtureRequest) -> None:
    runner.run(SCENARIO)  # pods, shells and the baseline
    steps = []
    for _ in range(TURNS):
        record = runner.run(SCENARIO)
        assert record.outcome == "passed", record.message
        steps += record.steps
    cells = len(steps[0].cells)
    print(f"\n{request.node.name}: {len(steps)} steps of {cells} cells, median seconds")
    for name in parts(steps[0]):
        print(f"  {name:8} {median(parts(step)[name] for step in steps):.3f}")
    assert cells == 72
    assert median(parts(step)["whole"] for step in steps) < BOUND
