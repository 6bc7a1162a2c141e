"""Runs side by side: by feature, by scenario, latency, what is left open, deviations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import plots, summary
from harness.report.document import (
    Document,
    Heading,
    Items,
    Paragraph,
    Picture,
    Sign,
    Table,
)
from harness.report.shape import RunRecord, ScenarioRecord
from harness.report.summary import WRONG_OUTCOMES, by_finding, duration, plural
from harness.report.words import FINDING_SIGNS, OUTCOME_SIGNS

NOTHING = "\N{EN DASH}"
#: Rows of scenarios that differ; a table of thousands is read by nobody.
ROWS = 200
CURVES = 6


@dataclass(frozen=True, slots=True)
class Comparison:
    """``names`` tell the runs apart, in the order of ``records``; ``problems`` are told first."""

    names: tuple[str, ...]
    records: tuple[RunRecord, ...]
    problems: tuple[str, ...] = ()

    @property
    def common(self) -> list[str]:
        """Ids of the scenarios that every run has, in the order of the first."""
        sets = [{s.id for s in r.scenarios} for r in self.records[1:]]
        return [s.id for s in self.records[0].scenarios if all(s.id in of for of in sets)]


def compare(records: Sequence[RunRecord], problems: Sequence[str] = ()) -> Comparison:
    """At least one record. Different suites are told as a problem; what both ran is compared."""
    comparison = Comparison(names(records), tuple(records))
    common = set(comparison.common)
    told = list(problems)
    for name, record in zip(comparison.names, records, strict=True):
        told += [f"{name}: {text}" for text in record.damage]
        own = [s.id for s in record.scenarios if s.id not in common]
        if own:
            first = ", ".join(own[:3]) + (", …" if len(own) > 3 else "")
            told.append(f"{name} ran {plural(len(own), 'scenario')} that not all did: {first}")
    if len(records) > 1 and not common:
        told.append("these runs have no scenario in common: they ran different suites")
    return Comparison(comparison.names, comparison.records, tuple(told))


def names(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """The shortest name for each run that tells it apart from the others."""
    shown = [[str(r.run.get("cni") or "?")] for r in records]
    for part in ("dataplane", "fabric", "lab", "id", "started"):
        values = [str(r.run.get(part) or "") for r in records]
        alike: dict[tuple[str, ...], list[int]] = {}
        for n, one in enumerate(shown):
            alike.setdefault(tuple(one), []).append(n)
        for group in alike.values():
            if len({values[n] for n in group}) > 1:
                for n in group:
                    shown[n] += [values[n]] if values[n] else []
    out: list[str] = []
    for n, one in enumerate(shown, start=1):
        name = one[0] + (f" ({', '.join(one[1:])})" if one[1:] else "")
        out.append(name if name not in out else f"{name} #{n}")
    return tuple(out)


def document(comparison: Comparison, title: str = "NetworkPolicy conformance compared") -> Document:
    """The comparison in words, tables and a plot."""
    out = Document(title)
    if comparison.problems:
        out.add(Items(tuple(f"Note: {text}" for text in comparison.problems)))
    out.add(_overview(comparison))
    _features(comparison, out)
    _latency(comparison, out)
    _open(comparison, out)
    _deviations(comparison, out)
    _scenarios(comparison, out)
    return out


def _overview(comparison: Comparison) -> Table:
    rows: list[tuple[str | Sign, ...]] = []
    for name, record in zip(comparison.names, comparison.records, strict=True):
        verdict = summary.verdict(record)
        kind = verdict.word if verdict.word in OUTCOME_SIGNS else "error"
        findings = by_finding(record.scenarios)
        counts = [f"{findings[f]:,}" if findings[f] else NOTHING for f in FINDING_SIGNS]
        outcomes = summary.by_outcome(record.scenarios)
        ran = len(record.scenarios) - outcomes["skipped"]
        good = outcomes["passed"] + outcomes["xfailed"]
        rows.append((name, Sign(verdict.word, kind), f"{good}/{ran}", *counts))
    head = ("Run", "Verdict", "Passed", *(s.word for s in FINDING_SIGNS.values()))
    return Table(head, tuple(rows), frozenset(range(2, len(head))))


def _features(comparison: Comparison, out: Document) -> None:
    by_run = [summary.by_feature(record.scenarios) for record in comparison.records]
    known = [
        f for r in comparison.records for g in (r.run.get("features") or {}).values() for f in g
    ]
    labels = [f for f in dict.fromkeys(known) if any(f in of for of in by_run)]
    labels += sorted({f for of in by_run for f in of} - set(labels))
    if not labels:
        return
    rows = [(label, *(_passed(of.get(label, Counter())) for of in by_run)) for label in labels]
    out.add(
        Heading("By feature"),
        Paragraph("Scenarios that passed, of those that were run."),
        Table(("Feature", *comparison.names), tuple(rows)),
    )


def _passed(counts: Counter[str]) -> str | Sign:
    ran = counts.total() - counts["skipped"]
    if not counts.total():
        return NOTHING
    if not ran:
        return Sign("skipped", "skipped")
    good = counts["passed"] + counts["xfailed"]
    return Sign(f"{good}/{ran}", summary.worst_run(counts))


def _latency(comparison: Comparison, out: Document) -> None:
    rows: list[tuple[str | Sign, ...]] = []
    curves = {}
    for number, (name, record) in enumerate(
        zip(comparison.names, comparison.records, strict=True), start=1
    ):
        for verdict, of in summary.latencies(record.scenarios).items():
            if not of.values:
                continue
            figures = [duration(of.quantile(q)) for q in (0.5, 0.9, 0.99, 1.0)]
            css = f"c{number} {'al' if verdict == 'allow' else 'dn'}"
            label = Sign(name, css) if number <= CURVES else name
            rows.append((label, verdict, f"{len(of.values):,}", *figures))
            if number <= CURVES:
                curves[css] = of
    if not rows:
        return
    out.add(
        Heading("Enforcement latency"),
        Paragraph(
            "From just before a change was sent until each cell whose verdict it turned had come "
            "to it for good."
        ),
        Picture(plots.ecdf(curves, "Share of cells enforced within a time, by run", width=8.5)),
        Table(
            ("Run", "Turned to", "cells", "median", "90 %", "99 %", "longest"),
            tuple(rows),
            frozenset(range(2, 7)),
        ),
    )


def _open(comparison: Comparison, out: Document) -> None:
    profiles = [summary.undefined_profile(r.scenarios) for r in comparison.records]
    reasons = sorted({reason for p in profiles for reason in p})
    if not reasons:
        return
    rows = [
        (
            reason,
            *(
                ", ".join(f"{name} {n}" for name, n in p[reason].most_common())
                if reason in p
                else NOTHING
                for p in profiles
            ),
        )
        for reason in reasons
    ]
    out.add(
        Heading("Left to the implementation"),
        Paragraph("What the API leaves undefined is recorded and never judged."),
        Table(("What is left open", *comparison.names), tuple(rows)),
    )


def _deviations(comparison: Comparison, out: Document) -> None:
    rows: list[tuple[str | Sign, ...]] = []
    for name, record in zip(comparison.names, comparison.records, strict=True):
        for scenario in record.scenarios:
            kind = {"xfailed": "known", "xpassed": "mended", "failed": "new"}.get(scenario.outcome)
            if kind and (kind != "new" or any(s.outcome == "xfailed" for s in record.scenarios)):
                rows.append((name, Sign(kind, scenario.outcome), scenario.title, _reason(scenario)))
    if rows:
        out.add(
            Heading("Deviations"),
            Table(("Run", "State", "Scenario", "Reason"), tuple(rows[:ROWS])),
        )
        _more(out, len(rows))


def _reason(scenario: ScenarioRecord) -> str:
    for cell in summary.cells([scenario]):
        if cell.finding == "known-deviation" and cell.note:
            return cell.note
    return scenario.message.partition("\n")[0]


def _scenarios(comparison: Comparison, out: Document) -> None:
    tables = [{s.id: s for s in r.scenarios} for r in comparison.records]
    ids = list(dict.fromkeys(s.id for r in comparison.records for s in r.scenarios))
    rows = []
    for id_ in ids:
        found = [of.get(id_) for of in tables]
        outcomes = {s.outcome if s else None for s in found}
        if len(outcomes) == 1 and not outcomes & WRONG_OUTCOMES:
            continue
        rows.append((id_, *(scenario_sign(s) for s in found)))
    alike = len(ids) - len(rows)
    out.add(Heading("By scenario"))
    if rows:
        out.add(Table(("Scenario", *comparison.names), tuple(rows[:ROWS])))
        _more(out, len(rows))
    out.add(Paragraph(f"{plural(alike, 'scenario')} came out well and alike in all of the runs."))


def _more(out: Document, rows: int) -> None:
    if rows > ROWS:
        out.add(Paragraph(f"and {rows - ROWS:,} more rows, which the records have"))


def scenario_sign(scenario: ScenarioRecord | None) -> str | Sign:
    """A scenario's outcome with its wrong cells: ``failed: 3 leaks``."""
    if scenario is None:
        return NOTHING
    word = OUTCOME_SIGNS[scenario.outcome].word if scenario.outcome in OUTCOME_SIGNS else "?"
    findings = by_finding([scenario])
    wrong = summary.wrong_cells(findings)
    return Sign(word + (f": {wrong}" if wrong else ""), scenario.outcome)
