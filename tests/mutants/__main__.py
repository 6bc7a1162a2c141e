"""``make mutants``: the whole suite against each mutant of the in-house enforcer, and a table.

    python -m tests.mutants [NAME…] [--dataplane nftables] [--sample N] [--jobs 2]

A mutant counts as caught only by a *judged* cell: a scenario that failed with a leak or an outage.
An error, an unknown cell or a dead lab is not a catch. Exit code 0: all were caught.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.cnis import catalogue
from harness.report.record import RecordError, read
from tests.mutants.bugs import IMPOSSIBLE, MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(__file__).with_name("engine.py")
SECONDS = 300
JUDGED = ("leak", "outage")


@dataclass(frozen=True, slots=True)
class Result:
    """``scenario``: the first that caught it; empty where none did, and ``why`` says what was."""

    mutant: Mutant
    scenario: str
    why: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    chosen = [MUTANTS[name] for name in options.names] or [
        mutant for mutant in MUTANTS.values() if options.dataplane in mutant.planes
    ]
    if options.sample:
        # spread over the list, the same ones each time: a sample that wanders cannot be compared
        chosen = chosen[:: max(1, len(chosen) // options.sample)][: options.sample]
    width = max(len(mutant.name) for mutant in chosen)
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda one: _try(one, options.dataplane), chosen):
            missed += not result.scenario
            verdict = f"caught by {result.scenario}" if result.scenario else "MISSED"
            why = f" ({result.why})" if result.why else ""
            print(
                f"{result.mutant.name:{width}}  {result.seconds:5.1f} s  {verdict}{why}", flush=True
            )
    if not options.names and not options.sample:
        for bug, why in IMPOSSIBLE.items():
            print(f"not seeded: {bug}: {why}")
    print(
        f"{len(chosen)} mutants on {options.dataplane}: {len(chosen) - missed} caught, "
        f"{missed} missed"
    )
    return 1 if missed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--dataplane", choices=("iptables", "nftables"), default="iptables")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N of them")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (2)")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in MUTANTS]:
        parser.error(f"no mutant is called {', '.join(unknown)}")
    return options


def _try(mutant: Mutant, dataplane: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="netpol-mutant-") as directory:
        entry = Path(directory) / f"{mutant.name}.toml"
        entry.write_text(entry(mutant), encoding="utf-8")
        reports = Path(directory) / "reports"
        argv = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "--maxfail", "3", "-q"]
        argv += ["-p", "no:cacheprovider", "--lab-engine-file", str(entry)]
        argv += ["--lab-dataplane", dataplane, "--lab-report", str(reports)]
        argv += ["--lab-deadline", "2", *mutant.options]
        begun = time.monotonic()
        try:
            run = subprocess.run(
                argv, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Result(mutant, "", f"not finished after {SECONDS} s", SECONDS)
        seconds = time.monotonic() - begun
        caught = next(_caught(reports), "")
        why = "" if caught else f"pytest exited {run.returncode}: {run.stdout[-300:].strip()}"
        return Result(mutant, caught, why, seconds)


def _caught(reports: Path) -> Iterator[str]:
    """The scenarios that failed by a judged cell, or by a judged look at the data plane."""
    for path in reports.glob("*/record.json*"):
        try:
            record = read(path)
        except RecordError:
            continue
        for scenario in record.scenarios:
            if scenario.outcome == "failed" and any(
                cell.finding in JUDGED for step in scenario.steps for cell in step.cells
            ):
                yield scenario.id


def entry(mutant: Mutant) -> str:
    """The in-house enforcer's own entry, with another program."""
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


if __name__ == "__main__":
    sys.exit(main())
