"""CTRF, the Common Test Report Format: https://ctrf.io, specification 0.0.0.

Statuses: a scenario that could not be measured is ``other``, for a failure it is not; a known
deviation is ``passed`` with its raw status beside it, as the run itself takes it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from harness import __version__
from harness.report import failure, summary
from harness.report.shape import RunRecord, ScenarioRecord

_STATUS = {
    "passed": "passed",
    "failed": "failed",
    "error": "other",
    "skipped": "skipped",
    "xfailed": "passed",
    "xpassed": "failed",
}


def render(record: RunRecord) -> dict[str, Any]:
    """The report as JSON values. Durations are milliseconds, times milliseconds since 1970."""
    run = record.run
    tests = [_test(s) for s in record.scenarios]
    counts = {
        status: sum(t["status"] == status for t in tests)
        for status in ("passed", "failed", "skipped", "pending", "other")
    }
    versions = {str(k): str(v) for k, v in (run.get("versions") or {}).items()}
    environment = {
        "appName": str(run.get("cni") or "network"),
        "testEnvironment": str(run.get("lab") or ""),
        "osPlatform": "linux",
        "osRelease": str((run.get("environment") or {}).get("kernel") or ""),
        "extra": {"versions": versions, "fabric": run.get("fabric"), "seed": run.get("seed")},
    }
    flaky = sum(any(c.finding == "flaky" for c in summary.cells([s])) for s in record.scenarios)
    return {
        "reportFormat": "CTRF",
        "specVersion": "0.0.0",
        "generatedBy": "netpol",
        "results": {
            "tool": {"name": "netpol", "version": __version__},
            "summary": {
                "tests": len(tests),
                **counts,
                "start": _milliseconds(run.get("started")),
                "stop": _milliseconds(run.get("finished")),
                "extra": {
                    "verdict": summary.verdict(record).word,
                    "findings": dict(summary.by_finding(record.scenarios)),
                    "scenariosWithFlakyCells": flaky,
                },
            },
            "tests": tests,
            "environment": {k: v for k, v in environment.items() if v != ""},
        },
    }


def _test(scenario: ScenarioRecord) -> dict[str, Any]:
    file, _, line = scenario.source.rpartition(":")
    test: dict[str, Any] = {
        "name": scenario.id or scenario.title or "?",
        "status": _STATUS.get(scenario.outcome, "other"),
        "rawStatus": scenario.outcome,
        "duration": round(scenario.seconds * 1000),
        "tags": list(scenario.features),
        "type": "conformance",
        "steps": [
            {
                "name": step.title,
                "status": _step_status(by := {c.finding for c in step.cells}),
                "extra": {"findings": sorted(by)},
            }
            for step in scenario.steps
        ],
        "extra": {"title": scenario.title, "rerun": scenario.rerun},
    }
    if file and line.isdigit():
        test |= {"filePath": file, "line": int(line), "suite": [file]}
    if scenario.worker:
        test["threadId"] = scenario.worker
    if scenario.outcome in ("failed", "error"):
        test |= {"message": failure.headline(scenario), "trace": failure.text(scenario)}
    elif scenario.message:
        test["message"] = scenario.message
    return test


def _step_status(findings: set[str]) -> str:
    if findings & {"leak", "outage", "flaky"}:
        return "failed"
    return "other" if "unknown" in findings else "passed"


def _milliseconds(moment: Any) -> int:
    try:
        return round(datetime.fromisoformat(str(moment)).timestamp() * 1000)
    except ValueError:
        return 0
