"""One mutant on the embedded lab, scenario after scenario until a judged cell gives it away."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.cnis import catalogue
from harness.report.record import RecordError, ScenarioRecord, read
from harness.run import place
from harness.run.runner import Runner
from harness.scenarios.families import in_families
from harness.scenarios.gather import gather
from harness.scenarios.scenario import Scenario
from tests.mutants.bugs import MUTANTS, Mutant
from tests.mutants.near import score, tests

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(__file__).with_name("engine.py")
DEADLINE = 2.0  # seconds that a change may take; the enforcer itself takes some milliseconds
JUDGED = ("leak", "outage")
#: What an engine dies of when the mutant no longer fits the enforcer: no bug that anybody shipped.
BROKEN = ("TypeError", "AttributeError", "NameError", "ImportError")


@dataclass(frozen=True, slots=True)
class Caught:
    """``scenario``: the one that caught it, empty where none did, and ``why`` says what was.
    ``cell``: the first judged cell, in words. ``tried``: scenarios that were run for it."""

    mutant: str
    scenario: str = ""
    cell: str = ""
    tried: int = 0
    seconds: float = 0.0
    why: str = ""


def attempt(name: str, dataplane: str) -> Caught:
    """Try the scenarios, the likely ones first; then, by pytest, those that are Python."""
    mutant = MUTANTS[name]
    begun = time.monotonic()
    tried = 0
    why = ""
    if near := tests(name):
        test, cell = _by_pytest(mutant, dataplane, near)
        if test:
            return Caught(name, test, cell, 1, time.monotonic() - begun)
    with _runner(entry(mutant), name, mutant.families, dataplane) as runner:
        for scenario in _ordered(mutant):
            tried += 1
            record = runner.run(in_families(scenario, mutant.families))
            if record.outcome == "error":
                why = why or record.message
                if any(word in record.message for word in BROKEN):
                    break
            cell = judged(record)
            if not cell:
                continue
            # It fails again, and the true enforcer passes: no chance of a busy machine.
            again = judged(runner.run(in_families(scenario, mutant.families)))
            if again and _passes(scenario, mutant.families, dataplane):
                seconds = time.monotonic() - begun
                return Caught(name, scenario.id, cell, tried, seconds)
    if any(word in why for word in BROKEN):
        return Caught(name, tried=tried, seconds=time.monotonic() - begun, why=why)
    files = [path.name for path in sorted((ROOT / "suites").glob("test_*.py"))]
    test, cell = _by_pytest(mutant, dataplane, files)
    return Caught(name, test, cell, tried, time.monotonic() - begun, "" if test else why)


def judged(record: ScenarioRecord) -> str:
    """The first cell or look that was judged to be wrong, in words; empty where there is none."""
    for one in record.steps:
        for check in one.checks:
            if check["outcome"] == "failed":
                return f"failed: {check['name']}"
        for cell in one.cells:
            if cell.finding in JUDGED:
                return f"{cell.finding}: {cell.source} -> {cell.target}:{cell.port}/{cell.protocol}"
    return ""


def _ordered(mutant: Mutant) -> list[Scenario]:
    return sorted(_scenarios().values(), key=lambda one: -score(mutant.name, one.id, one.features))


@cache
def _scenarios() -> dict[str, Scenario]:
    return gather(ROOT / "suites")


def _passes(scenario: Scenario, families: tuple[int, ...], dataplane: str) -> bool:
    """Whether the true enforcer passes: what it fails as well gives no mutant away."""
    text = catalogue.get("enforcer")
    with tempfile.TemporaryDirectory(prefix="netpol-true-") as directory:
        lab = place.make(text, place.Place(families=families, dataplane=dataplane), Path(directory))
        try:
            lab.up()
            runner = Runner(lab, text, deadline=DEADLINE, evidence="never")
            record = runner.run(in_families(scenario, families))
            runner.close()
        finally:
            lab.down()
    return record.outcome == "passed"


@contextmanager
def _runner(text: str, name: str, families: tuple[int, ...], dataplane: str) -> Iterator[Runner]:
    cni = catalogue.parse(name, text)
    with tempfile.TemporaryDirectory(prefix="netpol-mutant-") as directory:
        lab = place.make(cni, place.Place(families=families, dataplane=dataplane), Path(directory))
        try:
            lab.up()
            runner = Runner(lab, cni, deadline=DEADLINE, evidence="never")
            yield runner
            runner.close()
        finally:
            lab.down()


def _by_pytest(mutant: Mutant, dataplane: str, files: Sequence[str]) -> tuple[str, str]:
    """The scenario of these files of tests that caught it, and by what."""
    with tempfile.TemporaryDirectory(prefix="netpol-mutant-") as directory:
        engine = Path(directory) / f"{mutant.name}.toml"
        engine.write_text(entry(mutant), encoding="utf-8")
        asked = ["--lab-dataplane", dataplane, "--lab-deadline", str(DEADLINE)]
        asked += ["--lab-families", "dual"] if len(mutant.families) > 1 else []
        mutated = _pytest([*files], [*asked, "--lab-engine-file", str(engine)], directory, "mutant")
        caught = {one.id: cell for one in mutated if (cell := judged(one))}
        if caught:
            true = _pytest([*files], asked, directory, "true")
            passed = {one.id for one in true if one.outcome == "passed"}
            return next(((one, cell) for one, cell in caught.items() if one in passed), ("", ""))
    return "", ""


def _pytest(
    files: Sequence[str], asked: Sequence[str], directory: str, name: str
) -> list[ScenarioRecord]:
    """What a run of these files came to."""
    reports = Path(directory) / name
    argv = [sys.executable, "-m", "pytest", *(str(ROOT / "suites" / file) for file in files)]
    argv += ["-q", "-p", "no:cacheprovider", *asked, "--lab-report", str(reports)]
    subprocess.run(argv, cwd=ROOT, capture_output=True, timeout=900, check=False)
    found: list[ScenarioRecord] = []
    for path in reports.glob("*/record.json*"):
        with suppress(RecordError):
            found += read(path).scenarios
    return found


def entry(mutant: Mutant) -> str:
    """The in-house enforcer's own catalogue entry, as TOML, with another program."""
    true = catalogue.get("enforcer")
    assert true.engine is not None
    argv = ["{python}", str(ENGINE), mutant.name, *true.engine.argv[3:]]
    lines = [
        f"title = {json.dumps('Mutant ' + mutant.name)}",
        f"network = {json.dumps(true.network)}",
        'labs = ["netns"]',
        "enforces = true",
        f"deny = {json.dumps(true.deny)}",
        "[engine]",
        f"argv = {json.dumps(argv)}",
        "[profile]",
        *(f"{json.dumps(row)} = {json.dumps(pin)}" for row, pin in true.profile.items()),
    ]
    return "\n".join(lines) + "\n"
