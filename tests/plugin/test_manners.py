"""Manners: collection, marks, header, live progress, and other people's runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.conftest import RunSuite, scenarios


def test_ids_are_stable_and_marks_select(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "ports").mkdir()
    (made_up / "ports" / "a.yaml").write_text(scenarios("good"))
    (made_up / "b.yaml").write_text(scenarios("slow", features="egress, named-port, tcp"))
    out = run_suite("--collect-only", "-q").out
    assert "suites/ports/a.yaml::s-good" in out
    assert "suites/b.yaml::s-slow" in out
    assert "1 passed, 1 deselected" in run_suite("-m", "egress and named-port").out
    assert "1 passed, 1 deselected" in run_suite("-k", "good").out


def test_one_id_twice_is_refused(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "a.yaml").write_text(scenarios("good"))
    (made_up / "b.yaml").write_text(scenarios("good"))
    ended = run_suite()
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "the scenario id 's-good' is used twice" in ended.out


def test_scenarios_may_be_computed(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "one.yaml").write_text(scenarios("good"))
    (made_up / "scenarios_more.py").write_text(
        "from dataclasses import replace\nfrom pathlib import Path\n"
        "from harness.scenarios.load import load_file\n\n\n"
        "def scenarios():\n"
        "    [one] = load_file(Path(__file__).with_name('one.yaml'))\n"
        "    for name in 'ab':\n"
        "        yield replace(one, id=f'more/{name}')\n"
    )
    ended = run_suite("-v")
    assert "suites/scenarios_more.py::more/a PASSED" in ended.out
    assert "3 passed" in ended.out


def test_manifests_are_no_scenarios(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "manifests").mkdir()
    (made_up / "manifests" / "a.yaml").write_text("kind: NetworkPolicy\n")
    (made_up / "one.yaml").write_text(scenarios("good"))
    assert "1 passed" in run_suite().out


def test_the_header_says_what_runs(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "one.yaml").write_text(scenarios("good"))
    ended = run_suite("--lab-seed", "11", "--lab-fabric", "overlay", "--lab-families", "dual")
    assert (
        "netpol: In-house enforcer on lab netns: 3 nodes, fabric overlay, data plane iptables, "
        "IPv4+IPv6" in ended.out
    )
    assert "netpol: seed 11; lab kept: never; report: reports/" in ended.out
    assert ended.record.run["seed"] == 11
    assert (ended.reports / "latest").is_symlink()


def test_workers_share_what_was_decided(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "one.yaml").write_text(scenarios("leak", "outage"))
    out = run_suite("-n", "2").out
    [seed] = re.findall(r"netpol: seed (\d+);", out)
    assert set(re.findall(r"--lab-seed (\d+)", out)) == {seed}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "workers"])
def test_progress_is_seen_live(
    made_up: Path, run_suite: RunSuite, workers: tuple[str, ...]
) -> None:
    (made_up / "one.yaml").write_text(scenarios("good", "slow"))
    quiet, live = run_suite(*workers).out, run_suite(*workers, "--lab-live").out
    assert "s-slow: 1/1 looked at" not in quiet
    assert "s-slow: 1/1 looked at" in live
    if workers:
        assert re.search(r"gw\d: s-slow: 1/1 looked at", live)


def test_a_kept_lab_needs_a_process_that_stays(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "one.yaml").write_text(scenarios("good"))
    ended = run_suite("-n", "1", "--lab-keep", "always")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "leave out -n" in ended.out
    assert "not kept: there is no terminal" in run_suite("--lab-keep", "always").out


def test_only_collecting_writes_nothing(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "one.yaml").write_text(scenarios("good"))
    ended = run_suite("--collect-only")
    assert ended.code == pytest.ExitCode.OK
    assert not ended.reports.exists()


def test_reports_that_cannot_be_written_in_the_end_are_told_once(
    made_up: Path, run_suite: RunSuite
) -> None:
    """As on a full disk: the verdicts stand, the run does not pass, and nothing is a traceback."""
    (made_up / "one.yaml").write_text(scenarios("good"))
    ended = run_suite("--junit-xml", "/dev/full")
    assert ended.code == pytest.ExitCode.INTERNAL_ERROR
    assert ended.out.count("junit.xml could not be written: No space left on device") == 1
    assert "1 passed" in ended.out
    assert "Traceback" not in ended.out
    assert "not kept" not in ended.out
    assert ended.record.scenarios[0].outcome == "passed"
