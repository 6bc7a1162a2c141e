"""What cannot be run is refused before anything is started: exit code 4, one clear message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.conftest import RunSuite


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cni", "enforcr"], "did you mean enforcer"),
        (["--cni", "romana"], "dead since 2018"),
        (["--lab-fabric", "woven"], "invalid choice: 'woven'"),
        (["--lab-nodes", "0"], "'0' is no number from 1 to 64"),
        (["--lab-deadline", "never"], "is no number of seconds"),
        (["--lab-baseline", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["--lab-engine-file", "nowhere.toml"], "nowhere.toml: No such file or directory"),
        (["-n", "1", "-m", "ingress and"], "Wrong expression passed to '-m'"),
    ],
    ids=["near-name", "retired", "choice", "count", "seconds", "baseline", "engine-file", "marks"],
)
def test_a_wrong_value(run_clean: RunSuite, arguments: list[str], says: str) -> None:
    ended = run_clean(*arguments)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert says in ended.out
    assert not (ended.reports / "latest").exists()


def test_a_cluster_without_a_container_engine(run_clean: RunSuite, tmp_path: Path) -> None:
    ended = run_clean("--cni", "calico", "--lab", "kind", path=str(tmp_path))
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "install" in ended.out
    assert "kind" in ended.out


def test_a_tool_that_is_missing(run_clean: RunSuite, tmp_path: Path) -> None:
    ended = run_clean("--cni", "enforcer", path=str(tmp_path))
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "the embedded lab (routed) needs" in ended.out
    assert "hint:" in ended.out


def test_reports_that_cannot_be_written(run_clean: RunSuite, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    ended = run_clean("--lab-report", str(tmp_path / "file"))
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "the option is --lab-report" in ended.out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("features: [ingress", "features: [ingrress", "ingrress"),
        ("why: a policy", "wy: a policy", "wy"),
        ("spec: {podSelector:", "spec: {podSelecter:", "podSelecter"),
        ('{"y/a -> x/a:80": deny}', '{"y/a -> x/a:80": allow}', "the specification says deny"),
    ],
    ids=["feature", "key", "policy", "expectation"],
)
def test_a_wrong_scenario_file(
    run_clean: RunSuite, suite: Path, old: str, new: str, says: str
) -> None:
    file = suite / "deny.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    ended = run_clean()
    assert ended.code == pytest.ExitCode.INTERRUPTED  # errors while collecting, as pytest has it
    assert says in ended.out
    assert "deny.yaml:" in ended.out


def test_other_people_s_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_theirs():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('harness.'))\n"
        "    options = ['harness.plugin', 'harness.plugin.options']\n"
        "    assert ours == [*options, 'harness.run', 'harness.run.asked'], ours\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path), "."],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "netpol" not in done.stdout
