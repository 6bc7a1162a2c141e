"""The runs that the documentation shows, made anew: ``make docs-runs``.

Reports of the demo with and without a policy engine, and a comparison of four runs of the whole
suite: the in-house enforcer on both data planes, nothing that enforces, and a run on kind, whose
programs are the tests' stand-ins before a real API server, real pods and real packets.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.netns.kinds import AGENT, ENTRY, as_kind

ROOT = Path(__file__).parents[1]
SHOWN = ROOT / "docs" / "extra"
BIN = Path(sys.executable).parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="netpol-shown-") as name:
        scratch = Path(name)
        for page, cni in (("report-green.html", "enforcer"), ("report-red.html", "none")):
            run(scratch / cni, "suites/test_demo.py", "--cni", cni)
            draw("report", scratch / cni / "latest", SHOWN / page)
        run(scratch / "iptables", "suites/", "--cni", "enforcer", "-n", "2")
        run(scratch / "nftables", "suites/", "--cni", "enforcer", "--lab-dataplane", "nftables",
            "-n", "2")  # fmt: skip
        run(scratch / "nothing", "suites/", "--cni", "none", "-n", "2")
        kind(scratch)
        records = [scratch / one / "latest" for one in ("iptables", "nftables", "nothing", "kind")]
        draw("compare", *records, SHOWN / "report-comparison.html")


def kind(scratch: Path) -> None:
    entry, manifest = scratch / "kind-stand-in.toml", scratch / "agent.yaml"
    entry.write_text(ENTRY.replace('"Agent"', '"Enforcer behind a stand-in for kind"'))
    manifest.write_text(AGENT.replace("HOME", "agent"))
    with as_kind(scratch) as (_, standins):
        env = {
            "PATH": f"{standins.bin}:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(scratch / "state"),
        }
        arguments = ("--lab", "kind", "--lab-cni-manifest", str(manifest))
        run(scratch / "kind", "suites/", "--lab-engine-file", str(entry), *arguments, env=env)


def run(reports: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    """A run of the suites; that something fails may be what it shows."""
    argv = [str(BIN / "pytest"), *arguments, "-q", "--tb=no", "--lab-report", str(reports)]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **(env or {})}, check=False)
    if done.returncode > 1:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}")


def draw(command: str, *paths: Path) -> None:
    """A page, without the places of the machine that it was made on."""
    *records, page = map(str, paths)
    form = ["--format", "html", "-o", page]
    subprocess.run([BIN / "netpol", command, *records, *form], cwd=ROOT, check=True)
    text = Path(page).read_text(encoding="utf-8")
    for place in (f"{Path(records[0]).parent.parent}/", f"{ROOT}/"):
        text = text.replace(place, "")
    Path(page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
