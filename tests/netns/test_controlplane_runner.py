"""The runner on the embedded cluster: the same scenarios, every action an API object, every probe
through exec streams, Services by kube-proxy. Nothing enforces here: each denial has to leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from test_runner import SCENARIOS

from harness.report.record import ScenarioRecord
from harness.run.runner import Runner
from harness.scenarios.load import load_file
from harness.scenarios.scenario import Scenario
from tests.netns.clusters import cluster_up

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: Any) -> dict[str, Scenario]:
    file = tmp_path_factory.mktemp("suite") / "all.yaml"
    file.write_text(SCENARIOS)
    return {scenario.id: scenario for scenario in load_file(file)}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: Any) -> Iterator[Runner]:
    with cluster_up(tmp_path_factory.mktemp("lab"), families=(4, 6), direct=False) as lab:
        # Longer than a busy machine takes to answer: a silence must not pass for a denial.
        runner = Runner(lab, deadline=5, timeout=4)
        yield runner
        runner.close()


def _findings(record: ScenarioRecord, protocol: str) -> Counter[tuple[str, str]]:
    cells = (c for step in record.steps for c in step.cells if c.protocol == protocol)
    return Counter((c.expected, c.finding) for c in cells)


@pytest.mark.parametrize("name", ["services", "names", "outside", "pods"])
def test_without_enforcement_every_denial_leaks(
    runner: Runner, scenarios: dict[str, Scenario], name: str
) -> None:
    record = runner.run(scenarios[name])
    tcp, udp = _findings(record, "TCP"), _findings(record, "UDP")
    assert record.outcome == "failed", record.message
    assert {pair[1] for pair in tcp if pair[0] == "deny"} == {"leak"}, record.message
    assert {pair[1] for pair in tcp if pair[0] == "allow"} == {"agrees"}, record.message
    # On a busy machine a datagram may get lost, which looks like a denial where one is expected.
    assert {pair[1] for pair in udp if pair[0] == "allow"} <= {"agrees"}, record.message
    assert udp["deny", "leak"] >= udp["deny", "agrees"], record.message
    assert record.steps[-1].evidence
