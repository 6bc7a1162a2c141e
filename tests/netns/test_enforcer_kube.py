"""The controller against a real API server, on both data planes at once: as its DaemonSet runs it,
killed, cut off, behind a compaction, on a full disk.

Nodes ``control-plane`` and ``worker`` have nftables, ``worker2`` has iptables. The client x/b is on
the first, the servers x/a and x/c are on the two others.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import random
import signal
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.enforcer.kube import RESOURCES
from harness.labs.base import LabError
from harness.labs.controlplane import binaries
from harness.labs.controlplane.binaries import Binaries
from harness.labs.controlplane.engines import ApiEngine
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.controlplane.programs import HOME, PORT
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply, Delete, Relabel
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.policy import Direction, LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import Namespace, Pod
from tests.netns import attack
from tests.netns.asking import ask
from tests.netns.clusters import cluster_up, eventually

pytestmark = pytest.mark.timeout(600)

DEPLOY = Path(__file__).parents[2] / "deploy" / "enforcer.yaml"
OBJECTS = list(yaml.safe_load_all(DEPLOY.read_text()))
STATUS = "http://127.0.0.1:9470"
KILLS = int(os.environ.get("NETPOL_KILLS", "20"))
OUTAGE = 10.0  # seconds
PLANES = {"worker": "nftables", "worker2": "iptables"}
SERVERS = {"a": "worker", "c": "worker2"}
SERVED = LabelSelector((("app", "server"),))
DENY = NetworkPolicy("x", "deny", SERVED, (Direction.INGRESS,))
OPEN = NetworkPolicy("x", "open", SERVED, (), (Rule(),))


def engine() -> ApiEngine:
    """What deploy/ says: its account, its command line, the pod's own token and environment."""
    daemon = next(one for one in OBJECTS if one["kind"] == "DaemonSet")
    spec = daemon["spec"]["template"]["spec"]
    words = [
        "--dataplane={dataplane}" if word.startswith("--dataplane=") else word
        for word in spec["containers"][0]["args"]
    ]
    return ApiEngine(
        [sys.executable, "-m", "harness.enforcer", *words],
        (daemon["metadata"]["namespace"], spec["serviceAccountName"]),
        [one for one in OBJECTS if one is not daemon],
    )


