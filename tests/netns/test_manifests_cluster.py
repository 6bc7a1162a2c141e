"""``pytest suites/ --lab-manifests cluster:`` from a real API server: what runs there is taken with
rights to read alone, and run on a lab of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.labs.cluster import rbac
from harness.labs.cluster.pods import is_ready
from harness.labs.controlplane.engines import account_token
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.report.record import read
from tests.netns.clusters import SHOP, cluster_up, eventually

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
APPLICATION = (
    """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---"""
    + SHOP
    + """\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]
"""
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClusterLab]:
    """With an application in it, and an account that may read it."""
    with cluster_up(tmp_path_factory.mktemp("lab")) as lab:
        api = lab.api
        documents = [
            *yaml.safe_load_all(APPLICATION),
            *rbac.manifests("default", rights=rbac.READING),
        ]
        for manifest in documents:
            if manifest["kind"] in ("Pod", "Deployment"):  # no pod before its account
                eventually(lambda: api.find("ServiceAccount", "shop", "default"))
            api.apply(manifest)
        eventually(lambda: _ready(lab) == 3)
        yield lab


def _ready(lab: EmbeddedClusterLab) -> int:
    return sum(map(is_ready, lab.api.list("Pod", "shop")["items"]))


def _pytest(folder: Path, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT)}
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "suites/", "-p", "no:cacheprovider"),
            *("-m", "manifests", "--lab-report", str(folder), *arguments),
        ],
        cwd=ROOT,
        env={**outer, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )


def test_an_application_of_a_cluster(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    token = account_token(cluster.api, "default", rbac.NAME)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.plane.kubeconfig(cluster.forward().server, token))
    before = cluster.api.list("Pod")["items"]
    ended = _pytest(tmp_path / "reports", kubeconfig, "--lab-manifests", "cluster:netpol-lab")
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout
    assert "netpol: cluster:netpol-lab: 3 pods, 1 Services and 1 policies taken" in ended.stdout
    record = read(tmp_path / "reports" / "latest")
    found = {one.id: one for one in record.scenarios}
    assert found["manifests/ingress/shop/api"].outcome == "passed"
    cells = found["manifests/ingress/shop/api"].steps[-1].cells
    assert {cell.finding for cell in cells} == {"agrees", "undefined"}  # itself, by the Service
    into = {(cell.source, cell.expected) for cell in cells if cell.target == "svc:shop/api"}
    assert {("shop/web", "allow"), ("shop/netpol-stranger", "deny")} <= into
    # The Deployment's pods once, under their own names.
    behind = {c.target for c in cells if c.target.startswith("shop/api-")}
    assert behind == {f"shop/{one['metadata']['name']}" for one in before if _of_api(one)}
    # Nothing was changed, or made, there.
    names = [(one["metadata"]["name"], one["metadata"]["uid"]) for one in before]
    after = cluster.api.list("Pod")["items"]
    assert [(one["metadata"]["name"], one["metadata"]["uid"]) for one in after] == names


def _of_api(pod: dict[str, dict[str, dict[str, str]]]) -> bool:
    return (pod["metadata"].get("labels") or {}).get("app") == "api"


def test_whom_the_server_does_not_know(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.plane.kubeconfig(cluster.forward().server, "expired"))
    ended = _pytest(tmp_path / "reports", kubeconfig, "--lab-manifests", "cluster:")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended.stdout
    assert "cluster:netpol-lab does not know who asks" in ended.stdout
