"""How long the embedded lab takes to come and go, and what its pods cost.

Run alone, with ``-s`` to see the figures. The goals are asserted where they are those of an idle
machine of two processors times a margin, so that a fault shows and a neighbour does not.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from pathlib import Path

import pytest

from harness.labs.netns.lab import NetnsLab
from harness.model.actions import Apply, Delete
from harness.model.flow import Endpoint
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort

GOALS = {"up": 1.0, "down": 0.5, "250 pods": 15.0}
"""Seconds: a lab of 3 nodes with 9 pods is up and down; 250 pods are made."""
MEMORY = 2 << 30
MARGIN = 4
PORTS = (ContainerPort(80), ContainerPort(81), ContainerPort(80, Protocol.UDP))
ENFORCER = (
    *("{python}", "-m", "harness.enforcer", "events"),
    *("--node", "{node}", "--dataplane", "{dataplane}"),
)

pytestmark = pytest.mark.timeout(300)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


@pytest.fixture(autouse=True, scope="module")
def _machine() -> None:
    _say("")
    _say(
        f"kernel {platform.release()}, {os.cpu_count()} processors, "
        f"load average {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )


def _nine() -> list[Apply]:
    pods = [Pod("bench", f"p{n}", {"a": "b"}, ports=PORTS) for n in range(9)]
    service = Service("bench", "s", {"a": "b"}, (ServicePort(80, 80),))
    return [Apply(thing) for thing in (Namespace("bench"), *pods, service)]


@pytest.mark.parametrize("engine", ["none", "iptables", "nftables"])
@pytest.mark.parametrize("fabric", ["routed", "overlay", "bridged"])
def test_three_nodes_and_nine_pods(tmp_path: Path, fabric: str, engine: str) -> None:
    ups, pods, downs = [], [], []
    for n in range(5):
        lab = NetnsLab(
            tmp_path / str(n),
            fabric=fabric,
            engine=None if engine == "none" else ENFORCER,
            dataplane=engine,
        )
        begun = time.perf_counter()
        lab.up()
        made = time.perf_counter()
        lab.apply(_nine())
        done = time.perf_counter()
        lab.down()
        ups.append(made - begun)
        pods.append(done - made)
        downs.append(time.perf_counter() - done)
    both = [up + more for up, more in zip(ups, pods, strict=True)]
    _say(
        f"{fabric:8} engine {engine:8}: nodes, DNS, outside {_ms(ups)}; 9 pods, Service "
        f"{_ms(pods)}; together {_ms(both)}; down {_ms(downs)}"
    )
    # The engines' own start is theirs to answer for.
    assert statistics.median(both) < GOALS["up"] * MARGIN
    assert statistics.median(downs) < GOALS["down"] * MARGIN


@pytest.mark.parametrize("fabric", ["routed", "overlay", "bridged"])
def test_two_hundred_and_fifty_pods(tmp_path: Path, fabric: str) -> None:
    lab = NetnsLab(tmp_path / "lab", fabric=fabric, families=(4, 6))
    lab.up()
    try:
        before = _memory(lab)
        begun = time.perf_counter()
        pods = [Pod("bench", f"p{n}", {"n": str(n % 7)}, ports=PORTS) for n in range(250)]
        lab.apply([Apply(Namespace("bench")), *map(Apply, pods)])
        made = time.perf_counter() - begun
        memory = _memory(lab)
        begun = time.perf_counter()
        shells = [lab.shell(Endpoint.parse(f"bench/p{n}")) for n in range(250)]
        opened = time.perf_counter() - begun
        with_shells = _memory(lab)
        for shell in shells:
            shell.close()
        begun = time.perf_counter()
        lab.apply([Delete("Namespace", "", "bench")])
        deleted = time.perf_counter() - begun
    finally:
        begun = time.perf_counter()
        lab.down()
    down = time.perf_counter() - begun
    _say(
        f"{fabric:8} dual stack, 250 pods: made {made:.2f} s ({made * 4:.1f} ms each), "
        f"250 shells {opened:.2f} s, deleted {deleted:.2f} s, down {down * 1000:.0f} ms; memory "
        f"{before >> 20} MiB -> {memory >> 20} MiB, with shells {with_shells >> 20} MiB"
    )
    assert made < GOALS["250 pods"]
    assert with_shells < MEMORY


@pytest.mark.parametrize("engine", ["none", "iptables", "nftables"])
def test_one_change(tmp_path: Path, engine: str) -> None:
    """One more pod, in a lab that runs: made, told to the engine, up and listening."""
    lab = NetnsLab(
        tmp_path / "lab", engine=None if engine == "none" else ENFORCER, dataplane=engine
    )
    lab.up()
    try:
        lab.apply(_nine())
        making, deleting = [], []
        for n in range(20):
            begun = time.perf_counter()
            lab.apply([Apply(Pod("bench", f"one{n}", ports=PORTS))])
            made = time.perf_counter()
            lab.apply([Delete("Pod", "bench", f"one{n}")])
            making.append(made - begun)
            deleting.append(time.perf_counter() - made)
    finally:
        lab.down()
    _say(f"engine {engine:8}: one pod more {_ms(making)}, one less {_ms(deleting)}")
    assert statistics.median(making) < 2


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms"


def _memory(lab: NetnsLab) -> int:
    """Proportional set size, in bytes, of all processes of the lab."""
    done = lab.holder.run("", ["sh", "-c", "cat /proc/[0-9]*/smaps_rollup 2>/dev/null"])
    lines = (line.split() for line in done.out.splitlines() if line.startswith("Pss:"))
    return sum(int(line[1]) for line in lines) << 10
