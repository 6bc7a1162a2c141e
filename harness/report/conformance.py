"""The YAML form in which network-policy-api publishes conformance (NPEP-137).

It is that form and not that suite: their directory takes reports of their own suite only, and the
summary of each profile says which suite this is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from harness import __version__
from harness.report import summary
from harness.report.shape import RunRecord, ScenarioRecord

API_VERSION = "policy.networking.k8s.io/v1alpha1"
CLUSTER = "cluster-network-policy"


def render(record: RunRecord, implementation: Mapping[str, Any] | None = None) -> str:
    """YAML of a ``ConformanceReport``.

    ``implementation`` may give organization, project, url, version, contact (a list) and
    additionalInformation; project and version come from the run otherwise.
    """
    run = record.run
    cni = str(run.get("cni") or "unknown")
    versions = run.get("versions") or {}
    given: dict[str, Any] = {
        "additionalInformation": "",
        "contact": [],
        "organization": "",
        "project": cni,
        "url": "",
        "version": str(run.get("cni_version") or versions.get(cni) or "unknown"),
        **(implementation or {}),
    }
    apart = [s for s in record.scenarios if CLUSTER in s.features]
    plain = [s for s in record.scenarios if CLUSTER not in s.features]
    profiles = [
        profile
        for name, scenarios in (("NetworkPolicy", plain), ("ClusterNetworkPolicy", apart))
        if (profile := _profile(name, scenarios))
    ]
    report = {
        "apiVersion": API_VERSION,
        "kind": "ConformanceReport",
        "date": str(run.get("finished") or run.get("started") or ""),
        "implementation": given,
        "profiles": profiles,
    }
    text: str = yaml.safe_dump(report, sort_keys=True, allow_unicode=True)
    return text


def _profile(name: str, scenarios: list[ScenarioRecord]) -> dict[str, Any] | None:
    if not scenarios:
        return None
    outcomes = summary.by_outcome(scenarios)
    failed = [s.id for s in scenarios if s.outcome in summary.BAD_OUTCOMES or _deviates(s)]
    skipped = [s.id for s in scenarios if s.outcome == "skipped"]
    passed = outcomes["passed"]
    standard: dict[str, Any] = {
        "result": _result(failed, skipped, passed),
        "statistics": {"Failed": len(failed), "Passed": passed, "Skipped": len(skipped)},
        "summary": f"netpol {__version__}: {summary.plural(len(scenarios), 'scenario')} of its own",
    }
    if failed:
        standard["failedTests"] = failed
    if skipped:
        standard["skippedTests"] = skipped
    supported, unsupported = _features(scenarios)
    return {
        "name": name,
        "standard": standard,
        "experimental": {
            "result": "partial" if unsupported else "success",
            "statistics": {"Failed": 0, "Passed": 0, "Skipped": 0},
            "summary": "no scenarios of its own: the features of those above",
            "supportedFeatures": supported,
            "unsupportedFeatures": unsupported,
        },
    }


def _deviates(scenario: ScenarioRecord) -> bool:
    """A known deviation is one all the same: it is not conformant."""
    return scenario.outcome == "xfailed"


def _result(failed: list[str], skipped: list[str], passed: int) -> str:
    if failed:
        return "failure"
    return "partial" if skipped or not passed else "success"


def _features(scenarios: Iterable[ScenarioRecord]) -> tuple[list[str], list[str]]:
    """Labels whose scenarios all passed (but for skipped ones), and the others."""
    supported: list[str] = []
    unsupported: list[str] = []
    for label, counts in summary.by_feature(scenarios).items():
        good = counts["passed"] and counts["passed"] + counts["skipped"] == counts.total()
        (supported if good else unsupported).append(label)
    return supported, unsupported
