"""A failure made small, on the lab: the smallest world and policies that still show it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.model.flow import Finding, Verdict
from harness.model.oracle import expected
from harness.report.record import ScenarioRecord
from harness.run.runner import Runner
from harness.run.words import WRONG
from harness.scenarios.cells import cells, parse_cell
from harness.scenarios.check import EVERYTHING, worlds_of
from harness.scenarios.presume import presume
from harness.scenarios.scenario import Scenario
from harness.scenarios.shrink import focus, shrink

#: Seconds that a change may take while candidates are tried; the result is run once more with
#: the runner's own deadline.
_HURRY = 1.0


@dataclass(frozen=True, slots=True)
class Smallest:
    """``scenario`` fails, ``record`` says how; ``tried`` candidates were run for it."""

    scenario: Scenario
    record: ScenarioRecord
    tried: int


def smallest(
    runner: Runner,
    scenario: Scenario,
    record: ScenarioRecord,
    *,
    seconds: float = 60.0,
    tries: int = 300,
) -> Smallest:
    """Shrink a scenario whose ``record`` has failed. The same kind of thing has to go wrong (a
    leak stays a leak). What does not fail again is returned as it was.

    Stops after ``seconds`` or ``tries``, whichever comes first.
    """
    kinds = _kinds(record)
    started = time.monotonic()
    own = runner.timing
    profile = runner.cni.profile if runner.cni else {}
    tried = 0

    def fails(candidate: Scenario) -> bool:
        nonlocal tried
        if time.monotonic() - started > seconds or not _can_be(candidate, kinds, profile):
            return False
        tried += 1
        return bool(_kinds(runner.run(candidate)) & kinds)

    runner.timing = replace(own, deadline=min(own.deadline, _HURRY))
    try:
        wrong = [parse_cell(text) for text in sorted(_wrong_cells(record))]
        narrower = [focus(scenario, {wrong[0]}), focus(scenario, set(wrong))] if wrong else []
        start = next((one for one in narrower if fails(one)), scenario)
        found, _ = shrink(start, fails, tries)
    finally:
        runner.timing = own
    again = runner.run(replace(found, id=f"{scenario.id}/smallest"))
    tried += 1
    if _kinds(again) & kinds:
        return Smallest(replace(found, id=f"{scenario.id}/smallest"), again, tried)
    return Smallest(scenario, record, tried)


def _can_be(scenario: Scenario, kinds: set[str], profile: Mapping[str, str]) -> bool:
    """Whether a cell is expected in which such a thing can go wrong: a leak needs a denial, an
    outage something allowed. What cannot fail need not be run."""
    if kinds - {Finding.LEAK, Finding.OUTAGE}:
        return True
    wanted = {Verdict.DENY if kind == Finding.LEAK else Verdict.ALLOW for kind in kinds}
    for one, world in zip(scenario.steps, worlds_of(scenario), strict=True):
        resolved = presume(world)
        asked = cells(resolved, one.probes or scenario.probes, EVERYTHING)
        if any(
            decision.verdict in wanted for decision in expected(resolved, asked, profile).values()
        ):
            return True
    return False


def _kinds(record: ScenarioRecord) -> set[str]:
    """What goes wrong, as findings; of something unknown nothing can be learned."""
    wrong = {str(finding) for finding in WRONG}
    return {c.finding for one in record.steps for c in one.cells if c.finding in wrong}


def _wrong_cells(record: ScenarioRecord) -> set[str]:
    """The cells of the first step in which something goes wrong."""
    for one in record.steps:
        wrong = {
            f"{c.source} -> {c.target}:{c.port}/{c.protocol} by {c.via}"
            + (" (IPv6)" if c.family == 6 else "")
            for c in one.cells
            if c.finding in WRONG and c.finding != Finding.UNKNOWN
        }
        if wrong:
            return wrong
    return set()
