"""What observations are worth: nothing passes for want of a look."""

from __future__ import annotations

import pytest

from harness.model.diff import Control, KnownDeviation, compare, judge, tally
from harness.model.flow import (
    Because,
    Cell,
    Decision,
    Endpoint,
    Finding,
    Observation,
    Outcome,
    Verdict,
)
from harness.model.policy import Direction

CELL = Cell(Endpoint.parse("x/a"), Endpoint.parse("x/b"), 80)
ALLOW = Decision(Verdict.ALLOW)
DENY = Decision(Verdict.DENY, (Because(Direction.INGRESS, Verdict.DENY, "isolated", "closed"),))
DENY_NAME = Decision(
    Verdict.DENY, (Because(Direction.EGRESS, Verdict.DENY, "isolated", "closed", flow="dns"),)
)
OPEN = Decision(Verdict.UNDEFINED, reason="hairpin")
LIVE = Control(now=True, baseline=True)
SILENT = Control(now=False)


def seen(outcome: Outcome, **more: str) -> Observation:
    return Observation(CELL, outcome, 0.0, 0.1, **more)


TABLE: list[tuple[Decision, Outcome | None, Control | None, Finding]] = [
    (ALLOW, Outcome.ALLOWED, None, Finding.AGREES),
    (ALLOW, Outcome.TIMEOUT, None, Finding.OUTAGE),
    (ALLOW, Outcome.REFUSED, LIVE, Finding.OUTAGE),
    (ALLOW, Outcome.RESET, LIVE, Finding.OUTAGE),
    (ALLOW, Outcome.UNREACHABLE, LIVE, Finding.OUTAGE),
    (ALLOW, Outcome.TIMEOUT, SILENT, Finding.UNKNOWN),
    (ALLOW, Outcome.WRONG_BACKEND, LIVE, Finding.OUTAGE),
    (ALLOW, Outcome.NAME_FAILURE, LIVE, Finding.UNKNOWN),
    (ALLOW, Outcome.HARNESS_ERROR, LIVE, Finding.UNKNOWN),
    (ALLOW, None, LIVE, Finding.UNKNOWN),
    (DENY, Outcome.ALLOWED, LIVE, Finding.LEAK),
    (DENY, Outcome.ALLOWED, None, Finding.LEAK),
    (DENY, Outcome.WRONG_BACKEND, LIVE, Finding.LEAK),
    (DENY, Outcome.TIMEOUT, LIVE, Finding.AGREES),
    (DENY, Outcome.TIMEOUT, Control(now=True), Finding.AGREES),
    (DENY, Outcome.TIMEOUT, None, Finding.UNKNOWN),
    (DENY, Outcome.TIMEOUT, SILENT, Finding.UNKNOWN),
    (DENY, Outcome.REFUSED, LIVE, Finding.AGREES),
    (DENY, Outcome.REFUSED, Control(now=True), Finding.UNKNOWN),
    (DENY, Outcome.REFUSED, Control(now=True, baseline=False), Finding.UNKNOWN),
    (DENY, Outcome.RESET, Control(now=True), Finding.UNKNOWN),
    (DENY, Outcome.UNREACHABLE, LIVE, Finding.AGREES),
    (DENY, Outcome.NAME_FAILURE, LIVE, Finding.UNKNOWN),
    (DENY_NAME, Outcome.NAME_FAILURE, LIVE, Finding.AGREES),
    (DENY_NAME, Outcome.NAME_FAILURE, Control(names=False), Finding.UNKNOWN),
    (DENY, Outcome.HARNESS_ERROR, LIVE, Finding.UNKNOWN),
    (DENY, None, LIVE, Finding.UNKNOWN),
    (OPEN, Outcome.ALLOWED, None, Finding.UNDEFINED),
    (OPEN, Outcome.TIMEOUT, None, Finding.UNDEFINED),
    (OPEN, Outcome.NAME_FAILURE, None, Finding.UNDEFINED),
    (OPEN, Outcome.HARNESS_ERROR, LIVE, Finding.UNKNOWN),
    (OPEN, None, LIVE, Finding.UNKNOWN),
]


@pytest.mark.parametrize(
    ("decision", "outcome", "control", "finding"),
    TABLE,
    ids=[f"{d.verdict}-{o or 'nothing'}-{i}" for i, (d, o, _, _) in enumerate(TABLE)],
)
def test_findings(
    decision: Decision, outcome: Outcome | None, control: Control | None, finding: Finding
) -> None:
    judgement = judge(decision, seen(outcome) if outcome else None, control)
    assert judgement.finding is finding
    assert bool(judgement.note) or finding is Finding.AGREES


def test_every_outcome_is_judged_under_every_verdict() -> None:
    for decision in (ALLOW, DENY, DENY_NAME, OPEN):
        for outcome in Outcome:
            assert judge(decision, seen(outcome), LIVE).finding in Finding


def test_a_wrong_backend_is_named() -> None:
    judgement = judge(ALLOW, seen(Outcome.WRONG_BACKEND, backend="x/c"), LIVE)
    assert "x/c" in judgement.note


def test_known_deviations_are_told_from_others() -> None:
    leak = KnownDeviation("weave-endport", Finding.LEAK, "endPort is ignored", "https://…/3785")
    known = judge(DENY, seen(Outcome.ALLOWED), LIVE, leak)
    assert (known.finding, known.deviation) == (Finding.KNOWN, leak)
    assert judge(DENY, seen(Outcome.TIMEOUT), LIVE, leak).finding is Finding.AGREES
    assert judge(ALLOW, seen(Outcome.TIMEOUT), LIVE, leak).finding is Finding.OUTAGE
    assert judge(DENY, seen(Outcome.HARNESS_ERROR), LIVE, leak).finding is Finding.UNKNOWN


def test_cells_without_an_observation_are_unknown() -> None:
    other = Cell(Endpoint.parse("x/a"), Endpoint.parse("x/c"), 80)
    results = compare({CELL: ALLOW, other: ALLOW}, {CELL: seen(Outcome.ALLOWED)})
    assert [result.finding for result in results] == [Finding.AGREES, Finding.UNKNOWN]
    counts = tally(results)
    assert counts[Finding.AGREES] == counts[Finding.UNKNOWN] == 1
    assert counts[Finding.LEAK] == 0
