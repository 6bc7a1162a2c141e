"""Runs of pytest within tests: a project with ``suites/``, on the embedded lab or a made-up one.

The made-up lab answers each scenario as its title says, so that outcomes, records and reports are
tested without namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.report.record import RunRecord, read

SECONDS = 400
SUITE = '"""A suite."""\n\nnetpol_suite = True\n'
DENY = """\
id: deny
title: A closed pod
why: a policy without rules allows nothing
features: [ingress, target-pod-selector, deny-all, tcp]
world: two-by-two
probe: {targets: [x/a, x/b]}
steps:
  - title: x/a is closed
    apply:
      metadata: {namespace: x, name: shut}
      spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}
    expect: {"y/a -> x/a:80": deny}
"""

# In place of the lab and the runner; what a scenario comes to stands in its title.
MADE_UP = (
    SUITE
    + """
import os
import time

import pytest

from harness.labs.base import LabError
from harness.model.flow import CellResult, Decision, Finding, Verdict
from harness.plugin import bench
from harness.report.record import ScenarioRecord, StepRecord
from harness.run import place
from harness.scenarios.cells import parse_cell


class MadeUpLab:
    name = "made-up"
    features = frozenset({"ipv4"})
    missing = {"sctp": "it is made up"}

    def up(self):
        if os.environ.get("NO_LAB"):
            raise LabError("the lab does not come up", hint="mend it")

    def down(self):
        pass

    def facts(self):
        return {"lab": self.name, "dataplane": "none"}


def cell(finding, verdict):
    return CellResult(
        parse_cell("x/a -> x/b:80"), Decision(Verdict(verdict)), Finding(finding), (), 0.01
    )


class MadeUpRunner:
    def __init__(self, lab, cni, *, progress, **options):
        self.progress = progress

    def close(self):
        pass

    def run(self, scenario):
        self.progress(f"{scenario.id}: 1/1 looked at")
        word = scenario.title
        record = ScenarioRecord(scenario.id, word, features=sorted(scenario.features))
        step = StepRecord("looked at", policies="kind: NetworkPolicy\\n")
        record.steps.append(step)
        record.outcome = "passed"
        match word:
            case "leak" | "outage":
                step.add(cell(word, "deny" if word == "leak" else "allow"))
                record.outcome = "failed"
            case "unknown":
                step.add(cell("unknown", "deny"))
                record.outcome = "error"
            case "skip":
                record.outcome, record.message = "skipped", "no sctp here: it is made up"
            case "die":
                os._exit(9)
            case "interrupt":
                raise KeyboardInterrupt
            case "trouble":
                raise ZeroDivisionError("a fault of the harness")
            case "slow":
                time.sleep(0.5)
            case _:
                step.add(cell("agrees", "deny"))
                step.add(cell("agrees", "allow"))
        return record


bench.Runner = MadeUpRunner
place.make = lambda *_: MadeUpLab()
place.check = lambda *_: None
"""
)

SCENARIO = """\
id: s-{title}
title: {title}
why: a test of the plugin
features: [{features}]
world: pair
steps:
  - title: looked at
"""


def scenarios(*titles: str, features: str = "ingress, tcp") -> str:
    """A YAML file with one scenario for each title, named ``s-TITLE``."""
    return "---\n".join(SCENARIO.format(title=title, features=features) for title in titles)


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit code, all that it printed, and where it left its reports."""

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
    """``suites/`` of a project, with one scenario in it."""
    directory = tmp_path / "project" / "suites"
    directory.mkdir(parents=True)
    (directory.parent / "pytest.ini").write_text("[pytest]\n")
    (directory / "conftest.py").write_text(SUITE)
    (directory / "deny.yaml").write_text(DENY)
    return directory


@pytest.fixture
def made_up(suite: Path) -> Path:
    """The same without a scenario, on the made-up lab."""
    (suite / "conftest.py").write_text(MADE_UP)
    (suite / "deny.yaml").unlink()
    return suite


@pytest.fixture
def run_suite(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSuite:
    """``run_suite(*arguments, path=PATH)`` runs pytest on the suite in a process of its own."""

    def run(*arguments: str, path: str | None = None, **environment: str) -> Ended:
        project = suite.parent
        outer = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        # Bytecode is kept between these runs, or each would compile the whole harness anew.
        outer.pop("PYTHONDONTWRITEBYTECODE", None)
        outer["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.getbasetemp() / "bytecode")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider", *arguments],
            cwd=project,
            env={**outer, **environment, **({} if path is None else {"PATH": path})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Ended(done.returncode, done.stdout, project / "reports")

    return run


@pytest.fixture
def run_clean(run_suite: RunSuite) -> RunSuite:
    """``run_suite`` with warnings as errors; a traceback of pytest's own fails the test."""

    def run(*arguments: str, **more: str) -> Ended:
        ended = run_suite("-W", "error", "--strict-markers", *arguments, **more)
        assert "Traceback (most recent call last)" not in ended.out, ended.out
        return ended

    return run
