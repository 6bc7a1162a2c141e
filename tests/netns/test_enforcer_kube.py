"""The controller against a real API server: the account of deploy/, watches, an outage, its end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.labs.controlplane.engines import ApiEngine
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply, Delete, Relabel
from harness.model.policy import Direction, LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import Namespace, Pod
from tests.netns.asking import ask
from tests.netns.clusters import cluster_up, eventually

pytestmark = pytest.mark.timeout(300)

DEPLOY = Path(__file__).parents[2] / "deploy" / "enforcer.yaml"
LISTEN = "127.0.0.1:9470"
A = LabelSelector((("app", "a"),))


def engine() -> ApiEngine:
    objects = list(yaml.safe_load_all(DEPLOY.read_text()))
    account = [one for one in objects if one["kind"] != "DaemonSet"]
    argv = [sys.executable, "-m", "harness.enforcer", "run", "--node", "{node}"]
    argv += ["--kubeconfig", "{kubeconfig}", "--dataplane", "{dataplane}", "--listen", LISTEN]
    return ApiEngine(argv, ("kube-system", "netpol-enforcer"), account)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    directory = tmp_path_factory.mktemp("lab")
    with cluster_up(directory, engine=engine(), dataplane="nftables") as lab:
        lab.apply([Apply(Namespace("x"))])
        lab.apply([Apply(Pod("x", "a", {"app": "a"})), Apply(Pod("x", "b", {"app": "b"}))])
        yield lab


def status(cluster: EmbeddedClusterLab, path: str) -> str:
    """What the controller of a node says of itself."""
    done = cluster.holder.run(
        node_box("worker"), ["busybox", "wget", "-q", "-O", "-", f"http://{LISTEN}{path}"]
    )
    return str(done.out)


def reaches(cluster: EmbeddedClusterLab, seconds: float = 0.5) -> bool:
    target = cluster.api.get("Pod", "x", "a")["status"]["podIP"]
    return ask(cluster, "x/b", target, seconds=seconds).ok  # type: ignore[arg-type]


def deny() -> NetworkPolicy:
    return NetworkPolicy("x", "deny", A, (Direction.INGRESS,))


def test_it_becomes_ready_with_the_account_of_the_manifest(cluster: EmbeddedClusterLab) -> None:
    eventually(lambda: "in force" in status(cluster, "/readyz"))
    assert "alive" in status(cluster, "/livez")
    metrics = status(cluster, "/metrics")
    assert "netpol_enforcer_failures_total 0" in metrics
    assert "netpol_enforcer_agreement_age_seconds" in metrics


def test_what_the_api_says_is_enforced(cluster: EmbeddedClusterLab) -> None:
    eventually(lambda: reaches(cluster))
    cluster.apply([Apply(deny())])
    eventually(lambda: not reaches(cluster))
    allow = NetworkPolicy("x", "allow", A, (), (Rule((Peer(LabelSelector((("may", "yes"),))),)),))
    cluster.apply([Apply(allow), Relabel("Pod", "x", "b", {"may": "yes"})])
    eventually(lambda: reaches(cluster))
    cluster.apply([Relabel("Pod", "x", "b", {"may": None})])
    eventually(lambda: not reaches(cluster))
    cluster.apply([Delete("NetworkPolicy", "x", "allow"), Delete("NetworkPolicy", "x", "deny")])
    eventually(lambda: reaches(cluster))


def test_an_outage_of_the_server_opens_nothing(cluster: EmbeddedClusterLab) -> None:
    cluster.apply([Apply(deny())])
    eventually(lambda: not reaches(cluster))
    address = cluster.api.get("Pod", "x", "a")["status"]["podIP"]
    server = cluster.plane.process("kube-apiserver")
    cluster.plane.expect_end("kube-apiserver")
    server.signal(signal.SIGKILL)
    server.wait(10)
    for _ in range(4):
        assert not ask(cluster, "x/b", address, seconds=0.3).ok  # type: ignore[arg-type]
    cluster.plane.restart("kube-apiserver")
    assert not reaches(cluster)
    # and it follows again, from where it was
    eventually(lambda: change_is_followed(cluster))
    assert not reaches(cluster)


def change_is_followed(cluster: EmbeddedClusterLab) -> bool:
    cluster.apply([Apply(NetworkPolicy("x", "open", A, (), (Rule(),)))])
    eventually(lambda: reaches(cluster))
    cluster.apply([Delete("NetworkPolicy", "x", "open")])
    eventually(lambda: not reaches(cluster))
    return True


def test_without_the_controller_its_rules_stay(cluster: EmbeddedClusterLab) -> None:
    """A polite end, as in an upgrade; the next start takes over."""
    cluster.apply([Apply(deny())])
    eventually(lambda: not reaches(cluster))
    assert cluster.engines is not None
    for node in cluster.node_names:
        begun = time.monotonic()
        cluster.engines.stop(node, signal.SIGTERM)
        assert time.monotonic() < begun + 9, "it had to be killed"
    assert not reaches(cluster)
    for node in cluster.node_names:
        cluster.engines.start(node)
    eventually(lambda: "in force" in status(cluster, "/readyz"))
    assert not reaches(cluster)
    cluster.apply([Delete("NetworkPolicy", "x", "deny")])
    eventually(lambda: reaches(cluster))
