"""The cluster lab on a cluster that exists, by kubeconfig, with the least rights and no other."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.labs.base import LabError
from harness.labs.cluster import rbac
from harness.labs.cluster.connect import connect
from harness.labs.cluster.lab import ClusterLab
from harness.labs.cluster.objects import RUN_LABEL, Images
from harness.labs.controlplane.engines import account_token
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import stream_module
from harness.model.actions import Apply, Finish, Relabel
from harness.model.flow import Endpoint
from harness.model.policy import LabelSelector, NetworkPolicy, Protocol
from harness.model.world import (
    ContainerPort,
    Namespace,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)
from tests.netns.clusters import cluster_up, eventually
from tests.ordinary import nobody

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    with cluster_up(tmp_path_factory.mktemp("lab")) as lab:
        for manifest in rbac.manifests("default"):
            lab.api.apply(manifest)
        # The nodes' own servers make room for those of the cluster lab.
        servers = [f"server@node:{name}" for name in lab.node_names]
        lab.holder.request("drop", boxes=servers)
        yield lab


@pytest.fixture
def kubeconfig(cluster: EmbeddedClusterLab, tmp_path: Path) -> Path:
    """Of the service account, by a port on loopback."""
    token = account_token(cluster.api, "default", rbac.NAME)
    path = tmp_path / "kubeconfig"
    path.write_text(cluster.plane.kubeconfig(cluster.forward().server, token))
    return path


def _answer(lab: ClusterLab, client: str, command: str) -> str:
    shell = lab.shell(Endpoint.parse(client))
    output = b""
    try:
        shell.send(f"{command} 2>&1; echo =$((1+1))=\n".encode())
        with selectors.DefaultSelector() as selector:
            selector.register(shell, selectors.EVENT_READ)
            while b"=2=" not in output:
                assert selector.select(20), output
                output += shell.receive()
    finally:
        shell.close()
    return output.decode()


def test_all_of_a_run_with_the_least_rights(cluster: EmbeddedClusterLab, kubeconfig: Path) -> None:
    api = connect(kubeconfig)
    assert rbac.missing(api) == []
    images = Images("nginx", "busybox", stream_module(cluster.holder))
    lab = ClusterLab(api, run="r1", images=images)
    try:
        lab.up()
        assert {"ipv4", "dns", "node-client", "cluster-network-policy"} <= lab.features
        assert "external" in lab.missing
        server = Pod("run-x", "a", {"a": "1"})
        client = Pod("run-x", "c", workload=Workload.CLIENT)
        service = Service("run-x", "s", {"a": "1"}, (ServicePort(80, 80),))
        lab.apply([Apply(Namespace("run-x")), Apply(server), Apply(client), Apply(service)])
        world = lab.resolve(World(pods={server.key: server, client.key: client}))
        address = world.pods[server.key].ips[0]
        eventually(lambda: f"1 run-x/a {address}" in _answer(lab, "run-x/c", "wget -qO- s/t/1"))
        assert "node:worker2" in _answer(
            lab, "node:worker", f"wget -qO- http://{world.nodes['worker2'].ips[0]}:9100/t/1"
        )
        lab.apply(
            [
                Relabel("Namespace", "", "run-x", {"k": "v"}),
                Relabel("Pod", "run-x", "a", {"a": None}),
                Apply(NetworkPolicy("run-x", "deny", LabelSelector())),
                Finish("run-x", "a", Phase.SUCCEEDED),
            ]
        )
        assert lab.evidence(world, ()) == ()
        assert lab.facts()["kubernetes"].startswith("1.")
    finally:
        lab.down()
    chosen = {"labelSelector": f"{RUN_LABEL}=r1"}
    for kind in ("Namespace", "Pod", "Service", "NetworkPolicy"):
        eventually(lambda kind=kind: not cluster.api.list(kind, **chosen)["items"])


def test_pods_that_cannot_start_are_told(cluster: EmbeddedClusterLab, kubeconfig: Path) -> None:
    """At once, with their last words."""
    images = Images("nginx", "busybox", "/no/such/module.so")
    lab = ClusterLab(connect(kubeconfig), run="r3", images=images)
    try:
        lab.connect()
        with pytest.raises(LabError) as caught:
            lab.apply([Apply(Namespace("r3-x")), Apply(Pod("r3-x", "a", ports=(_UDP,)))])
        assert "r3-x/a on worker" in caught.value.detail
        assert "/no/such/module.so" in caught.value.detail
    finally:
        lab.down()


_UDP = ContainerPort(80, Protocol.UDP)


def test_rights_that_lack_are_told(cluster: EmbeddedClusterLab, kubeconfig: Path) -> None:
    role = cluster.api.get("ClusterRole", "", rbac.NAME)
    rules = [rule for rule in role["rules"] if rule["resources"] != ["pods/exec"]]
    cluster.api.merge("ClusterRole", "", rbac.NAME, {"rules": rules})
    try:
        api = connect(kubeconfig)
        lacks = eventually(lambda: rbac.missing(api))
        assert rbac.told(lacks) == (
            "  create pods/exec: a shell in each client\n  get pods/exec: a shell in each client"
        )
    finally:
        cluster.api.merge("ClusterRole", "", rbac.NAME, {"rules": role["rules"]})


def test_kubeconfigs_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be used"):
        connect(tmp_path / "not-there")
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(LabError, match="cannot be used"):
        connect(tmp_path / "empty", context="none")


def test_a_token_that_is_not_known(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(cluster.plane.kubeconfig(cluster.forward().server, "wrong"))
    with pytest.raises(LabError, match="Unauthorized"):
        ClusterLab(connect(path), run="r2").up()


_PROGRAM = """
import os, sys
from pathlib import Path
from harness.labs.cluster import stream
from harness.labs.controlplane import binaries
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply
from harness.model.world import Namespace, Pod, Service, ServicePort
here = Path(sys.argv[1])
lab = EmbeddedClusterLab(here / "lab", binaries=binaries.find(directory=here / "bin"))
lab.up()
service = Service("x", "s", {"a": "1"}, (ServicePort(80, 80),))
lab.apply([Apply(Namespace("x")), Apply(Pod("x", "a", {"a": "1"})), Apply(service)])
print(os.getuid(), *stream.run(lab.api, "x", "a", "client", ["wget", "-qO-", "http://s.x/t/1"]))
lab.down()
"""


def test_an_ordinary_user_can_do_all_of_it() -> None:
    with nobody() as user:
        out = user.python("-c", _PROGRAM, str(user.home))
    assert " 0 1 x/a 10.244." in out
    assert not out.startswith("0 ")
