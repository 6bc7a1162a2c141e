"""The cluster configurations of ``clusters/``: each belongs to an entry, and kind would take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cnis import catalogue
from harness.labs.base import LabError
from harness.labs.kind import config

CLUSTERS = Path(__file__).parents[2] / "clusters"
ON_KIND = [name for name in catalogue.names() if "kind" in catalogue.get(name).labs]
GOOD: dict[str, Any] = {
    "kind": "Cluster",
    "apiVersion": config.API_VERSION,
    "nodes": [{"role": "control-plane"}, {"role": "worker"}],
}


def test_each_file_has_an_entry_and_each_entry_a_file() -> None:
    files = {path.name for path in CLUSTERS.iterdir()}
    assert files == {f"kind-{name}.yaml" for name in ON_KIND}
    assert all(catalogue.get(name).config == f"kind-{name}.yaml" for name in ON_KIND)


@pytest.mark.parametrize("name", ON_KIND)
def test_a_file_is_as_its_entry_wants_it(name: str) -> None:
    data = config.read(CLUSTERS / f"kind-{name}.yaml")
    assert [node["role"] for node in data["nodes"]] == ["control-plane", "worker", "worker"]
    networking = data["networking"]
    assert networking["disableDefaultCNI"] is (name != "kindnet")
    # Calico's Felix switches to nftables with kube-proxy; Canal's and Flannel's networks are this.
    assert networking["kubeProxyMode"] == "iptables"
    assert config.pod_subnets(data) == ["10.244.0.0/16"]


def test_an_engine_alone_stands_on_a_network_that_enforces_nothing() -> None:
    for name in ON_KIND:
        cni = catalogue.get(name)
        if cni.base:
            assert not catalogue.get(cni.base).enforces
        assert cni.base or cni.routes or cni.manifests or name in ("kindnet", "cilium")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Pod"}, "no cluster configuration"),
        ({"apiVersion": "kind.x-k8s.io/v1alpha3"}, "apiVersion is 'kind.x-k8s.io/v1alpha3'"),
        ({"networkng": {}}, "kind knows no 'networkng', meant networking?"),
        ({"networking": {"podSubnets": "x"}}, "networking: kind knows no 'podSubnets'"),
        ({"networking": {"podSubnet": "10.244.1.0/16"}}, "podSubnet: .* host bits"),
        ({"networking": {"ipFamily": "IPv4"}}, "ipFamily 'IPv4'"),
        ({"networking": {"kubeProxyMode": "none at all"}}, "no kubeProxyMode"),
        ({"networking": ["x"]}, "is no mapping"),
        ({"nodes": [{"role": "worker"}]}, "no node with role control-plane"),
        ({"nodes": [{"role": "master"}]}, r"nodes\[0\]: no role 'master'"),
        ({"nodes": [{"role": "control-plane", "label": {}}]}, "meant labels?"),
    ],
)
def test_what_kind_would_refuse_is_told_with_its_field(
    change: dict[str, Any], message: str
) -> None:
    config.check(GOOD, "c.yaml")
    with pytest.raises(LabError, match=message):
        config.check({**GOOD, **change}, "c.yaml")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        config.read(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("a: [")
    with pytest.raises(LabError, match="is not YAML"):
        config.read(tmp_path / "c.yaml")


def test_made_for_a_run() -> None:
    base = config.read(CLUSTERS / "kind-calico.yaml")
    data = config.made(base, nodes=5, families=(4, 6), labels={"run": "r1"})
    config.check(yaml.safe_load(yaml.safe_dump(data)), "made")
    assert [node["role"] for node in data["nodes"]] == ["control-plane", *["worker"] * 4]
    assert all(node["labels"] == {"run": "r1"} for node in data["nodes"])
    assert data["networking"]["ipFamily"] == "dual"
    assert data["networking"]["podSubnet"] == "10.244.0.0/16,fd00:10:244::/56"
    six = config.made(base, nodes=1, families=(6,), labels={})
    assert six["networking"]["podSubnet"] == "fd00:10:244::/56"
    assert [node["role"] for node in six["nodes"]] == ["control-plane"]
    assert base == config.read(CLUSTERS / "kind-calico.yaml")


def test_kubelets_that_bear_cgroup_v1() -> None:
    patch = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
    assert config.bears_cgroup1({"kubeadmConfigPatches": ["a: [", patch + "failCgroupV1: false"]})
    assert not config.bears_cgroup1({"kubeadmConfigPatches": [patch + "failCgroupV1: true"]})
    assert not config.bears_cgroup1(GOOD)
