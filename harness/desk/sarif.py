"""Findings as SARIF 2.1.0, which code hosts show beside the lines they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness import __version__
from harness.desk.findings import Finding, Rule, Severity

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def as_sarif(
    findings: Sequence[Finding], silenced: Mapping[Finding, str], rules: Sequence[Rule]
) -> str:
    places = {rule.code: place for place, rule in enumerate(rules)}
    results = [_result(finding, places) for finding in findings]
    for finding, reason in silenced.items():
        suppression = {"kind": "inSource", "justification": reason}
        results.append({**_result(finding, places), "suppressions": [suppression]})
    driver = {"name": "netpol", "version": __version__, "rules": [_rule(rule) for rule in rules]}
    return json.dumps(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{"tool": {"driver": driver}, "results": results}],
        },
        indent=1,
    )


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.help},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, places: Mapping[str, int]) -> dict[str, Any]:
    text = f"{finding.message} ({finding.hint})" if finding.hint else finding.message
    result: dict[str, Any] = {
        "ruleId": finding.rule.code,
        "ruleIndex": places[finding.rule.code],
        "level": _LEVELS[finding.rule.severity],
        "message": {"text": text},
    }
    if finding.source is not None:
        place: dict[str, Any] = {"artifactLocation": {"uri": finding.source.file}}
        if finding.source.line:
            place["region"] = {"startLine": finding.source.line}
        result["locations"] = [{"physicalLocation": place}]
    return result
