"""``netpol report`` and ``netpol compare``: files, forms, exit codes, bad input."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from harness.report import cli
from harness.report.record import RecordError, RecordWriter
from tests.fixtures.made_records import make


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("green", "red"):
        record = make(name)
        writer = RecordWriter(tmp_path / name)
        writer.header(record.run)
        for scenario in record.scenarios:
            writer.scenario(scenario)
        writer.close(record.run, record.not_tested)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def netpol(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def test_the_report_lies_beside_the_record(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert netpol("report", "green") == 0
    assert capsys.readouterr().out == "green/report.html\n"
    assert "All 6 scenarios as expected" in (runs / "green/report.html").read_text("utf-8")


def test_the_latest_run_is_the_default(runs: Path) -> None:
    (runs / "reports").mkdir()
    (runs / "reports/latest").symlink_to(runs / "red")
    assert netpol("report", "-o", "page.html") == 0
    assert "<h1>" in (runs / "page.html").read_text("utf-8")


@pytest.mark.parametrize("form", sorted(cli.FORMATS))
def test_every_form_can_be_written_to_standard_output(
    form: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netpol("report", "red", "--format", form, "-o", "-") == 0
    assert "enforcer" in capsys.readouterr().out


def test_a_record_that_was_cut_off_is_drawn_and_told(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "green/record.jsonl"
    path.write_bytes(path.read_bytes()[:-3000])
    assert netpol("report", "green/record.jsonl", "--format", "text") == 0
    told = capsys.readouterr()
    assert "has no end" in told.err
    assert "has no end" in told.out


def test_several_records_are_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert netpol("report", "green", "red", "--format", "text") == 0
    assert "By feature" in capsys.readouterr().out
    assert netpol("report", "green", "red", "--format", "badge") == 2
    assert "is of one record" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_compare(form: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert netpol("compare", "green", "red", "--format", form) == 0
    out = capsys.readouterr().out
    assert "Enforcement latency" in out
    assert "20261125-030405-red" in out


def test_a_record_that_is_missing_costs_a_message_and_the_rest_is_compared(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netpol("compare", "green", "calico", "red") == 2
    told = capsys.readouterr()
    assert told.err == "netpol: calico: cannot be read: No such file or directory\n"
    assert "Note: calico: cannot be read" in told.out
    assert "By feature" in told.out


def test_nothing_that_can_be_read(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "x.json").write_text(json.dumps({"results": {"tool": {}}}))
    assert netpol("compare", "x.json", "no") == 2
    assert netpol("report", "x.json") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("CTRF") == 2


def test_changes_say_by_their_code_whether_it_got_worse(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netpol("compare", "--changes", "green", "red") == 1
    assert "3 scenarios broken" in capsys.readouterr().out
    assert netpol("compare", "--changes", "green", "green") == 0
    assert "No result changed" in capsys.readouterr().out
    assert netpol("compare", "--changes", "green") == 2
    assert "takes two records" in capsys.readouterr().err
    assert netpol("compare", "--changes", "green", "no") == 2


def test_a_place_that_cannot_be_written_to(runs: Path) -> None:
    with pytest.raises(RecordError, match=r"no/where\.html: cannot be written"):
        netpol("report", "green", "-o", "no/where.html")
