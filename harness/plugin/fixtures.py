"""What tests in Python get: the lab, the runner on it, and a way to run and judge a scenario."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from harness.cnis.cni import Cni
from harness.labs.base import Lab
from harness.plugin.items import bench_of, judge
from harness.report.record import ScenarioRecord
from harness.run.runner import Runner
from harness.scenarios.check import check
from harness.scenarios.scenario import Scenario


@pytest.fixture
def cni(request: pytest.FixtureRequest) -> Cni:
    """The catalogue entry that this run is about."""
    return bench_of(request.config).run.cni


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """The lab of this process, up. All tests of the process share it."""
    return bench_of(request.config).lab


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Runner:
    """The runner on that lab: what there is in it comes and goes through this."""
    return bench_of(request.config).runner


@pytest.fixture
def run_scenario(request: pytest.FixtureRequest) -> Callable[..., ScenarioRecord]:
    """``run_scenario(scenario)`` runs it, keeps its record, and fails, errors or skips the test
    as the record says; it returns the record of one that passed. ``fabric=NAME`` runs it on that
    fabric, which only the embedded lab can choose."""
    item: pytest.Item = request.node
    bench = bench_of(request.config)

    def run(scenario: Scenario, *, fabric: str | None = None) -> ScenarioRecord:
        check(scenario)
        own = bench.run.place.fabric
        if fabric not in (None, own) and bench.run.place.lab != "netns":
            pytest.skip("only the embedded lab can choose its fabric")
        engine = bench.run.cni.api_engine if bench.run.place.api else None
        if fabric not in (None, own) and engine is not None and engine.fabric:
            pytest.skip(f"{bench.run.cni.title}'s policy engine knows no fabric but {own}")
        with bench.on(fabric) if fabric else nullcontext() as runner:
            record = bench.measure(item, scenario, runner)
        judge(record)
        return record

    return run
