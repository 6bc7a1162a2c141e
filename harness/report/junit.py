"""What a test case's ``<properties>`` in JUnit XML say of a scenario; pytest writes the rest."""

from __future__ import annotations

from harness.report import summary
from harness.report.shape import RunRecord, ScenarioRecord


def properties(scenario: ScenarioRecord) -> list[tuple[str, str]]:
    """For ``item.user_properties``: features, cells by finding, latency, how to run it again."""
    findings = summary.by_finding([scenario])
    out = [("outcome", scenario.outcome), ("feature", " ".join(scenario.features))]
    out += [(f"cells-{f}", str(findings[f])) for f in summary.FINDINGS if findings[f]]
    for verdict, of in summary.latencies([scenario]).items():
        longest = of.quantile(1.0)
        if longest is not None:
            out.append((f"latency-{verdict}-longest-seconds", f"{longest:.4f}"))
    out.append(("rerun", scenario.rerun))
    return [(name, value) for name, value in out if value]


def suite_properties(record: RunRecord) -> list[tuple[str, str]]:
    """For the whole suite: what was measured, where, and the verdict."""
    run = record.run
    names = ("id", "cni", "lab", "fabric", "dataplane", "seed")
    out = [(name, str(run[name])) for name in names if run.get(name) not in (None, "")]
    out += [(f"version-{k}", str(v)) for k, v in sorted((run.get("versions") or {}).items())]
    return [*out, ("verdict", summary.verdict(record).word)]
