"""``netpol doctor`` on this very machine: what it says is what the labs then find."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_embedded_lab_can_be_had_here() -> None:
    """Where the tests of this folder run at all, the doctor must say so."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {(c["group"], c["name"]): c for c in json.loads(done.stdout)["checks"]}
    assert checks["labs", "netns"]["state"] in ("yes", "limited")
    for group, name in (("fabrics", "routed"), ("data planes", "iptables"), ("tools", "nginx")):
        assert checks[group, name]["state"] == "yes"
    for check in checks.values():
        assert check["state"] != "no" or check["step"], f"{check['name']}: no step that mends it"
