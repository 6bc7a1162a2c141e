"""The workflows of .github say nothing wrong, grant nothing needless, and run make targets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.labs.controlplane.build import go_command

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BIN = Path(sys.executable).parent

#: What only makes sense on a code host: to let it make namespaces, and to tell of a change.
OTHERS = ("sudo sysctl ", "gh issue create ")


def run(*argv: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_there_are_workflows() -> None:
    assert WORKFLOWS


def test_actionlint() -> None:
    """The compiler's cache makes this quick from the second time on."""
    go = go_command((1, 25))
    lint = (go, "tool", "actionlint", "-shellcheck", BIN / "shellcheck")
    run(*lint, *WORKFLOWS, cwd=ROOT / "tools/actionlint")


def test_zizmor() -> None:
    run(BIN / "zizmor", "--offline", "--no-progress", "--persona", "pedantic", *WORKFLOWS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_digest(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.search(r"@[0-9a-f]{40}$", step["uses"]), step["uses"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_are_make_targets(path: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for step in steps(path):
        for line in step.get("run", "").splitlines():
            if line.startswith("make "):
                words = shlex.split(line)[1:]
                wanted = {word for word in words if "=" not in word}
                assert wanted <= known, line
            else:
                assert line.startswith(OTHERS), f"not a make target: {line}"
