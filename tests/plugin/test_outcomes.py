"""What a scenario comes to is what pytest, the record and JUnit say of it, with and without -n."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.conftest import RunSuite, scenarios

ALONE = ()
WORKERS = ("-n", "2")


@pytest.fixture(params=[ALONE, WORKERS], ids=["alone", "workers"])
def workers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def test_each_outcome_is_told_apart(
    made_up: Path, run_suite: RunSuite, workers: tuple[str, ...]
) -> None:
    (made_up / "all.yaml").write_text(
        scenarios("good", "leak", "outage", "unknown", "skip", "trouble")
    )
    ended = run_suite(*workers)
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"2 failed, 1 passed, 1 skipped, 2 errors", ended.out), ended.out
    assert {s.id: s.outcome for s in ended.record.scenarios} == {
        "s-good": "passed",
        "s-leak": "failed",
        "s-outage": "failed",
        "s-unknown": "error",
        "s-skip": "skipped",
        "s-trouble": "error",
    }
    assert ended.junit.count("<failure") == 2
    assert ended.junit.count("<error") == 2
    assert ended.record.run["exit_status"] == pytest.ExitCode.TESTS_FAILED


def test_a_failure_tells_its_story(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("leak"))
    out = run_suite("--lab-seed", "7").out
    assert "LEAK  x/a -> x/b:80/TCP" in out
    assert "policies in force:\n    kind: NetworkPolicy" in out
    assert "pytest suites/all.yaml::s-leak --cni enforcer --lab-seed 7" in out
    assert "FAILED suites/all.yaml::s-leak - leak: x/a -> x/b:80/TCP expected" in out


def test_a_run_that_enforced_nothing_says_so(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("leak"))
    out = run_suite("--cni", "none").out
    assert "1 deny cells were expected, none enforced: this CNI enforces nothing" in out


def test_denials_that_were_not_tested_are_told(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("good", "unknown"))
    out = run_suite().out
    assert "1 of 2 deny cells were never really tested" in out


def test_a_run_without_denials_is_told(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("outage"))
    assert "no deny cell was tested" in run_suite().out


def test_a_lab_that_does_not_come_up_is_told_once(
    made_up: Path, run_suite: RunSuite, workers: tuple[str, ...]
) -> None:
    (made_up / "all.yaml").write_text(scenarios("good", "leak", "skip"))
    ended = run_suite(*workers, NO_LAB="1")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "3 errors" in ended.out
    assert ended.out.count("hint: mend it") == 1
    assert ended.out.count("(told above)") >= 2
    assert [s.outcome for s in ended.record.scenarios] == ["error"] * 3


def test_a_dead_worker_is_an_error_and_the_others_go_on(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("die", "good", "slow"))
    ended = run_suite("-n", "1")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "2 passed, 1 error" in ended.out
    by_outcome = {s.outcome: s.id for s in ended.record.scenarios}
    assert "s-die" in by_outcome["error"]
    assert "<failure" not in ended.junit


def test_an_interrupt_keeps_what_was_measured(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "all.yaml").write_text(scenarios("good", "interrupt", "slow"))
    ended = run_suite()
    assert ended.code == pytest.ExitCode.INTERRUPTED
    assert ended.record.run["interrupted"] is True
    assert [(s.id, s.outcome) for s in ended.record.scenarios] == [("s-good", "passed")]
    assert (ended.reports / "latest" / "report.html").exists()


def test_a_known_deviation_xfails_strictly(
    made_up: Path, run_suite: RunSuite, tmp_path: Path
) -> None:
    entry = tmp_path / "mine.toml"
    entry.write_text(
        'title = "Mine"\nnetwork = "routed"\nlabs = ["netns"]\nenforces = true\ndeny = "drop"\n'
        '[engine]\nargv = ["true"]\n'
        '[[deviations]]\nscenario = "s-*"\nreason = "it leaks"\nlink = "https://example.org/1"\n'
    )
    (made_up / "all.yaml").write_text(scenarios("leak", "unknown", "good"))
    ended = run_suite("--lab-engine-file", str(entry))
    assert ended.code == pytest.ExitCode.TESTS_FAILED  # for the mended and the unknown one
    assert {s.id: s.outcome for s in ended.record.scenarios} == {
        "s-leak": "xfailed",
        "s-unknown": "error",
        "s-good": "xpassed",
    }
    assert "mended: s-good" in ended.out


def test_a_test_in_python_has_a_record_as_well(made_up: Path, run_suite: RunSuite) -> None:
    (made_up / "test_one.py").write_text(
        "import pytest\n\n\n@pytest.mark.egress\ndef test_it(lab):\n"
        '    """It is there.\n\n    And that is why."""\n    assert lab.name == "made-up"\n'
    )
    [scenario] = run_suite().record.scenarios
    assert (scenario.id, scenario.outcome) == ("suites/test_one.py::test_it", "passed")
    assert (scenario.title, scenario.why) == ("It is there.", "And that is why.")
    assert scenario.features == ["egress"]
