"""Generated scenarios on the embedded lab: a seeded bug is found, made small, replayed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.scenarios.load import load_file
from tests.mutants.bugs import MUTANTS
from tests.mutants.trial import entry
from tests.plugin.conftest import RunSuite


def test_a_bug_is_found_made_small_and_replayed(
    run_clean: RunSuite, suite: Path, tmp_path: Path
) -> None:
    (suite / "deny.yaml").unlink()
    mutant = tmp_path / "mutant.toml"
    mutant.write_text(entry(MUTANTS["match-expressions-ignored"]))
    engine = ("--lab-engine-file", str(mutant), "--lab-deadline", "2")
    found = run_clean(
        *engine, "--lab-strength", "1", "--lab-seed", "3", "-x",
        "--lab-save-regressions", "kept",
    )  # fmt: skip
    assert found.code == pytest.ExitCode.TESTS_FAILED, found.out
    assert "netpol: seed 3;" in found.out
    [saved] = (suite.parent / "kept").glob("*.yaml")
    assert f"Saved as kept/{saved.name}" in found.out.replace(str(suite.parent) + "/", "")
    [small] = load_file(saved)
    assert small.id == f"regressions/{saved.stem}"
    assert "match-expressions" in small.features
    assert len(small.steps) == 1
    assert saved.read_text() in re.sub(r"(?m)^  ", "", found.out)

    [record] = [one for one in found.record.scenarios if one.outcome == "failed"]
    replay = run_clean(*shlex.split(record.rerun)[2:], "--lab-strength", "1", "--lab-deadline", "2")
    assert replay.code == pytest.ExitCode.TESTS_FAILED
    assert [one.id for one in replay.record.scenarios] == [record.id]

    saved.rename(suite / "regression.yaml")
    assert run_clean(*engine).code == pytest.ExitCode.TESTS_FAILED
    mended = run_clean()
    assert mended.code == pytest.ExitCode.OK, mended.out
    assert [one.id for one in mended.record.scenarios] == [small.id]


def test_what_is_generated_follows_from_the_seed(made_up: Path, run_clean: RunSuite) -> None:
    asked = ("--lab-generated", "20", "--lab-strength", "1", "--lab-seed", "11")
    both = run_clean(*asked, "-n", "2")
    assert both.code == pytest.ExitCode.OK, both.out
    ids = {one.id for one in both.record.scenarios}
    assert {"pairs/11-001", "generated/11-00001", "generated/11-00020"} <= ids
    one = run_clean(*asked, "-k", "generated/11-00020")
    assert [scenario.id for scenario in one.record.scenarios] == ["generated/11-00020"]
    [whole] = [s for s in both.record.scenarios if s.id == "generated/11-00020"]
    assert one.record.scenarios[0].features == whole.features


@pytest.mark.parametrize("option", [("--lab-generated", "many"), ("--lab-strength", "9")])
def test_numbers_that_make_no_sense(
    made_up: Path, run_clean: RunSuite, option: tuple[str, str]
) -> None:
    ended = run_clean(*option)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert f"{option[1]!r} is no number" in ended.out
