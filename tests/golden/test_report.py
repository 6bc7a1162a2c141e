"""The text forms of reports, to the letter.

``GOLDEN=write pytest tests/golden`` writes them anew; read the change before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import __version__
from harness.report import badge, baseline, brief, changes, compare, conformance, ctrf, files
from harness.report.document import to_markdown, to_text
from harness.report.record import RecordError, loads
from tests.fixtures.made_records import hostile, make

FOLDER = Path(__file__).parent / "report"


def check(got: str, name: str) -> None:
    file = FOLDER / name
    got = got.replace(__version__, "VERSION")
    if os.environ.get("GOLDEN") == "write":
        file.write_text(got, encoding="utf-8")
    assert got == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["green", "red", "none", "kind"])
def test_summary_as_text(name: str) -> None:
    check(to_text(brief.document(make(name))), f"summary-{name}.txt")


def test_summary_as_markdown() -> None:
    check(to_markdown(brief.document(make("red"))), "summary-red.md")


def test_names_in_a_summary_are_text_only() -> None:
    document = brief.document(hostile())
    check(to_text(document), "summary-hostile.txt")
    check(to_markdown(document), "summary-hostile.md")


def test_comparison() -> None:
    document = compare.document(
        compare.compare([make(n) for n in ("green", "red", "none", "kind")], ["x.json: not read"])
    )
    check(to_text(document), "compare.txt")
    check(to_markdown(document), "compare.md")


def test_changes() -> None:
    for first, second in (("green", "red"), ("red", "green"), ("green", "green")):
        found = changes.changes(make(first), make(second))
        check(to_text(changes.document(found, (first, second))), f"changes-{first}-{second}.txt")


def test_forms_for_machines() -> None:
    record = make("red")
    check(json.dumps(ctrf.render(record), indent=1) + "\n", "red.ctrf.json")
    check(conformance.render(record), "red.conformance.yaml")
    check(badge.render(record), "red.badge.svg")
    check(badge.render(make("green")), "green.badge.svg")
    check(baseline.text(record), "red.baseline.txt")


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    run = '"run": {"cni": "calico", "lab": "kind", "started": "2026-11-25T03:04:05Z"}'
    told = []
    for data in (
        b"",
        b"<html>",
        b'{"results": {"tool": {}}}',
        f'{{"schema": "netpol-record/9", {run}}}'.encode(),
        f'{{"schema": "netpol-record/0", {run}}}'.encode(),
        b'{"schema": "netpol-record/1", "run": {"cni": 5}, "scenarios": []}',
    ):
        with pytest.raises(RecordError) as caught:
            loads(data, "reports/x/record.json")
        told.append(str(caught.value))
    for path in ("missing/record.json", "."):
        with pytest.raises(RecordError) as caught:
            files.read(FOLDER / path)
        told.append(str(caught.value).replace(str(FOLDER), "reports/x"))
    check("\n\n".join(told) + "\n", "errors.txt")
