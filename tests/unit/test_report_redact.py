"""Records without names: nothing that names anybody is left, and the rest is as it was."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from harness.report import html, summary
from harness.report.record import ScenarioRecord, StepRecord, encode, loads
from harness.report.redact import GONE, redact
from tests.fixtures.made_records import make

NAMES = ("np-demo", "nginx-1", "access-nginx", "default-deny", "own-tenant", "node-1")


@pytest.mark.parametrize("name", ["red", "kind"])
def test_no_name_and_no_address_is_left(name: str) -> None:
    record = make(name)
    for scenario in record.scenarios:  # titles are the author's words, not names of the cluster
        for step in scenario.steps:
            step.title = ""
    before = json.dumps(encode(record))
    after = json.dumps(encode(redact(record)))
    for text in (*NAMES, "10.240.", "fd00:", "wget", "nft list"):
        assert text in before or name == "kind"
        assert text not in after
    assert not re.search(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", json.dumps(encode(redact(record))))


def test_verdicts_times_and_structure_stay() -> None:
    record, bare = make("red"), redact(make("red"))
    assert summary.verdict(bare) == summary.verdict(record)
    assert summary.by_finding(bare.scenarios) == summary.by_finding(record.scenarios)
    assert summary.latencies(bare.scenarios) == summary.latencies(record.scenarios)
    for one, other in zip(record.scenarios, bare.scenarios, strict=True):
        for step, same in zip(one.steps, other.steps, strict=True):
            assert len({c.source for c in step.cells}) == len({c.source for c in same.cells})
            assert Counter(c.target for c in step.cells).total() == len(same.cells)


def test_the_original_is_not_touched_and_the_copy_is_a_record() -> None:
    record = make("red")
    before = encode(record)
    bare = redact(record)
    assert encode(record) == before
    assert loads(json.dumps(encode(bare)).encode()).damage == []
    assert html.render(bare).count("<details") > 10


def test_one_name_is_replaced_by_one_name_throughout() -> None:
    step = redact(make("red")).scenarios[0].steps[2]
    pods = {pod["name"] for pod in step.pods}
    assert {c.source for c in step.cells} <= pods
    assert {p for e in step.reasons for g in e["because"] for p in g["policies"]} == {
        "ns1/policy1",
        "ns1/policy2",
    }
    assert "name: policy1" in step.policies
    assert all(e["text"] == GONE for e in step.evidence)


def test_short_names_are_left_alone_in_running_text() -> None:
    step = StepRecord(
        "a pod of x is a pod",
        why="x/a may reach x/b",
        pods=[{"name": "x/a"}, {"name": "x/b"}],
        policies="{ not yaml",
    )
    record = make("green")
    record.scenarios = [ScenarioRecord("s", "s", outcome="passed", steps=[step])]
    bare = redact(record).scenarios[0].steps[0]
    assert bare.title == "a pod of x is a pod"
    assert bare.why == "ns1/pod1 may reach ns1/pod2"
    assert bare.policies == ""
