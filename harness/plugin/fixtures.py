"""What tests in Python get: the lab, the runner on it, and a way to run and judge a scenario."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.labs.base import Lab
from harness.plugin.items import bench_of, judge
from harness.report.record import ScenarioRecord
from harness.run.runner import Runner
from harness.scenarios.check import check
from harness.scenarios.scenario import Scenario


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """The lab of this process, up. All tests of the process share it."""
    return bench_of(request.config).lab


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Runner:
    """The runner on that lab: what there is in it comes and goes through this."""
    return bench_of(request.config).runner


@pytest.fixture
def run_scenario(request: pytest.FixtureRequest) -> Callable[[Scenario], ScenarioRecord]:
    """``run_scenario(scenario)`` runs it, keeps its record, and fails, errors or skips the test
    as the record says; it returns the record of one that passed."""
    item: pytest.Item = request.node

    def run(scenario: Scenario) -> ScenarioRecord:
        check(scenario)
        record = bench_of(request.config).measure(item, scenario)
        judge(record)
        return record

    return run
