"""A record as a page shows it: the same matter, put in the order of reading."""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness.report import graph, matrix, policytext, summary
from harness.report.codec import encode_scenario
from harness.report.shape import CellRecord, RunRecord, ScenarioRecord, StepRecord
from harness.report.summary import BAD_FINDINGS, FINDINGS, OUTCOMES, Distribution, duration
from harness.report.timeline import timeline
from harness.report.words import (
    FINDING_SIGNS,
    OUTCOME_SIGNS,
    STRANGE,
    Sign,
    cell_key,
    deciding_policies,
    sign,
    way,
    why,
)

#: Groups of wrong cells that the top of the page tells; the others are with their scenarios.
GROUPS = 12
#: Wrong cells of one step that are told in words.
TOLD = 20


def anchor(scenario: str, step: int | None = None, cell: str = "") -> str:
    """The address within the page of a scenario, a step (from 1) or a cell, without ``#``."""
    text = f"scenario={_quoted(scenario)}"
    if step is not None:
        text += f"&step={step}"
    return text + (f"&cell={_quoted(cell)}" if cell else "")


def _quoted(text: str) -> str:
    # As encodeURIComponent does it, for the script builds the same addresses.
    return quote(text.encode(errors="replace"), safe="!~*'()")


@dataclass(frozen=True, slots=True)
class WrongGroup:
    """Wrong cells of one step that share a finding and its reason."""

    scenario: ScenarioRecord
    step: StepRecord
    number: int
    finding: str
    why: str
    policies: list[str]
    cells: list[CellRecord]

    @property
    def sign(self) -> Sign:
        return FINDING_SIGNS.get(self.finding, STRANGE)

    @property
    def link(self) -> str:
        return anchor(self.scenario.id, self.number, cell_key(self.cells[0]))


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """``text`` explains the label; ``counts`` are scenarios by outcome, empty if none was run."""

    label: str
    text: str
    counts: Counter[str]

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def ran(self) -> int:
        return self.total - self.counts["skipped"]

    @property
    def good(self) -> int:
        return self.counts["passed"] + self.counts["xfailed"]

    @property
    def worst(self) -> str:
        return summary.worst(self.counts, OUTCOMES)

    @property
    def bars(self) -> list[tuple[str, float, float]]:
        """``(outcome, from, width)`` in percent, the best first."""
        out, at = [], 0.0
        for outcome in reversed(OUTCOMES):
            if self.counts[outcome]:
                width = 100 * self.counts[outcome] / self.total
                out.append((outcome, round(at, 2), round(width, 2)))
                at += width
        return out


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    name: str
    rows: list[FeatureRow]
    counts: Counter[str]

    @property
    def whole(self) -> FeatureRow:
        return FeatureRow(self.name, "", self.counts)

    @property
    def absent(self) -> list[FeatureRow]:
        return [row for row in self.rows if not row.total]


class StepView:
    """One step, with what is drawn of it."""

    def __init__(self, scenario: ScenarioRecord, number: int, turned: list[CellRecord]) -> None:
        self.scenario = scenario
        self.number = number
        self.step = scenario.steps[number - 1]
        self.before = scenario.steps[number - 2] if number > 1 else None
        self._turned = turned

    @property
    def anchor(self) -> str:
        return anchor(self.scenario.id, self.number)

    @cached_property
    def counts(self) -> list[tuple[Sign, int]]:
        """Signs that occur, with the number of cells, the most serious first."""
        counts = Counter(sign(cell) for cell in self.step.cells)
        order = [*FINDING_SIGNS.values()]
        return sorted(
            counts.items(), key=lambda item: order.index(item[0]) if item[0] in order else 99
        )

    @property
    def matrices(self) -> list[Markup]:
        return matrix.tables(self.step)

    @property
    def graphs(self) -> list[Markup]:
        return graph.pictures(self.before, self.step)

    @property
    def timeline(self) -> Markup:
        return timeline(self.step, self._turned)

    @property
    def policy_lines(self) -> tuple[Markup, ...]:
        return policytext.lines(self.step.policies)

    @cached_property
    def wrong(self) -> list[tuple[CellRecord, Sign, str, list[str], str, str]]:
        """Wrong cells in words: cell, sign, why, policies, way, link."""
        return [
            (
                cell,
                sign(cell),
                why(self.step, cell),
                deciding_policies(self.step, cell),
                way(cell.protocol, cell.port, cell.via, cell.family),
                anchor(self.scenario.id, self.number, cell_key(cell)),
            )
            for cell in self.step.cells
            if cell.finding in BAD_FINDINGS
        ]

    @property
    def failed_checks(self) -> list[dict[str, str]]:
        return [c for c in self.step.checks if c.get("outcome") != "passed"]


