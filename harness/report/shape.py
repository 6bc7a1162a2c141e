"""What a record holds, as plain values. Their JSON form: :mod:`harness.report.codec`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from harness.model.flow import CellResult, Decision

SCHEMA = "netpol-record/1"


@dataclass(slots=True)
class CellRecord:
    """One cell of one step. ``because`` indexes ``StepRecord.reasons``; times are seconds.

    ``observed`` is the last outcome; ``outcomes`` counts every outcome seen in the step.
    ``source`` and ``target`` are :class:`harness.model.flow.Endpoint` in their text form.
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
    ``agreed``, ``held``, ``ended`` (what was not reached is absent).

    ``pods``: name (``namespace/pod``), labels, node, ips. ``namespaces``: name, labels.
    ``reasons``: one entry for each distinct decision, as :func:`decision_entry` makes it.
    ``evidence``: title, node, command, text. ``checks``: what is not a cell: name, outcome, and
    text where there is more to say.
    """

    title: str
    why: str = ""
    actions: list[str] = field(default_factory=list)
    policies: str = ""  # YAML of the policies in force
    pods: list[dict[str, Any]] = field(default_factory=list)
    timeline: dict[str, float] = field(default_factory=dict)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    cells: list[CellRecord] = field(default_factory=list)
    evidence: list[dict[str, str]] = field(default_factory=list)
    checks: list[dict[str, str]] = field(default_factory=list)
    namespaces: list[dict[str, Any]] = field(default_factory=list)
    _known: dict[Decision, int] = field(default_factory=dict, repr=False, compare=False)

    def add(self, result: CellResult) -> CellRecord:
        """Record one cell. A decision that several cells share is kept once."""
        because = self._known.get(result.decision)
        if because is None:
            because = self._known[result.decision] = len(self.reasons)
            self.reasons.append(decision_entry(result.decision))
        last = result.observations[-1] if result.observations else None
        cell = CellRecord(
            source=str(result.cell.source),
            target=str(result.cell.target),
            port=result.cell.port,
            protocol=str(result.cell.protocol),
            via=str(result.cell.via),
            family=result.cell.family,
            expected=str(result.decision.verdict),
            finding=str(result.finding),
            observed=str(last.outcome) if last else "",
            outcomes=dict(Counter(str(o.outcome) for o in result.observations)),
            because=because,
            reason=result.decision.reason,
            latency=result.latency,
            backend=last.backend if last else "",
            seen_source=last.seen_source if last else "",
            raw=last.raw if last else "",
            note=result.note,
        )
        self.cells.append(cell)
        return cell


@dataclass(slots=True)
class ScenarioRecord:
    """``outcome``: passed, failed, error, skipped, xfailed or xpassed, as pytest has it.

    ``seconds`` is the whole scenario's duration; ``rerun`` a shell command that runs just it.
    """

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
    """A whole run. ``run`` holds: id, started, finished (ISO 8601, UTC), argv, seed, cni,
    cni_version, lab, families, fabric, dataplane, versions, environment, exit_status,
    interrupted, and features: what the labels of the scenarios mean, as group -> label -> text.

    ``damage`` is not part of the file: one sentence for each thing that the reader could not
    make out of it. Whoever draws a report from a damaged record shows them first.
    """

    run: dict[str, Any]
    scenarios: list[ScenarioRecord] = field(default_factory=list)
    not_tested: list[dict[str, str]] = field(default_factory=list)  # what, why
    schema: str = SCHEMA
    damage: list[str] = field(default_factory=list)


def decision_entry(decision: Decision) -> dict[str, Any]:
    """A decision as it stands in ``StepRecord.reasons``: verdict, reason, and why by direction."""
    return {
        "verdict": str(decision.verdict),
        "reason": decision.reason,
        "because": [
            {
                "direction": str(b.direction),
                "verdict": str(b.verdict),
                "code": b.code,
                "text": b.text,
                "policies": list(b.policies),
                "rule": b.rule,
                "source": str(b.source) if b.source else "",
                "flow": b.flow,
            }
            for b in decision.because
        ],
    }
