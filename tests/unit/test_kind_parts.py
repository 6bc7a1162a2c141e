"""The parts of a kind cluster that need no programs: archives, routes, what is remembered."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cnis import catalogue
from harness.labs.base import LabError
from harness.labs.kind import archives, routes, state
from harness.labs.kind.ready import Waiter
from harness.labs.kind.recipe import Rollout
from harness.model.world import Node
from harness.run import kinds
from harness.run.place import KindOptions, Place

NODES = [
    Node("c-control-plane", ("172.18.0.2", "fc00::2"), ("10.244.0.0/24", "fd00:10:244::/64")),
    Node("c-worker", ("172.18.0.3", "fc00::3"), ("10.244.1.0/24", "fd00:10:244:1::/64")),
]


def archive(path: Path, files: dict[str, Any], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


OCI = {
    "index.json": {
        "manifests": [
            {"annotations": {"io.containerd.image.name": "quay.io/calico/node:v3.32.1"}},
            {"annotations": {"org.opencontainers.image.ref.name": "v1"}},  # a tag alone
            {},
        ]
    }
}


def test_both_forms_of_archives_are_read(tmp_path: Path) -> None:
    docker = {"manifest.json": [{"RepoTags": ["nginx:1.29", "a/b:1"]}, {"RepoTags": None}]}
    archive(tmp_path / "docker.tar", docker)
    archive(tmp_path / "oci.tar", OCI)
    found = archives.find(tmp_path)
    assert found[tmp_path / "docker.tar"] == ["docker.io/library/nginx:1.29", "docker.io/a/b:1"]
    assert found[tmp_path / "oci.tar"] == ["quay.io/calico/node:v3.32.1"]
    wanted = ["nginx:1.29", "nginx", "quay.io/calico/node:v3.32.1@sha256:00"]
    assert archives.lacking(wanted, found) == ["docker.io/library/nginx:latest"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "is no image archive"),
        (b"", "is no image archive"),
        (None, "has neither manifest.json nor index.json"),
    ],
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "x.tar"
    if content is None:
        archive(file, {"other.json": 1})
    else:
        file.write_bytes(content)
    with pytest.raises(LabError, match=message):
        archives.find(tmp_path)


def test_each_node_has_a_route_to_the_others_in_both_families() -> None:
    assert routes.routes(NODES[0], NODES) == [
        ["ip", "route", "replace", "10.244.1.0/24", "via", "172.18.0.3"],
        ["ip", "-6", "route", "replace", "fd00:10:244:1::/64", "via", "fc00::3"],
    ]


def test_only_what_leaves_the_cluster_is_masqueraded() -> None:
    text = routes.masquerade(NODES, ["10.244.0.0/16", "fd00:10:244::/56"])
    assert (
        "ip saddr { 10.244.0.0/16 } ip daddr != { 10.244.0.0/16, 172.18.0.2, 172.18.0.3 } "
        "masquerade" in text
    )
    assert (
        "ip6 saddr { fd00:10:244::/56 } ip6 daddr != { fd00:10:244::/56, fc00::2, fc00::3 }" in text
    )
    assert "ip6" not in routes.masquerade(NODES, ["10.244.0.0/16"])


def test_addresses_of_both_families_are_given() -> None:
    data = json.loads(routes.conflist(NODES[1].pod_cidrs, 1450))
    ipam = data["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": cidr}] for cidr in NODES[1].pod_cidrs]
    assert [one["dst"] for one in ipam["routes"]] == ["0.0.0.0/0", "::/0"]


def test_what_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    mine = state.Known(
        "netpol-a",
        "r1",
        "calico",
        "docker",
        owner=os.getpid(),
        owner_started=state.started(os.getpid()),
    )
    gone = state.Known("netpol-b", "r2", "calico", "docker", owner=1, owner_started="-1")
    kept = state.Known("netpol-c", "r3", "calico", "docker", state=state.KEPT)
    for one in (mine, gone, kept):
        state.write(one)
    (state.home() / "broken").mkdir()
    (state.home() / "broken" / "cluster.json").write_text("{")
    assert [one.name for one in state.all_known()] == ["netpol-a", "netpol-b", "netpol-c"]
    # Another process of the same number is not taken for the owner.
    assert [one.name for one in state.all_known() if one.abandoned] == ["netpol-b"]
    state.change("netpol-a", state=state.UP)
    known = state.read("netpol-a")
    assert known is not None
    assert known.state == state.UP
    state.forget("netpol-a")
    assert state.read("netpol-a") is None


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(LabError, match="cannot be remembered there"):
        state.write(state.Known("netpol-a", "r", "c", "docker"))


def test_images_of_other_cnis_are_foreign(tmp_path: Path) -> None:
    """One directory may hold the archives of a whole matrix; each cluster is given its own."""
    manifest = tmp_path / "canal.yaml"
    images = ("quay.io/calico/node:v9", "example.org/mine:v1")
    manifest.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "canal", "namespace": "kube-system"},
                "spec": {
                    "template": {
                        "spec": {"containers": [{"name": one[-2:], "image": one} for one in images]}
                    }
                },
            }
        )
    )
    made = kinds.recipe(catalogue.get("canal"), Place(kind=KindOptions(files=(manifest,))))
    assert made.images == images
    assert "ghcr.io/flannel-io/flannel" in made.foreign
    assert not made.foreign & {"quay.io/calico/node", "example.org/mine"}


class PodsOnly:
    """As much of an API as the story of pods is read from."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)

    def find(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        return {"spec": {"selector": {"matchLabels": {"app": name}}}}

    def list(self, kind: str, namespace: str, **_: Any) -> dict[str, Any]:
        event = {"reason": "BackOff", "message": "restarting failed container"}
        return {"items": self.pods if kind == "Pod" else [event]}

    def text(self, where: str, params: dict[str, str]) -> str:
        return "no route to the datastore"


def cni_pod(name: str, *, ready: bool, restarts: int) -> dict[str, Any]:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    status = {"name": "agent", "ready": ready, "restartCount": restarts}
    return {
        "metadata": {"namespace": "kube-system", "name": name},
        "spec": {"nodeName": f"node-of-{name}"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [status | {"state": {"running": {}} if ready else waiting}],
        },
    }


def test_pods_of_the_cni_that_stopped_are_told() -> None:
    """An engine that has died leaves what looks like an outage, or a leak, of the network."""
    api: Any = PodsOnly(
        cni_pod("steady", ready=True, restarts=0),
        cni_pod("again", ready=True, restarts=1),
        cni_pod("down", ready=False, restarts=6),
    )
    lines = Waiter(api).unsteady([Rollout("kube-system", "DaemonSet", "agent")])
    assert lines == [
        "again on node-of-again: Running, started again once",
        "      event: BackOff: restarting failed container",
        "down on node-of-down: Running; agent: CrashLoopBackOff back-off 40s, not ready, "
        "started again 6 times",
        "      event: BackOff: restarting failed container",
        "      agent: no route to the datastore",
    ]
    api.pods = api.pods[:1]
    assert Waiter(api).unsteady([Rollout("kube-system", "DaemonSet", "agent")]) == []
