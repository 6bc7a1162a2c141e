"""A scenario and its steps as the page shows them: the record's matter in the order of reading."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from functools import cached_property
from urllib.parse import quote

from markupsafe import Markup

from harness.report import graph, matrix, policytext, summary
from harness.report.codec import encode_scenario
from harness.report.shape import CellRecord, ScenarioRecord
from harness.report.summary import BAD_FINDINGS
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

#: Wrong cells of one step that are told in words.
TOLD = 20


def anchor(scenario: str, step: int | None = None, cell: str = "") -> str:
    """The address within the page of a scenario, a step (from 1) or a cell, without ``#``."""
    text = f"scenario={quoted(scenario)}"
    if step is not None:
        text += f"&step={step}"
    return text + (f"&cell={quoted(cell)}" if cell else "")


def quoted(text: str) -> str:
    """Percent-encoded as by JavaScript's encodeURIComponent: the script builds the same links."""
    return quote(text.encode(errors="replace"), safe="!~*'()")


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
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        text = text.encode(errors="replace").decode()  # what is no Unicode stops the script
        # Nothing in it can end the element that it stands in, or open a comment there.
        return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c"))  # noqa: S704
