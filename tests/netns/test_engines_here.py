"""The demo on other people's engines, as they are: those that NETPOL_ENGINES holds, by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cnis import catalogue
from harness.engines.choose import VARIABLE
from harness.report.record import read

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
NAMES = [
    name
    for name in catalogue.names()
    if (engine := catalogue.get(name).api_engine) is not None and engine.foreign
]


@pytest.mark.parametrize("name", NAMES)
def test_the_demo(name: str, tmp_path: Path) -> None:
    home = os.environ.get(VARIABLE)
    data = catalogue.get(name).api_engine
    assert data is not None
    if not home or not any((Path(home) / one).exists() for one in (name, data.like) if one):
        pytest.skip(f"no engine of {name} here: {VARIABLE} names no directory with {name}/ in it")
    argv = [sys.executable, "-m", "pytest", "suites/test_demo.py", "--lab", "netns"]
    argv += ["--cni", name, "--lab-report", str(tmp_path), "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read(tmp_path / "latest" / "record.json")
    assert record.run["engine"]["scope"] == "policy engine only, on the lab's network"
    assert record.run["engine"]["digest"].startswith("sha256:")
    assert {scenario.outcome for scenario in record.scenarios} == {"passed"}
