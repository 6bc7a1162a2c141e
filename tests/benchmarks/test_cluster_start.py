"""How long the embedded cluster takes to start, phase by phase, and what memory it takes.

Run alone, with ``-s`` to see the table. The bounds are far above what an idle machine shows, so
that they fail for a fault and not for a neighbour.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.labs.controlplane import binaries
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply
from harness.model.world import Namespace, Pod

MEMORY = 900 << 20
PODS = 50

pytestmark = pytest.mark.timeout(300)


def test_start_and_memory(tmp_path: Path) -> None:
    """Ready for pods, and all programs of 3 nodes, kubelets included, within 900 MB."""
    found = binaries.find()
    lab = EmbeddedClusterLab(tmp_path / "lab", binaries=found)
    lab.up()
    try:
        began = time.monotonic()
        lab.apply([Apply(Namespace("x")), *(Apply(Pod("x", f"p{n}")) for n in range(PODS))])
        pods = time.monotonic() - began
        began = time.monotonic()
        requests = lab.api.requests
        lab.apply([Apply(Pod("x", "one-more"))])
        one = time.monotonic() - began
        requests = lab.api.requests - requests
        memory = _memory(lab.holder.pid)
    finally:
        lab.down()
    print(f"\n{found}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for name, seconds in lab.seconds.items():
        print(f"  {name:28} {seconds:7.2f} s")
    print(
        f"  {PODS} pods, running and listening {pods:7.2f} s; one more {one:.2f} s, "
        f"{requests} requests"
    )
    for name, size in sorted(memory.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {size / (1 << 20):7.1f} MB")
    programs = {k: v for k, v in memory.items() if k not in ("nginx", "busybox", "sh", "sleep")}
    total = sum(programs.values())
    print(f"  all but the pods' own        {total / (1 << 20):7.1f} MB")
    assert total < MEMORY
    assert lab.seconds["ready for pods"] < 60


def _memory(holder: int) -> dict[str, int]:
    """Proportional set sizes in bytes, by program: those of the lab, and this process."""
    namespace = os.readlink(f"/proc/{holder}/ns/pid_for_children")
    found: dict[str, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            inside = os.readlink(f"/proc/{entry}/ns/pid") == namespace
            if not inside and int(entry) not in (os.getpid(), holder):
                continue
            name = Path(f"/proc/{entry}/comm").read_text().strip()
            lines = Path(f"/proc/{entry}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        size = next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        if int(entry) == os.getpid():
            name = "this process (kubelets, tests)"
        found[name] = found.get(name, 0) + size
    return found
