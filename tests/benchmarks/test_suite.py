"""The whole systematic suite on two workers: seconds, and where they go.

Run alone, with ``-s`` to see the table, on a quiet machine: the bound is far above what one shows.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.report.record import RunRecord, read

ROOT = Path(__file__).resolve().parents[2]
BOUND = 900.0
pytestmark = pytest.mark.timeout(1000)


def split(record: RunRecord) -> Counter[str]:
    """Seconds of all workers by what they went into. ``world``: what comes before a scenario's
    first step and after its last one: pods made, what is open looked at, policies taken away."""
    spent: Counter[str] = Counter()
    for scenario in record.scenarios:
        steps = 0.0
        for one in scenario.steps:
            times = one.timeline
            if "held" not in times:
                continue
            spent["apply"] += times["applied"]
            spent["settle"] += times["agreed"] - times["applied"]
            spent["hold"] += times["held"] - times["agreed"]
            spent["record"] += times["ended"] - times["held"]
            steps += times["ended"]
        spent["world"] += max(0.0, scenario.seconds - steps)
    return spent


@pytest.mark.parametrize("dataplane", ["iptables", "nftables"])
def test_the_whole_suite(dataplane: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "suites/", "-n", "2", "-q", "-p", "no:cacheprovider"]
    argv += ["--lab-dataplane", dataplane, "--lab-report", str(tmp_path)]
    begun = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stdout[-3000:]
    record = read(tmp_path / "latest")
    spent = split(record)
    print(f"\n{dataplane}: {len(record.scenarios)} scenarios in {seconds:.0f} s on 2 workers")
    spent["the rest: collection, labs, pytest"] = 2 * seconds - spent.total()
    for what, share in spent.most_common():
        print(f"  {what:36} {share:6.1f} s of both workers")
    assert seconds < BOUND