class ScenarioView:
    """One scenario: a line in the list, and what unfolds from it."""

    def __init__(self, scenario: ScenarioRecord) -> None:
        self.scenario = scenario
        self.anchor = anchor(scenario.id)

    @property
    def bad(self) -> bool:
        return self.scenario.outcome in summary.BAD_OUTCOMES

    @property
    def sign(self) -> Sign:
        return OUTCOME_SIGNS.get(self.scenario.outcome, STRANGE)

    @cached_property
    def findings(self) -> Counter[str]:
        return summary.by_finding([self.scenario])

    @property
    def chips(self) -> list[tuple[Sign, int]]:
        return [(s, self.findings[f]) for f, s in FINDING_SIGNS.items() if self.findings[f]]

    @cached_property
    def namespaces(self) -> list[str]:
        """Namespaces of its pods, sorted."""
        return sorted(
            {str(p["name"]).partition("/")[0] for s in self.scenario.steps for p in s.pods}
        )

    @property
    def policies(self) -> list[str]:
        """``ns/name`` of every policy that was ever in force, for the search."""
        names = (n for s in self.scenario.steps for n in policytext.spans(s.policies))
        return list(dict.fromkeys(names))

    @property
    def steps(self) -> list[StepView]:
        turned: dict[int, list[CellRecord]] = defaultdict(list)
        for step, cell in summary.turned(self.scenario):
            turned[id(step)].append(cell)
        return [
            StepView(self.scenario, n, turned[id(step)])
            for n, step in enumerate(self.scenario.steps, start=1)
        ]

    @property
    def data(self) -> Markup:
        """What the script needs of the cells, as JSON for a data block."""
        encoded = encode_scenario(self.scenario)
        data = {
            "id": self.scenario.id,
            "values": encoded["values"],
            "steps": [
                {
                    "cells": one["cells"],
                    "reasons": one["reasons"],
                    "spans": policytext.spans(one["policies"]),
                }
                for one in encoded["steps"]
            ],
        }
        text = json.dumps(data, separators=(",", ":"))
        # Nothing in it can end the element that it stands in, or open a comment there.
        return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c"))  # noqa: S704


