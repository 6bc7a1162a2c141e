"""The enforcer's figures by way of a real API server: a policy's event to the wire, the requests of
it, and 250 pods with 1,000 policies through the API. (A start, phase by phase: test_cluster_start.)

Run alone, with ``-s`` to see the tables; they are kept as those of :mod:`test_enforcer` are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.labs.controlplane.engines import ApiEngine
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply
from harness.model.manifest import from_manifest
from harness.model.world import Namespace, Pod
from tests.benchmarks import wire
from tests.benchmarks.enforcer_worlds import APPS, NAMESPACES, crowd, policy
from tests.benchmarks.test_enforcer import BEAT, Change, enforced, percentiles, record
from tests.netns.clusters import cluster_up, eventually

pytestmark = pytest.mark.timeout(1200)

OBJECTS = list(
    yaml.safe_load_all((Path(__file__).parents[2] / "deploy" / "enforcer.yaml").read_text())
)
TURNS = 20
AFTER = 0.4  # seconds: another change may have come in between, of a node's lease for one
PODS, POLICIES = 250, 1000
NODES = ("control-plane", "worker")


@pytest.fixture(params=["iptables", "nftables"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedClusterLab]:
    argv = [sys.executable, "-m", "harness.enforcer", "run", "--dataplane={dataplane}"]
    account = [one for one in OBJECTS if one["kind"] != "DaemonSet"]
    ready = "http://127.0.0.1:9470/readyz"
    engine = ApiEngine(argv, ("kube-system", "netpol-enforcer"), account, ready=ready)
    options = {"engine": engine, "dataplane": request.param, "nodes": NODES}
    with cluster_up(tmp_path / "lab", **options) as lab:
        for name, seconds in lab.seconds.items():
            print(f"  {name:28} {seconds:7.2f} s")
        record("start through the API", lab.seconds)
        yield lab


def metric(lab: EmbeddedClusterLab, name: str, node: str = "worker") -> float:
    """One of the controller's own counters; 0 before it answers."""
    argv = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:9470/metrics"]
    for line in lab.holder.run(node_box(node), argv).out.splitlines():
        if line.startswith(f"netpol_enforcer_{name} "):
            return float(line.split()[1])
    return 0.0


class Program:
    """One of :mod:`tests.benchmarks.wire`'s programs in a pod."""

    def __init__(self, lab: EmbeddedClusterLab, box: str, *words: str) -> None:
        theirs, self.input = os.pipe()
        self.output, out = os.pipe()
        argv = [sys.executable, wire.__file__, *words]
        with open(os.devnull, "wb") as null:
            self.process = lab.holder.spawn(
                box, argv, stdin=theirs, stdout=out, stderr=null.fileno()
            )
        for fd in (theirs, out):
            os.close(fd)
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(self.output, 1) or b"(ended)\n"
        assert said == b"ready\n"

    def end(self) -> str:
        os.close(self.input)
        with os.fdopen(self.output) as output:
            text = output.read()
        self.process.close()
        return text


def said(lab: EmbeddedClusterLab, since: int) -> str:
    """What the server's controller has logged from a place in its log on."""
    assert lab.engines is not None
    with lab.engines.log("worker").open() as log:
        log.seek(since)
        return log.read()


def many(lab: EmbeddedClusterLab) -> dict[str, float]:
    """250 pods and 1,000 policies, made by 16 at once, until they are in force on the node."""
    things = list(crowd(PODS, PODS, POLICIES))
    begun, requests = time.monotonic(), lab.api.requests
    lab.apply([Apply(Namespace(f"crowd-{i}")) for i in range(NAMESPACES)])
    pods = [
        Pod(
            f"crowd-{i % NAMESPACES}",
            f"pod-{i}",
            {"app": f"app-{i // NAMESPACES % APPS}"},
            "worker",
        )
        for i in range(PODS)
    ]
    lab.apply([Apply(one) for one in pods])
    with_pods = time.monotonic()
    policies = [one for one in things if one["kind"] == "NetworkPolicy"]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lab.api.create, policies))
    made = time.monotonic()
    events = metric(lab, "events_total")

    def calm() -> bool:
        nonlocal events
        before, events = events, metric(lab, "events_total")
        return before == events >= PODS + POLICIES

    eventually(calm)
    return {
        "pods": with_pods - begun,
        "policies": made - with_pods,
        "in force": time.monotonic() - made,
        "requests": lab.api.requests - requests,
    }


def test_through_the_api(cluster: EmbeddedClusterLab, request: pytest.FixtureRequest) -> None:
    plane = cluster.dataplane
    assert cluster.engines is not None
    cluster.apply([Apply(Namespace("probed"))])
    server = Pod("probed", "server", {"role": "server"}, "worker")
    cluster.apply([Apply(server), Apply(Pod("probed", "client", {"role": "client"}, NODES[0]))])
    address = cluster.api.get("Pod", "probed", "server")["status"]["podIP"]
    deny = policy("probed", "deny", {"role": "server"}, None)
    assert from_manifest(deny)
    found: dict[str, Any] = {}
    client = cluster.api
    for title in ("alone", "among 1,000 policies"):
        if title != "alone":
            found["many"] = many(cluster)
        beat = Program(cluster, "probed/client/client", "beat", address, str(BEAT))
        changes = []
        for _ in range(TURNS):
            for kind in ("deny", "allow"):
                size = cluster.engines.log("worker").stat().st_size
                begun = time.monotonic()
                if kind == "deny":
                    client.create(deny)
                else:
                    client.delete("NetworkPolicy", "probed", "deny")
                eventually(lambda s=size: '"applied"' in said(cluster, s))  # type: ignore[misc]
                applied = time.monotonic()
                time.sleep(AFTER)
                changes.append(Change(kind, begun, applied, time.monotonic() - 0.005))
        attempts = json.loads(beat.end())
        for kind in ("deny", "allow"):
            looks = [
                enforced(attempts, one, allow=kind == "allow")
                for one in changes
                if one.kind == kind
            ]
            seen = [seconds for seconds in looks if seconds is not None]
            assert len(seen) > TURNS / 2, "the client was starved; use a quieter machine"
            found[f"{title}, {kind}"] = {**percentiles(seen), "n": len(seen)}
    print(f"\n{plane}: a policy through the API, from the request to the wire, milliseconds")
    for name, figures in found.items():
        print(f"  {name:28} " + "  ".join(f"{n} {value:.1f}" for n, value in figures.items()))
    record(f"through the API {plane}", found)
    assert all(found[f"alone, {kind}"]["p50"] < 2000 for kind in ("deny", "allow"))
