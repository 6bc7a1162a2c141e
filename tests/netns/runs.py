"""Whole runs of pytest on the embedded lab, each a process of its own, as people start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.report.record import RunRecord, read

ROOT = Path(__file__).resolve().parents[2]

DENY = """\
id: deny
title: Nothing reaches x/a
why: a policy without a rule allows nothing
features: [ingress, deny-all, target-pod-selector, tcp]
world: two-by-two
probe: {targets: [x/a]}
steps:
  - title: shut
    apply: {metadata: {namespace: x, name: p}, spec: {podSelector: {matchLabels: {pod: a}}}}
    expect: {"y/a -> x/a:80": deny}
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, and where its reports are."""

    code: int
    out: str
    reports: Path

    @property
    def record(self) -> RunRecord:
        return read(self.reports / "latest")

    @property
    def junit(self) -> str:
        return (self.reports / "latest" / "junit.xml").read_text(encoding="utf-8")


RunSuite = Callable[..., Ended]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A directory of suites with one scenario in it."""
    directory = tmp_path / "suites"
    directory.mkdir()
    (directory / "conftest.py").write_text("netpol_suite = True\n")
    (directory / "deny.yaml").write_text(DENY)
    return directory


@pytest.fixture
def run_suite(suite: Path, tmp_path: Path) -> RunSuite:
    """``pytest suites ARGUMENTS`` in a process of its own."""

    def run(*arguments: str, path: str | None = None) -> Ended:
        argv = [sys.executable, "-m", "pytest", str(suite), "-p", "no:cacheprovider"]
        argv += ["--rootdir", str(tmp_path), "-W", "error", "--strict-markers", "-c", "/dev/null"]
        argv += ["--lab-report", str(tmp_path / "reports"), *arguments]
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        env["PYTHONPATH"] = str(ROOT)
        if path is not None:
            env["PATH"] = path
        done = subprocess.run(
            argv,
            cwd=tmp_path,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
        assert "Traceback (most recent call last)" not in done.stdout, done.stdout
        return Ended(done.returncode, done.stdout, tmp_path / "reports")

    return run
