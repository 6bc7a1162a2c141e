"""Probes of many clients: exec streams from this process, and the workers of a Job, side by side.

No cluster here has a thousand pods, so the cluster is simulated (``simulated.py``): clients' shells
are made up and answer at once; this process, its streams and the workers are real. All of it shares
this machine's processors, so of the two figures the processor time of *this process* is what a
machine beside a cluster would spend, and the wall time is longer than there: workers have no
processors of their own here.

Run alone, with ``-s`` to see the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from harness.labs.base import LabError, Shell
from harness.labs.cluster import stream
from harness.labs.cluster.fanout import Workers
from harness.labs.cluster.spread import FanOut
from harness.labs.controlplane.identity import Authority
from harness.model.flow import Cell, Endpoint, Outcome
from harness.model.world import Pod, World
from harness.probes.prober import Prober
from tests.benchmarks.simulated import PROTOCOL, api

SIZES = (50, 100, 250, 500, 1000)
ROUNDS = 5
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    authority = Authority()
    pair = authority.issue("simulated", addresses=["127.0.0.1"])
    path = tmp_path / "server.pem"
    path.write_text(pair.certificate + pair.key + authority.certificate)
    return str(path)


@pytest.fixture
def server(certificate: str) -> Iterator[str]:
    argv = [sys.executable, "-m", "tests.benchmarks.simulated", certificate]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(60)


class Lab:
    """What of a cluster lab the fan-out and the prober need, on the simulated API."""

    node_namespace = "netpol-run"
    fan_out_name = "fan-out"
    protocols = (PROTOCOL,)
    ready_seconds = 30.0

    def __init__(self, server: str, certificate: str, mode: str, clients: int) -> None:
        self.api = api(server, certificate)
        self.watch: Any = SimpleNamespace(pods={}, wait=lambda *_: True)
        self.clients = clients
        asked = FanOut(mode)
        self.workers = Workers(self, asked)  # type: ignore[arg-type]
        for index in range(asked.workers(clients)):
            meta = {
                "name": f"fan-out-{index}",
                "namespace": self.node_namespace,
                "uid": str(index),
                "labels": {"batch.kubernetes.io/job-name": self.fan_out_name},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            }
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.watch.pods[self.node_namespace, meta["name"]] = {"metadata": meta, "status": ready}
        self.workers.take(clients)

    def marks(self, namespace: str) -> dict[str, str]:
        return {}

    def fan_out_marks(self) -> dict[str, str]:
        return {}

    def condition_of(self, pod: Pod) -> str:
        raise LabError(f"pod {pod} is simulated")

    def gather(self, clients: list[Endpoint]) -> None:
        if self.workers.take(self.clients):
            self.workers.gather(((one.namespace, one.name), "client") for one in clients)

    def shell(self, client: Endpoint) -> Shell:
        key = client.namespace, client.name
        if self.workers.take(self.clients):
            return self.workers.shell(key, "client")
        return stream.ExecShell(self.api, *key, "client", protocols=self.protocols)


def measure(server: str, certificate: str, mode: str, clients: int) -> dict[str, float]:
    """Milliseconds: the first round, in which shells are opened, and the median of others."""
    pods = [
        Pod("x", f"p{n}", ips=(f"10.0.{n >> 8}.{n & 255}",), uid=str(n)) for n in range(clients)
    ]
    cells = [
        Cell(Endpoint.parse(f"x/{one.name}"), Endpoint.parse(f"x/{pods[n - 1].name}"), 80)
        for n, one in enumerate(pods)
    ]
    lab = Lab(server, certificate, mode, clients)
    prober = Prober(lab)
    prober.begin(World(pods={pod.key: pod for pod in pods}))
    walls, processors = [], []
    try:
        for _ in range(1 + ROUNDS):
            wall, processor = time.monotonic(), time.process_time()
            seen = prober.look(cells, 60.0)
            walls.append(1000 * (time.monotonic() - wall))
            processors.append(1000 * (time.process_time() - processor))
            wrong = [one.raw for one in seen if one.outcome is Outcome.HARNESS_ERROR]
            assert not wrong, wrong[:3]
            assert len(seen) == clients
    finally:
        prober.close()
        lab.workers.close()
        lab.api.close()
    return {
        "opening": walls[0],
        "opening, own": processors[0],
        "round": median(walls[1:]),
        "round, own": median(processors[1:]),
    }


def test_growth_to_a_thousand_pods(server: str, certificate: str) -> None:
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; milliseconds")
    columns = ("opening", "opening, own", "round", "round, own")
    print(f"  {'pods':>5} {'by':5}" + "".join(f"{name:>14}" for name in columns))
    own: dict[tuple[str, int], float] = {}
    opening: dict[tuple[str, int], float] = {}
    for clients in SIZES:
        for mode in ("exec", "job"):
            found = measure(server, certificate, mode, clients)
            own[mode, clients] = found["round, own"]
            opening[mode, clients] = found["opening, own"]
            print(f"  {clients:5} {mode:5}" + "".join(f"{found[one]:14.1f}" for one in columns))
    for clients in SIZES:
        print(
            f"  {clients:5} pods: exec takes {own['exec', clients] / own['job', clients]:.1f} "
            "times the processor time of a round by a Job, to open shells "
            f"{opening['exec', clients] / opening['job', clients]:.1f} times"
        )
    most = max(SIZES)
    assert own["exec", most] > 1.3 * own["job", most]
    assert opening["exec", most] > 3 * opening["job", most]
