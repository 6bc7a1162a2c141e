"""What a record comes to: counts, verdict, latencies. Pure functions that every report shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from harness.report.shape import CellRecord, RunRecord, ScenarioRecord, StepRecord

#: Outcomes of scenarios, the worst first.
OUTCOMES = ("failed", "error", "xpassed", "xfailed", "skipped", "passed")
#: Outcomes that say something of the network, or that nothing can be said of it.
WRONG_OUTCOMES = frozenset({"error", "failed"})
#: Those that need a look. What is mended is one: a deviation that the catalogue declares xfails
#: strictly, so the run fails; one out of a baseline is only told.
BAD_OUTCOMES = WRONG_OUTCOMES | {"xpassed"}
#: Findings, the worst first.
FINDINGS = ("leak", "outage", "unknown", "flaky", "known-deviation", "undefined", "agrees")
BAD_FINDINGS = frozenset({"leak", "outage", "unknown", "flaky"})

Question = tuple[str, str, int, str, str, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word``: passed, failed, error, or empty (nothing was run, which is never a pass)."""

    word: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """Seconds. ``values`` are sorted; the quantiles of none are None."""

    values: tuple[float, ...]

    def quantile(self, q: float) -> float | None:
        """The smallest value that at least the share ``q`` of all values does not exceed."""
        if not self.values:
            return None
        rank = max(0, ceil(q * len(self.values)) - 1)
        return self.values[rank]


def question(cell: CellRecord) -> Question:
    """What was asked, without the answer: the same in every step, run and CNI."""
    return cell.source, cell.target, cell.port, cell.protocol, cell.via, cell.family


def cells(scenarios: Iterable[ScenarioRecord]) -> Iterator[CellRecord]:
    for scenario in scenarios:
        for step in scenario.steps:
            yield from step.cells


def by_outcome(scenarios: Iterable[ScenarioRecord]) -> Counter[str]:
    return Counter(s.outcome for s in scenarios)


def by_finding(scenarios: Iterable[ScenarioRecord]) -> Counter[str]:
    """Cells by finding."""
    return Counter(c.finding for c in cells(scenarios))


def by_feature(scenarios: Iterable[ScenarioRecord]) -> dict[str, Counter[str]]:
    """Feature label -> scenarios by outcome. A scenario counts under each of its labels."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for scenario in scenarios:
        for label in scenario.features:
            counts[label][scenario.outcome] += 1
    return dict(sorted(counts.items()))


def verdict(record: RunRecord) -> Verdict:
    """The run in one word and one sentence."""
    outcomes = by_outcome(record.scenarios)
    ran = sum(n for o, n in outcomes.items() if o != "skipped")
    parts = []
    if not ran:
        word = "empty"
        parts.append("No scenario was run, so nothing is known")
    elif bad := sum(outcomes[o] for o in _failing(record)):
        word = "error" if not outcomes["failed"] and not outcomes["xpassed"] else "failed"
        how = [
            f"{outcomes[o]} {text}"
            for o, text in (
                ("failed", "failed"),
                ("error", "could not be measured"),
                ("xpassed", "passed although known to deviate"),
            )
            if outcomes[o]
        ]
        parts.append(f"{bad} of {plural(ran, 'scenario')}: {', '.join(how)}")
    else:
        word = "passed"
        parts.append(
            f"All {plural(ran, 'scenario')} as expected" if ran > 1 else "The one scenario passed"
        )
        if outcomes["xfailed"]:
            parts.append(f"{outcomes['xfailed']} of them failed as they are known to")
        if outcomes["xpassed"]:
            parts.append(f"{outcomes['xpassed']} known to fail did not")
    if wrong := wrong_cells(by_finding(record.scenarios)):
        parts.append(wrong)
    if record.run.get("interrupted"):
        parts.append("the run was interrupted")
        word = "error" if word == "passed" else word
    return Verdict(word, "; ".join(parts) + ".")


def _failing(record: RunRecord) -> frozenset[str]:
    mended_only = not any(s.outcome in WRONG_OUTCOMES for s in record.scenarios)
    told = mended_only and record.run.get("exit_status") == 0
    return WRONG_OUTCOMES if told else BAD_OUTCOMES


def turned(scenario: ScenarioRecord) -> Iterator[tuple[StepRecord, CellRecord]]:
    """The cells whose expected verdict a step changed: only these tell of enforcement latency.

    Before the first step there is no policy, so everything counts as allowed.
    """
    before: dict[Question, str] = {}
    for step in scenario.steps:
        for cell in step.cells:
            if cell.expected in ("allow", "deny") and cell.expected != before.get(
                question(cell), "allow"
            ):
                yield step, cell
        before |= {question(c): c.expected for c in step.cells}


def latencies(scenarios: Iterable[ScenarioRecord]) -> dict[str, Distribution]:
    """From the change to its enforcement, for cells that turned to ``allow`` and to ``deny``."""
    values: dict[str, list[float]] = {"allow": [], "deny": []}
    for scenario in scenarios:
        for _, cell in turned(scenario):
            if cell.latency is not None:
                values[cell.expected].append(cell.latency)
    return {k: Distribution(tuple(sorted(v))) for k, v in values.items()}


def undefined_profile(scenarios: Iterable[ScenarioRecord]) -> dict[str, Counter[str]]:
    """Reason code of what the API leaves open -> how its cells ended, by last outcome."""
    profile: dict[str, Counter[str]] = defaultdict(Counter)
    for cell in cells(scenarios):
        if cell.finding == "undefined":
            profile[cell.reason or "no reason given"][cell.observed or "never probed"] += 1
    return dict(sorted(profile.items()))


def worst(findings: Mapping[str, int], order: Sequence[str] = FINDINGS) -> str:
    """The worst key that counts anything; "" if none does."""
    return next((f for f in order if findings.get(f)), "")


def worst_run(outcomes: Mapping[str, int]) -> str:
    """The worst outcome among scenarios that were run; skipped where none was."""
    ran = {o: n for o, n in outcomes.items() if o != "skipped"}
    return worst(ran, OUTCOMES) or worst(outcomes, OUTCOMES)


def wrong_cells(findings: Mapping[str, int]) -> str:
    """``3 leaks, 1 outage, 2 unknown``; "" if nothing is wrong."""
    return ", ".join(
        plural(findings[f], f) if f in ("leak", "outage") else f"{findings[f]:,} {f}"
        for f in FINDINGS
        if f in BAD_FINDINGS and findings.get(f)
    )


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def duration(seconds: float | None) -> str:
    """Seconds as people read them: ``12 ms``, ``3.4 s``, ``2 min 5 s``; a dash for None."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 else f"{seconds * 1000:.1f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
