"""The run's record: plain data that every report is drawn from, ``netpol-record/1``.

``record.jsonl`` grows while the run goes on (one line a scenario, so that an interrupted run keeps
what it measured); ``record.json`` is written from it at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA = "netpol-record/1"


@dataclass(slots=True)
class CellRecord:
    """One cell of one step. ``because`` indexes ``StepRecord.reasons``; times are seconds.

    ``observed`` is the last outcome; ``outcomes`` counts every outcome seen in the step.
    """

    source: str
    target: str
    port: int
    protocol: str
    via: str
    family: int
    expected: str
    finding: str
    observed: str
    outcomes: dict[str, int] = field(default_factory=dict)
    because: int | None = None
    reason: str = ""
    latency: float | None = None
    backend: str = ""
    seen_source: str = ""
    raw: str = ""
    note: str = ""


@dataclass(slots=True)
class StepRecord:
    """One step. ``timeline`` holds seconds since the step began: ``applied``, ``first_look``,
    ``agreed``, ``held``, ``ended`` (what was not reached is absent)."""

    title: str
    why: str = ""
    actions: list[str] = field(default_factory=list)
    policies: str = ""  # YAML of the policies in force
    pods: list[dict[str, Any]] = field(default_factory=list)  # name, labels, node, ips
    timeline: dict[str, float] = field(default_factory=dict)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    cells: list[CellRecord] = field(default_factory=list)
    evidence: list[dict[str, str]] = field(default_factory=list)
    checks: list[dict[str, str]] = field(default_factory=list)  # non-cell checks: name, outcome


@dataclass(slots=True)
class ScenarioRecord:
    """``outcome``: passed, failed, error, skipped, xfailed or xpassed, as pytest has it."""

    id: str
    title: str
    why: str = ""
    features: list[str] = field(default_factory=list)
    source: str = ""
    outcome: str = ""
    message: str = ""
    rerun: str = ""
    worker: str = ""
    seconds: float = 0.0
    steps: list[StepRecord] = field(default_factory=list)


@dataclass(slots=True)
class RunRecord:
    """A whole run. ``run`` holds: id, started, finished (ISO 8601, UTC), argv, seed, cni, lab,
    fabric, dataplane, versions, environment, exit_status, interrupted."""

    run: dict[str, Any]
    scenarios: list[ScenarioRecord] = field(default_factory=list)
    not_tested: list[dict[str, str]] = field(default_factory=list)  # what, why
    schema: str = SCHEMA
