"""All findings in some manifests, and their forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harness.desk import lint_cnis, lint_rules
from harness.desk.findings import (
    ABOUT_INPUT,
    DOUBTFUL,
    UNREADABLE,
    Finding,
    Rule,
    Silence,
    counted,
    silences,
)
from harness.model.manifest import Loaded
from harness.model.policy import Source

SCHEMA = "netpol-lint/1"


def all_rules() -> list[Rule]:
    """Every rule, by code."""
    return [*ABOUT_INPUT, *lint_rules.rules(), lint_cnis.RULE]


def look(loaded: Loaded, cnis: Sequence[str]) -> tuple[list[Finding], list[Silence]]:
    """Every finding in what was read, and the comments that may silence some."""
    findings = []
    for problem in loaded.problems:
        rule = UNREADABLE if problem.severity == "error" else DOUBTFUL
        text = f"{problem.field}: {problem.message}" if problem.field else problem.message
        findings.append(Finding(rule, Source(problem.file, problem.line), text, problem.hint))
    world = loaded.world()
    findings += lint_rules.findings(world)
    findings += lint_cnis.findings(world, cnis)
    sources = [getattr(thing, "source", None) for thing in loaded.objects]
    files = [source.file for source in sources if source] + [p.file for p in loaded.problems]
    return findings, silences(files)


def as_text(left: Sequence[Finding], silenced: Mapping[Finding, str]) -> str:
    lines = [str(finding) for finding in left]
    counts = [f"{count} {severity}" for severity, count in counted(left).items() if count]
    if silenced:
        counts.append(f"{len(silenced)} silenced")
    return "\n".join([*lines, ", ".join(counts) or "nothing found"])


def as_json(left: Sequence[Finding], silenced: Mapping[Finding, str]) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "findings": [_value(finding) for finding in left],
            "silenced": [{**_value(f), "because": reason} for f, reason in silenced.items()],
        },
        indent=1,
    )


def _value(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.rule.code,
        "name": finding.rule.name,
        "severity": str(finding.rule.severity),
        "file": finding.source.file if finding.source else "",
        "line": finding.source.line if finding.source else 0,
        "message": finding.message,
        "hint": finding.hint,
    }
