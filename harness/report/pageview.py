"""A whole record as a page shows it: verdict, what went wrong, features, latency, behaviour."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from harness.report import summary
from harness.report.scenarioview import ScenarioView, anchor
from harness.report.shape import CellRecord, RunRecord, ScenarioRecord, StepRecord
from harness.report.summary import BAD_FINDINGS, FINDINGS, OUTCOMES, Distribution, duration
from harness.report.words import FINDING_SIGNS, STRANGE, Sign, cell_key, deciding_policies, why

#: Groups of wrong cells that the top of the page tells; the others are with their scenarios.
GROUPS = 12


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
        return summary.worst_run(self.counts)

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
            ("Version", run.get("cni_version")),
            ("Lab", run.get("lab")),
            ("Fabric", run.get("fabric")),
            ("Data plane", run.get("dataplane")),
            *self._engine(("Scope", "scope"), ("Engine", "digest")),
            ("Started", _moment(run.get("started"))),
            ("Took", _took(run)),
            ("Seed", run.get("seed")),
            ("Run", run.get("id")),
        ]
        return [(name, str(value)) for name, value in pairs if value not in (None, "")]

    def _engine(self, *rows: tuple[str, str]) -> list[tuple[str, Any]]:
        """Of a policy engine that was brought along."""
        engine = self.run.get("engine") or {}
        return [(name, engine.get(key)) for name, key in rows]

    @property
    def details(self) -> list[tuple[str, str]]:
        """Versions, environment and the command line, for the end of the page."""
        run = self.run
        pairs = [
            ("command", shlex.join(map(str, run.get("argv") or []))),
            ("exit status", _text(run.get("exit_status"))),
            *((name, _text(v)) for name, v in self._engine(("engine from", "source"))),
            *((name, shlex.join(v or [])) for name, v in self._engine(("engine run as", "argv"))),
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
