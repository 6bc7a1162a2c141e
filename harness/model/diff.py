"""Expected against observed: what one cell's probes are worth.

Nothing passes for want of a look: a cell that was not really probed, or whose silence could have
another cause, is ``unknown``, and unknown is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.model.flow import (
    Cell,
    CellResult,
    Decision,
    Finding,
    Observation,
    Outcome,
    Verdict,
)

# What a dropped or rejected connection looks like to a client.
_SILENT = frozenset({Outcome.TIMEOUT, Outcome.REFUSED, Outcome.RESET, Outcome.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Control:
    """What is known of the listener that a cell asks for.

    ``now``: it answered a control in the same step (from itself or its node). ``baseline``: it
    was seen to answer before any policy. ``names``: the cluster's DNS answered in the same step.
    Each may be None: not looked at.
    """

    now: bool | None = None
    baseline: bool | None = None
    names: bool | None = None


@dataclass(frozen=True, slots=True)
class KnownDeviation:
    """A departure that a catalogue entry declares: the cells it is about, what is seen instead
    of what is specified (the Finding), why, and where upstream says so."""

    id: str
    finding: Finding
    why: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A finding and, unless all is well, what to say of it."""

    finding: Finding
    note: str = ""
    deviation: KnownDeviation | None = None


def judge(
    decision: Decision,
    observation: Observation | None,
    control: Control | None = None,
    deviation: KnownDeviation | None = None,
) -> Judgement:
    """What one (the last, settled) observation of a cell means.

    ``observation`` None: there was none. ``control``: see :class:`Control`; None is the same as
    one that knows nothing. ``deviation``: the one that the catalogue declares for this cell, if
    any; its finding, and no other, becomes ``known-deviation``.
    """
    judgement = _judge(decision, observation, control or Control())
    if deviation is not None and judgement.finding is deviation.finding:
        return Judgement(Finding.KNOWN, deviation.why, deviation)
    return judgement


def _judge(decision: Decision, seen: Observation | None, control: Control) -> Judgement:
    if seen is None:
        return Judgement(Finding.UNKNOWN, "it was never probed")
    if seen.outcome is Outcome.HARNESS_ERROR:
        return Judgement(Finding.UNKNOWN, f"the probe itself failed: {seen.raw or 'no detail'}")
    match decision.verdict:
        case Verdict.UNDEFINED:
            return Judgement(Finding.UNDEFINED, f"left to the implementation: {decision.text}")
        case Verdict.ALLOW:
            return _judge_allow(seen, control)
        case Verdict.DENY:
            return _judge_deny(decision, seen, control)


def _judge_allow(seen: Observation, control: Control) -> Judgement:
    match seen.outcome:
        case Outcome.ALLOWED:
            return Judgement(Finding.AGREES)
        case Outcome.WRONG_BACKEND:
            return Judgement(Finding.OUTAGE, f"somebody else answered: {seen.backend or '?'}")
        case Outcome.NAME_FAILURE:
            return Judgement(
                Finding.UNKNOWN,
                "the name was not resolved although its lookup is allowed, so the connection was "
                "never tried",
            )
        case _ if control.now is False:
            return Judgement(
                Finding.UNKNOWN,
                f"{seen.outcome}, but the listener did not answer its control either, so it may "
                f"be the listener",
            )
        case _:
            return Judgement(Finding.OUTAGE, f"expected to connect, and saw: {seen.outcome}")


def _judge_deny(decision: Decision, seen: Observation, control: Control) -> Judgement:
    match seen.outcome:
        case Outcome.ALLOWED:
            return Judgement(Finding.LEAK, "expected to be denied, and it was answered")
        case Outcome.WRONG_BACKEND:
            note = f"expected to be denied, and somebody else answered: {seen.backend or '?'}"
            return Judgement(Finding.LEAK, note)
        case Outcome.NAME_FAILURE:
            if control.names is False:
                return Judgement(
                    Finding.UNKNOWN, "the name was not resolved, and the DNS server is not there"
                )
            if denies_lookup(decision):
                return Judgement(Finding.AGREES, "the lookup of the name is what was denied")
            return Judgement(
                Finding.UNKNOWN,
                "the name was not resolved although its lookup is not denied, so the connection "
                "was never tried",
            )
    assert seen.outcome in _SILENT
    if control.now is not True:
        why = "did not answer" if control.now is False else "was not asked"
        return Judgement(
            Finding.UNKNOWN,
            f"{seen.outcome}, but the listener {why} in a control of the same step, and a stopped "
            f"server looks just like a denial",
        )
    if seen.outcome is not Outcome.TIMEOUT and control.baseline is not True:
        return Judgement(
            Finding.UNKNOWN,
            f"{seen.outcome}, but no baseline without policies has shown that this listener lives",
        )
    return Judgement(Finding.AGREES)


def denies_lookup(decision: Decision) -> bool:
    """Whether it is (also) the lookup of the Service's name that is denied."""
    return any(b.flow == "dns" and b.verdict is Verdict.DENY for b in decision.because)


def compare(
    decisions: Mapping[Cell, Decision],
    observations: Mapping[Cell, Observation],
    controls: Mapping[Cell, Control] | None = None,
    deviations: Mapping[Cell, KnownDeviation] | None = None,
) -> list[CellResult]:
    """One result for each expected cell; a cell without an observation is unknown."""
    results = []
    for cell, decision in decisions.items():
        seen = observations.get(cell)
        judgement = judge(
            decision,
            seen,
            (controls or {}).get(cell),
            (deviations or {}).get(cell),
        )
        results.append(
            CellResult(
                cell,
                decision,
                judgement.finding,
                (seen,) if seen else (),
                note=judgement.note,
            )
        )
    return results


def tally(results: Iterable[CellResult]) -> dict[Finding, int]:
    """How many cells of each finding, all findings present."""
    counts = dict.fromkeys(Finding, 0)
    for result in results:
        counts[result.finding] += 1
    return counts
