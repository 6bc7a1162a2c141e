"""``--lab-manifests``: scenarios out of the user's own manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.conftest import RunSuite

SHOP = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: nginx, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
"""
FOREIGN = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: more, namespace: shop}
spec: {}
"""


@pytest.fixture
def manifests(made_up: Path) -> Path:
    directory = made_up.parent / "shop"
    directory.mkdir()
    (directory / "shop.yaml").write_text(SHOP)
    return directory


def test_on_the_lab(suite: Path, run_clean: RunSuite) -> None:
    (suite / "deny.yaml").unlink()
    (suite.parent / "shop.yaml").write_text(SHOP)
    ended = run_clean("--lab-manifests", "shop.yaml")
    assert ended.code == pytest.ExitCode.OK, ended.out
    found = {one.id: one for one in ended.record.scenarios}
    assert {"manifests/ingress/shop/db", "manifests/egress/shop/db"} <= found.keys()
    into = {
        (cell.source, cell.target): cell.expected
        for cell in found["manifests/ingress/shop/db"].steps[-1].cells
    }
    assert into["shop/web-1", "svc:shop/db"] == into["shop/web-1", "shop/db-0"] == "allow"
    assert into["shop/netpol-stranger", "shop/db-0"] == "deny"
    out = {c.target: c.expected for c in found["manifests/egress/shop/db"].steps[-1].cells}
    assert out["shop/web-1"] == out["netpol-stranger/netpol-stranger"] == "deny"


def test_what_is_made_of_them_is_told(manifests: Path, run_clean: RunSuite) -> None:
    ended = run_clean("--lab-manifests", "shop")
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "netpol: manifests: 1 pods are left out that nothing can tell from two" in ended.out
    assert "connections that should work" in ended.out
    assert all("--lab-manifests" in one.rerun for one in ended.record.scenarios)


def test_what_the_model_cannot_hold_stops_the_run(manifests: Path, run_clean: RunSuite) -> None:
    (manifests / "more.yaml").write_text(FOREIGN)
    (manifests / "wrong.yaml").write_text(
        SHOP.replace("podSelector: {matchLabels", "podSelector: {m")
    )
    stopped = run_clean("--lab-manifests", "shop")
    assert stopped.code == pytest.ExitCode.USAGE_ERROR
    assert "more.yaml:2: CiliumNetworkPolicy (cilium.io/v2) may matter, and is not" in stopped.out
    assert "wrong.yaml:" in stopped.out
    assert "--lab-manifests-partial" in stopped.out
    partial = run_clean("--lab-manifests", "shop", "--lab-manifests-partial")
    assert partial.code == pytest.ExitCode.OK, partial.out
    assert "netpol: manifests: left out: " in partial.out


@pytest.mark.parametrize("given", ["nowhere", "empty"])
def test_nothing_to_derive_from(made_up: Path, run_clean: RunSuite, given: str) -> None:
    (made_up.parent / "empty").mkdir()
    ended = run_clean("--lab-manifests", given)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert f"--lab-manifests {made_up.parent / given}" in ended.out
