"""A badge for a README: what was measured, and how it ended, as SVG without fonts of its own."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Template

from harness.report import summary
from harness.report.shape import RunRecord
from harness.report.words import clean

COLOURS = {"passed": "#23705d", "failed": "#b8132b", "error": "#7350ad", "empty": "#5d6673"}
# Verdana at 11 px, on average; the text is stretched to fit, so that no font overflows.
_CHARACTER = 6.6


def render(record: RunRecord, label: str = "NetworkPolicy") -> str:
    """SVG, 20 px high: ``NetworkPolicy: calico | 120/120``."""
    verdict = summary.verdict(record)
    outcomes = summary.by_outcome(record.scenarios)
    ran = len(record.scenarios) - outcomes["skipped"]
    good = outcomes["passed"] + outcomes["xfailed"]
    left = clean(f"{label}: {record.run.get('cni') or '?'}")[:60]
    right = f"{good}/{ran}" if verdict.word in ("passed", "failed") else verdict.word
    text = (files("harness.report") / "templates/badge.svg.j2").read_text(encoding="utf-8")
    svg: str = Template(text, autoescape=True).render(
        left=left,
        right=right,
        word=verdict.word,
        colour=COLOURS[verdict.word],
        width=lambda text: round(len(text) * _CHARACTER + 12),
        inner=lambda text: round(len(text) * _CHARACTER),
    )
    return svg
