"""Whole runs on the embedded lab: verdicts, exit codes, and what is kept of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import RunSuite

LAZY_ENGINE = """\
import json, sys
for line in sys.stdin:
    print(json.dumps({"seq": json.loads(line)["seq"], "ok": True, "errors": []}), flush=True)
"""

PYTHON_SUITE = """\
import os, signal
from pathlib import Path
from xml.etree import ElementTree
from harness.scenarios.load import load_file

[SCENARIO] = load_file(Path(__file__).with_name("deny.yaml"))

def test_one(run_scenario):
    run_scenario(SCENARIO)

def test_two(run_scenario):
    os.kill(os.getpid(), signal.{signal})
"""


def entry(tmp_path: Path, program: str) -> str:
    """A catalogue entry of one's own that runs a Python program."""
    (tmp_path / "engine.py").write_text(program)
    argv = json.dumps([sys.executable, str(tmp_path / "engine.py")])
    file = tmp_path / "mine.toml"
    file.write_text(
        'title = "Mine"\nnetwork = "routed"\nlabs = ["netns"]\nenforces = true\ndeny = "drop"\n'
        f"[engine]\nargv = {argv}\n"
    )
    return str(file)


def test_green(run_clean: RunSuite) -> None:
    ended = run_clean()
    assert ended.code == pytest.ExitCode.OK, ended.out
    [scenario] = ended.record.scenarios
    assert (scenario.id, scenario.outcome) == ("deny", "passed")
    assert {cell.finding for step in scenario.steps for cell in step.cells} == {"agrees"}
    assert "NetworkPolicy conformance" in (ended.reports / "latest" / "report.html").read_text()
    assert "<testcase" in ended.junit


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
def test_what_a_run_leaves_for_machines(run_clean: RunSuite, workers: tuple[str, ...]) -> None:
    ended = run_clean("--cni", "none", *workers)
    left = ended.reports / "latest"
    told = json.loads((left / "ctrf.json").read_text(encoding="utf-8"))["results"]
    assert (told["summary"]["tests"], told["summary"]["failed"]) == (1, 1)
    assert "0/1" in (left / "badge.svg").read_text(encoding="utf-8")
    suite = ElementTree.fromstring(ended.junit)[0]
    of = {one.get("name"): one.get("value") for one in suite.findall("properties/property")}
    assert (of["cni"], of["lab"], of["verdict"]) == ("none", "netns", "failed")
    of = {one.get("name"): one.get("value") for one in suite.findall("testcase/properties/*")}
    assert (of["outcome"], of["cells-leak"]) == ("failed", "3")
    assert (of["rerun"] or "").startswith("pytest suites/deny.yaml::deny --cni none")


def test_red_where_nothing_is_enforced(run_clean: RunSuite) -> None:
    ended = run_clean("--cni", "none")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "deny cells were expected, none enforced: this CNI enforces nothing" in ended.out
    assert "LEAK  y/a -> x/a:80/TCP" in ended.out
    assert "pytest suites/deny.yaml::deny --cni none" in ended.out
    assert ended.record.scenarios[0].outcome == "failed"
    assert "<failure" in ended.junit


def test_an_engine_that_is_ready_and_open_is_seen(run_clean: RunSuite, tmp_path: Path) -> None:
    ended = run_clean("--lab-engine-file", entry(tmp_path, LAZY_ENGINE), "--lab-deadline", "1")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "LEAK" in ended.out


def test_an_engine_that_dies_is_an_error(run_clean: RunSuite, tmp_path: Path) -> None:
    ended = run_clean("--lab-engine-file", entry(tmp_path, "raise SystemExit('no kernel')"))
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert ended.record.scenarios[0].outcome == "error"
    assert "no kernel" in ended.out
    assert "<error" in ended.junit
    assert "<failure" not in ended.junit


def test_a_worker_that_is_killed_is_an_error(run_clean: RunSuite, suite: Path) -> None:
    (suite / "test_kill.py").write_text(PYTHON_SUITE.replace("{signal}", "SIGKILL"))
    ended = run_clean("-n", "1")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    outcomes = {scenario.outcome for scenario in ended.record.scenarios}
    assert outcomes == {"passed", "error"}
    assert "<error" in ended.junit
    assert "<failure" not in ended.junit


def test_what_was_measured_before_an_interrupt_is_kept(run_clean: RunSuite, suite: Path) -> None:
    (suite / "deny.yaml").rename(suite / "kept.yaml")
    (suite / "test_stop.py").write_text(
        PYTHON_SUITE.replace("{signal}", "SIGINT").replace("deny.yaml", "kept.yaml")
    )
    ended = run_clean("-k", "test_one or test_two")
    assert ended.code == pytest.ExitCode.INTERRUPTED
    assert ended.record.run["interrupted"] is True
    assert [scenario.outcome for scenario in ended.record.scenarios][:1] == ["passed"]


def test_a_baseline_tells_known_failures_from_new_ones(run_clean: RunSuite, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text("deny  nothing is enforced here\n")
    ended = run_clean("--cni", "none", "--lab-baseline", str(known))
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert ended.record.scenarios[0].outcome == "xfailed"
    mended = run_clean("--lab-baseline", str(known))
    assert mended.code == pytest.ExitCode.OK  # told, and no reason to stop a build
    assert mended.record.scenarios[0].outcome == "xpassed"
    assert "mended" in mended.out