@contextlib.contextmanager
def enforced(directory: Path, **options: Any) -> Iterator[EmbeddedClusterLab]:
    """A cluster with the enforcer in each node, in force."""
    with cluster_up(directory, engine=engine(), dataplane="nftables", **options) as lab:
        assert lab.engines is not None
        # worker2 has rules of the other data plane in force, which its next enforcer replaces
        eventually(lambda: "in force" in status(lab, "/readyz", "worker2"))
        lab.engines.dataplane = "iptables"
        lab.engines.start("worker2")
        pods = [Pod("x", name, {"app": "server"}, node) for name, node in SERVERS.items()]
        pods.append(Pod("x", "b", {"app": "client"}, lab.node_names[0]))
        lab.apply([Apply(Namespace("x")), *map(Apply, pods)])
        for node in lab.node_names:
            eventually(lambda n=node: "in force" in status(lab, "/readyz", n))  # type: ignore[misc]
        yield lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    with enforced(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def denied(cluster: EmbeddedClusterLab) -> Iterator[EmbeddedClusterLab]:
    """The servers are shut for everybody, and open again afterwards, whatever a test has left."""
    cluster.apply([Apply(DENY)])
    eventually(lambda: not reached(cluster))
    yield cluster
    policies = cluster.api.every("NetworkPolicy", "x")
    cluster.apply([Delete("NetworkPolicy", "x", one["metadata"]["name"]) for one in policies])
    eventually(lambda: reached(cluster) == {"a", "c"})


def status(cluster: EmbeddedClusterLab, where: str, node: str = "worker") -> str:
    """What the controller of a node says of itself."""
    argv = ["busybox", "wget", "-q", "-O", "-", STATUS + where]
    return str(cluster.holder.run(node_box(node), argv).out)


@functools.cache  # also known when there is no API to ask
def addresses(cluster: EmbeddedClusterLab) -> dict[str, str]:
    return {name: cluster.api.get("Pod", "x", name)["status"]["podIP"] for name in SERVERS}


def reached(cluster: EmbeddedClusterLab, seconds: float = 0.5) -> set[str]:
    """Which of the servers the client gets an answer from."""
    targets = addresses(cluster).items()
    return {name for name, ip in targets if ask(cluster, "x/b", ip, seconds=seconds).ok}  # type: ignore[arg-type]


class Attack:
    """:mod:`tests.netns.attack` from the client pod on the servers."""

    def __init__(self, cluster: EmbeddedClusterLab, directory: Path) -> None:
        self.said = directory / "attack.log"
        self.input, theirs = os.pipe()[::-1]
        self.output, out = os.pipe()
        argv = [sys.executable, attack.__file__, *addresses(cluster).values()]
        with self.said.open("wb") as log:
            # In the pod's sandbox: its containers have a /tmp of their own, where this may stand.
            self.process = cluster.holder.spawn(
                "x/b", argv, stdin=theirs, stdout=out, stderr=log.fileno()
            )
        for fd in (theirs, out):
            os.close(fd)
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(self.output, 1) or b"(ended)\n"
        assert said == b"begun\n", self.said.read_text()

    def end(self) -> tuple[int, int]:
        """How often it tried, and how often it got through."""
        os.close(self.input)
        self.process.wait(20)
        with os.fdopen(self.output) as output:
            tried, got = map(int, output.read().split())
        self.process.close()
        return tried, got


# -- the manifests ---------------------------------------------------------------------------------


def test_its_manifests_are_taken_by_a_real_server(cluster: EmbeddedClusterLab) -> None:
    """All of them, every field known. What they grant is enough: the other tests run on it."""
    for manifest in OBJECTS:
        cluster.api.apply(manifest, dryRun="All", fieldValidation="Strict")
    misspelt = {**OBJECTS[0], "metdata": {}}
    with pytest.raises(LabError, match="metdata"):
        cluster.api.apply(misspelt, dryRun="All", fieldValidation="Strict")


def test_it_becomes_ready_with_the_account_of_the_manifest(cluster: EmbeddedClusterLab) -> None:
    for node in PLANES:
        assert "in force" in status(cluster, "/readyz", node)
        assert "alive" in status(cluster, "/livez", node)
        metrics = status(cluster, "/metrics", node)
        assert "netpol_enforcer_failures_total 0" in metrics
        assert "netpol_enforcer_agreement_age_seconds" in metrics


# -- what the API says -----------------------------------------------------------------------------


def test_what_the_api_says_is_enforced(denied: EmbeddedClusterLab) -> None:
    may = (Rule((Peer(LabelSelector((("may", "yes"),))),)),)
    denied.apply([Apply(NetworkPolicy("x", "allow", SERVED, (), may))])
    denied.apply([Relabel("Pod", "x", "b", {"may": "yes"})])
    eventually(lambda: reached(denied) == {"a", "c"})
    denied.apply([Relabel("Pod", "x", "b", {"may": None})])
    eventually(lambda: not reached(denied))


def test_a_cluster_policy_is_enforced(cluster: EmbeddedClusterLab) -> None:
    """By way of its CRD, over what NetworkPolicies allow."""
    eventually(lambda: reached(cluster) == {"a", "c"})
    rule = ClusterRule(RuleAction.DENY, (ClusterPeer(LabelSelector()),))
    subject = Subject(LabelSelector(), SERVED)
    cluster.apply([Apply(OPEN)])
    cluster.apply([Apply(ClusterNetworkPolicy("never", Tier.ADMIN, 1, subject, (rule,)))])
    eventually(lambda: not reached(cluster))
    cluster.apply([Delete("ClusterNetworkPolicy", "", "never")])
    cluster.apply([Delete("NetworkPolicy", "x", "open")])
    eventually(lambda: reached(cluster) == {"a", "c"})


def test_what_is_in_force_is_told_with_full_names(denied: EmbeddedClusterLab) -> None:
    """Where a rule comes from more policies than a comment can hold, the API knows them."""
    names = [f"one-of-many-policies-that-say-the-same-{number:02}" for number in range(9)]
    peers = (Rule((Peer(LabelSelector((("app", "nobody"),))),)),)
    denied.apply([Apply(NetworkPolicy("x", name, SERVED, (), peers)) for name in names])
    wanted = ", ".join(f"x/{name} ingress[0]" for name in names)
    for node, plane in PLANES.items():
        argv = [sys.executable, "-m", "harness.enforcer", "dump", "--explain"]
        argv += ["--dataplane", plane, "--node", node, "--kubeconfig", f"{HOME}/engine.kubeconfig"]

        def told(node: str = node, argv: list[str] = argv) -> bool:
            done = denied.holder.run(node_box(node), argv)
            assert done.code == 0, done.err
            return f"= {wanted}\n" in done.out

        eventually(told)


# -- never open ------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_is_never_open(denied: EmbeddedClusterLab, tmp_path: Path) -> None:
    """``NETPOL_KILLS=100`` for the full count, half of them on each data plane."""
    engines = denied.engines
    assert engines is not None
    moments = random.Random(KILLS)
    client = Attack(denied, tmp_path)
    begun = time.monotonic()
    for _ in range(KILLS // 2):
        for node, plane in PLANES.items():
            engines.stop(node, signal.SIGKILL)
            engines.dataplane = plane
            engines.start(node)
        # mostly in the midst of the start: reading, listing, building, switching
        time.sleep(moments.uniform(0.0, 1.6))
    for node in PLANES:
        eventually(lambda n=node: "in force" in status(denied, "/readyz", n))  # type: ignore[misc]
    seconds = time.monotonic() - begun
    tried, got = client.end()
    assert got == 0, f"{got} of {tried}: {client.said.read_text()}"
    assert tried > 5 * seconds
    # and the attack would have got through an opening, on either plane
    client = Attack(denied, tmp_path)
    denied.apply([Apply(OPEN)])
    eventually(lambda: reached(denied) == {"a", "c"})
    client.end()
    assert all(f"through to {ip} " in client.said.read_text() for ip in addresses(denied).values())


def test_an_outage_of_the_server_opens_nothing(denied: EmbeddedClusterLab, tmp_path: Path) -> None:
    """Ten seconds without an API server; one controller lives through it, the other is killed and
    started in the midst of it: it is alive, and not ready."""
    assert denied.engines is not None
    client = Attack(denied, tmp_path)
    kill_server(denied)
    begun = time.monotonic()
    denied.engines.stop("worker", signal.SIGKILL)
    denied.engines.dataplane = PLANES["worker"]
    denied.engines.start("worker")
    eventually(lambda: "alive" in status(denied, "/livez"))
    assert "in force" not in status(denied, "/readyz")
    time.sleep(max(0.0, begun + OUTAGE - time.monotonic()))
    denied.plane.restart("kube-apiserver")
    eventually(lambda: "in force" in status(denied, "/readyz"))
    tried, got = client.end()
    assert tried > 5 * OUTAGE
    assert got == 0, f"{got} of {tried}: {client.said.read_text()}"
    follow_again(denied)


def test_a_server_that_goes_without_a_word_is_missed(denied: EmbeddedClusterLab) -> None:
    """Its end reaches no node, as if its machine had lost power, and another takes its place: who
    only waits to be told would wait for minutes."""
    # each follows all kinds, again if the test before took the server away
    ports = {
        node: eventually(
            lambda n=node: len(found := enforcers_ports(denied, n)) >= len(RESOURCES) and found  # type: ignore[misc]
        )
        for node in PLANES
    }
    rules = [
        (node, f"PREROUTING -p tcp --sport {PORT} --dport {port} -j DROP")
        for node in PLANES
        for port in ports[node]
    ]
    for node, rule in rules:
        denied.holder.run(node_box(node), ["iptables", "-t", "raw", "-A", *rule.split()])
    kill_server(denied)
    denied.plane.restart("kube-apiserver")
    follow_again(denied)
    for node, rule in rules:
        done = denied.holder.run(node_box(node), ["iptables", "-t", "raw", "-D", *rule.split()])
        assert done.code == 0, done.err


def enforcers_ports(cluster: EmbeddedClusterLab, node: str) -> list[str]:
    """From which ports the node's enforcer is connected to the API server."""
    argv = ["ss", "-Htnp", "state", "established", "dport", "=", f":{PORT}"]
    lines = cluster.holder.run(node_box(node), argv).out.splitlines()
    return [line.split()[2].rpartition(":")[2] for line in lines if "python" in line]


def test_after_a_compaction_it_lists_anew(denied: EmbeddedClusterLab) -> None:
    """The version that a watch was to go on from is forgotten: what went away meanwhile is told by
    no event, only by not being on the new list."""
    assert denied.engines is not None
    for node in PLANES:
        denied.engines.running[node].signal(signal.SIGSTOP)
    kill_server(denied)
    denied.plane.restart("kube-apiserver")
    denied.apply([Delete("NetworkPolicy", "x", "deny")])
    compact(denied)
    # Its watch cache would still tell of the deletion; that of the next one begins after it.
    kill_server(denied)
    denied.plane.restart("kube-apiserver")
    for node in PLANES:
        denied.engines.running[node].signal(signal.SIGCONT)
    eventually(lambda: reached(denied) == {"a", "c"})
    for node in PLANES:
        log = denied.engines.log(node).read_text()
        assert '"event": "expired", "kind": "NetworkPolicy"' in log
    denied.apply([Apply(DENY)])
    eventually(lambda: not reached(denied))


def test_a_full_disk_under_etcd_opens_nothing(tmp_path: Path) -> None:
    """The store ends, which is told with its own words; the rules stay in force."""
    good = binaries.find()
    script = tmp_path / "etcd"
    script.write_text(
        f"#!/bin/sh\nmkdir -p {HOME}/etcd && mount -t tmpfs -o size=192m tmpfs {HOME}/etcd &&\n"
        f'exec {good["etcd"]} "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    small = Binaries({**good.found, "etcd": replace(good.found["etcd"], path=script)})
    with enforced(tmp_path / "lab", binaries=small, sound=False) as lab:
        lab.apply([Apply(DENY)])
        eventually(lambda: not reached(lab))
        fill = ["sh", "-c", f"cat /dev/zero >{HOME}/etcd/fill"]
        filled = lab.holder.run(node_box(lab.node_names[0]), fill)
        assert "No space left" in filled.err
        with pytest.raises(LabError) as caught:
            keep_writing(lab)
        assert "etcd on control-plane ended" in caught.value.message
        assert "no space left on device" in caught.value.detail
        assert not reached(lab)


def keep_writing(lab: EmbeddedClusterLab) -> None:
    for number in range(500):
        lab.api.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": "x", "name": f"big-{number}"},
                "data": {"text": "x" * 900_000},
            }
        )


def kill_server(cluster: EmbeddedClusterLab) -> None:
    server = cluster.plane.process("kube-apiserver")
    cluster.plane.expect_end("kube-apiserver")
    server.signal(signal.SIGKILL)
    server.wait(10)


def follow_again(cluster: EmbeddedClusterLab) -> None:
    """Both controllers take up what is changed now; the servers are shut before and after."""
    assert not reached(cluster)
    cluster.apply([Apply(OPEN)])
    eventually(lambda: reached(cluster) == {"a", "c"})
    cluster.apply([Delete("NetworkPolicy", "x", "open")])
    eventually(lambda: not reached(cluster))


def compact(cluster: EmbeddedClusterLab) -> None:
    """Let the store forget all versions but the present ones."""
    plane = cluster.plane
    link = http.client.HTTPConnection("127.0.0.1", 2379)
    link.sock = plane.dialer.connect(plane.node.name, "127.0.0.1", 2379)
    with contextlib.closing(link):

        def ask_etcd(what: str, body: dict[str, Any]) -> Any:
            link.request("POST", f"/v3/{what}", json.dumps(body))
            with link.getresponse() as answer:
                text = answer.read()
                assert answer.status == 200, text
            return json.loads(text)

        revision = ask_etcd("kv/range", {"key": "AA=="})["header"]["revision"]
        ask_etcd("kv/compaction", {"revision": revision, "physical": True})


# -- its end ---------------------------------------------------------------------------------------


def test_without_the_controller_its_rules_stay(denied: EmbeddedClusterLab) -> None:
    """A polite end, as in an upgrade; the next start takes over."""
    assert denied.engines is not None
    for node in PLANES:
        begun = time.monotonic()
        denied.engines.stop(node, signal.SIGTERM)
        assert time.monotonic() < begun + 9, "it had to be killed"
    assert not reached(denied)
    for node, plane in PLANES.items():
        denied.engines.dataplane = plane
        denied.engines.start(node)
    for node in PLANES:
        eventually(lambda n=node: "in force" in status(denied, "/readyz", n))  # type: ignore[misc]
    assert not reached(denied)