class PageView:
    """A whole record."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.run = record.run
        self.verdict = summary.verdict(record)
        order = {outcome: n for n, outcome in enumerate(OUTCOMES)}
        ordered = sorted(record.scenarios, key=lambda s: order.get(s.outcome, -1))
        self.scenarios = [ScenarioView(s) for s in ordered]

    @property
    def title(self) -> str:
        return str(self.run.get("cni") or "a network")

    @cached_property
    def outcomes(self) -> Counter[str]:
        return summary.by_outcome(self.record.scenarios)

    @cached_property
    def findings(self) -> Counter[str]:
        return summary.by_finding(self.record.scenarios)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was run where, for the head of the page."""
        run = self.run
        pairs = [
            ("Lab", run.get("lab")),
            ("Fabric", run.get("fabric")),
            ("Data plane", run.get("dataplane")),
            ("Started", _moment(run.get("started"))),
            ("Took", _took(run)),
            ("Seed", run.get("seed")),
            ("Run", run.get("id")),
        ]
        return [(name, str(value)) for name, value in pairs if value not in (None, "")]

    @property
    def details(self) -> list[tuple[str, str]]:
        """Versions, environment and the command line, for the end of the page."""
        run = self.run
        pairs = [
            ("command", "pytest " + shlex.join(map(str, run.get("argv") or []))),
            ("exit status", _text(run.get("exit_status"))),
            *((f"{name}", _text(v)) for name, v in sorted((run.get("versions") or {}).items())),
            *((f"{name}", _text(v)) for name, v in sorted((run.get("environment") or {}).items())),
        ]
        return [(name, value) for name, value in pairs if value]

    @property
    def feature_groups(self) -> list[FeatureGroup]:
        """The labels in their groups; those that the record does not explain come last."""
        counts = summary.by_feature(self.record.scenarios)
        known: dict[str, dict[str, str]] = self.run.get("features") or {}
        groups = {name: dict(labels) for name, labels in known.items()}
        explained = {label for labels in groups.values() for label in labels}
        if others := {label: "" for label in counts if label not in explained}:
            groups["other" if groups else "features"] = others
        out = []
        for name, labels in groups.items():
            rows = [FeatureRow(k, text, counts.get(k, Counter())) for k, text in labels.items()]
            if any(row.total for row in rows):
                out.append(FeatureGroup(name, rows, self._of_group(set(labels))))
        return out

    def _of_group(self, labels: set[str]) -> Counter[str]:
        return summary.by_outcome(
            s for s in self.record.scenarios if not labels.isdisjoint(s.features)
        )

    @cached_property
    def wrong_groups(self) -> list[WrongGroup]:
        """All groups of wrong cells, the most serious finding first."""
        found: dict[tuple[int, int, str, str], WrongGroup] = {}
        for index, scenario in enumerate(self.record.scenarios):
            for number, step in enumerate(scenario.steps, start=1):
                for cell in step.cells:
                    if cell.finding not in BAD_FINDINGS:
                        continue
                    policies = deciding_policies(step, cell)
                    key = (index, number, cell.finding, "\n".join(policies))
                    if key in found:
                        found[key].cells.append(cell)
                    else:
                        found[key] = WrongGroup(
                            scenario, step, number, cell.finding, why(step, cell), policies, [cell]
                        )
        return sorted(found.values(), key=lambda g: (FINDINGS.index(g.finding), -len(g.cells)))

    @property
    def unmeasured(self) -> list[ScenarioView]:
        """Scenarios that went wrong without a wrong cell: errors of the lab, mended ones."""
        return [v for v in self.scenarios if v.bad and not (BAD_FINDINGS & v.findings.keys())]

    @cached_property
    def latencies(self) -> dict[str, Distribution]:
        return summary.latencies(self.record.scenarios)

    @property
    def latency_rows(self) -> list[tuple[str, str, list[str]]]:
        """``(name, class, [count, median, 90 %, 99 %, longest])``."""
        rows = []
        for name, css in (("allow", "al"), ("deny", "dn")):
            of = self.latencies[name]
            if of.values:
                figures = [duration(of.quantile(q)) for q in (0.5, 0.9, 0.99, 1.0)]
                rows.append((name, css, [f"{len(of.values):,}", *figures]))
        return rows

    @property
    def profile(self) -> dict[str, Counter[str]]:
        return summary.undefined_profile(self.record.scenarios)

    @property
    def deviations(self) -> list[tuple[str, int, ScenarioRecord]]:
        """Known deviations: what the catalogue says of it, cells, and the first scenario."""
        found: dict[str, tuple[int, ScenarioRecord]] = {}
        for scenario in self.record.scenarios:
            for cell in summary.cells([scenario]):
                if cell.finding == "known-deviation":
                    count, first = found.get(cell.note, (0, scenario))
                    found[cell.note] = (count + 1, first)
        return [(note, count, first) for note, (count, first) in found.items()]

    @property
    def mended(self) -> list[ScenarioRecord]:
        return [s for s in self.record.scenarios if s.outcome == "xpassed"]

    @property
    def namespaces(self) -> list[str]:
        return sorted({name for view in self.scenarios for name in view.namespaces})

    def link(self, scenario: ScenarioRecord) -> str:
        return anchor(scenario.id)

    def __iter__(self) -> Iterator[ScenarioView]:
        return iter(self.scenarios)


def _moment(text: Any) -> str:
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return str(text or "")


def _took(run: dict[str, Any]) -> str:
    try:
        start, end = (datetime.fromisoformat(str(run.get(k))) for k in ("started", "finished"))
        return duration((end - start).total_seconds())
    except (ValueError, TypeError):
        return ""


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
