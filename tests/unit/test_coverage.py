"""The coverage page: current and complete, and borne out by what the scenarios do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.scenarios.gather import gather
from harness.scenarios.labels import TOLD, labels_of

ROOT = Path(__file__).resolve().parents[2]


def test_every_claim_has_a_scenario_and_the_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "coverage", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_label_claims_what_its_scenario_does_not_do() -> None:
    found = gather(ROOT / "suites")
    assert len(found) > 400
    idle = {name: (one.features & TOLD) - labels_of(one) for name, one in found.items()}
    assert {name: labels for name, labels in idle.items() if labels} == {}
