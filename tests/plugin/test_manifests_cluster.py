"""``--lab-manifests cluster:``: scenarios out of what runs on a live cluster, played by a
stand-in. tests/netns/test_manifests_cluster.py asks a real one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.plugin.conftest import RunSuite
from tests.standins.apiserver import ApiServer, api_server

NAMESPACES = """
- metadata: {name: shop, labels: {team: shop}}
- metadata: {name: other}
- metadata: {name: kube-system, labels: {name: kube-system}}
"""
# As a server gives them out: with fields that the model does not hold.
PODS = """
- metadata: {namespace: shop, name: web-5d9-1, labels: {app: web}, uid: u1, managedFields: []}
  spec:
    nodeName: far
    containers:
    - {name: web, image: nginx, ports: [{containerPort: 80}], env: [{name: KEY, value: hidden}]}
  status: {phase: Running, podIP: 10.9.0.1, conditions: [{type: Ready, status: "False"}]}
- metadata: {namespace: shop, name: web-5d9-2, labels: {app: web}, uid: u2}
  spec: {containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]}
  status: {phase: Pending}
- metadata: {namespace: shop, name: job-1, labels: {app: web}, uid: u3}
  spec: {containers: [{name: web, image: nginx}]}
  status: {phase: Succeeded}
- metadata: {namespace: shop, name: db-0, labels: {app: db}, uid: u4}
  spec: {containers: [{name: db, image: postgres, ports: [{containerPort: 5432}]}]}
  status: {phase: Running}
- metadata: {namespace: kube-system, name: coredns-1, labels: {k8s-app: kube-dns}, uid: u5}
  spec: {containers: [{name: dns, image: coredns}]}
"""
SERVICES = """
- metadata: {namespace: default, name: kubernetes}
  spec: {clusterIP: 10.8.0.1, ports: [{port: 443}]}
- metadata: {namespace: shop, name: db}
  spec: {clusterIP: 10.8.0.2, selector: {app: db}, ports: [{port: 5432}]}
"""
POLICIES = """
- metadata: {namespace: shop, name: db}
  spec:
    podSelector: {matchLabels: {app: db}}
    policyTypes: [Ingress]
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
"""


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as made:
        for resource, text in (
            ("/api/v1/namespaces", NAMESPACES),
            ("/api/v1/pods", PODS),
            ("/api/v1/services", SERVICES),
            ("/apis/networking.k8s.io/v1/networkpolicies", POLICIES),
        ):
            made.lists[resource] = yaml.safe_load(text)
            prefix, _, plural = resource.rpartition("/")
            for one in made.lists["/api/v1/namespaces"]:
                name = one["metadata"]["name"]
                made.others.setdefault(f"/api/v1/namespaces/{name}", one)
                if plural != "namespaces":
                    within = [i for i in made.lists[resource] if i["metadata"]["namespace"] == name]
                    made.lists[f"{prefix}/namespaces/{name}/{plural}"] = within
        yield made


@pytest.fixture
def kubeconfig(api: ApiServer, tmp_path: Path) -> str:
    return str(api.write_kubeconfig(tmp_path / "kubeconfig"))


def _taken(reports: Path) -> list[dict[str, object]]:
    text = (reports / "latest" / "manifests.yaml").read_text()
    return [one for one in yaml.safe_load_all(text) if one]


def test_what_runs_there_is_taken(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite
) -> None:
    """Page by page, pods as they are: none is made of a template beside them. Written down
    without what nobody need see, and the run is derived from that."""
    ended = run_clean("--lab-manifests", "cluster:", KUBECONFIG=kubeconfig)
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "cluster:shop: 1 pods of kube-system are left out: the lab has its own" in ended.out
    assert "netpol: cluster:shop: 4 pods, 1 Services and 1 policies taken" in ended.out
    assert "netpol: manifests: 1 pods that have ended are left out" in ended.out
    assert "manifests/ingress/shop/db" in {one.id for one in ended.record.scenarios}
    assert any("continue=2" in asked for asked in api.asked)
    text = (ended.reports / "latest" / "manifests.yaml").read_text()
    assert text.startswith("# cluster:shop at 2")
    assert "hidden" not in text
    pods = [one["metadata"]["name"] for one in _taken(ended.reports) if one["kind"] == "Pod"]
    assert sorted(pods) == ["db-0", "job-1", "web-5d9-1", "web-5d9-2"]
    assert {"name: kube-system"} <= set(map(str.strip, text.splitlines()))


def test_the_command_of_a_replay_needs_no_cluster(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite
) -> None:
    ended = run_clean("--lab-manifests", "cluster:shop", KUBECONFIG=kubeconfig)
    again = next(o.rerun for o in ended.record.scenarios if o.id == "manifests/ingress/shop/db")
    api.lists.clear()  # the cluster has become another
    _, *arguments = shlex.split(again)
    assert "cluster:shop" not in arguments
    replayed = run_clean(*[one for one in arguments if one != "suites"], KUBECONFIG="/nowhere")
    assert replayed.code == pytest.ExitCode.OK, replayed.out
    [one] = [one for one in replayed.record.scenarios if one.id.startswith("manifests/")]
    assert one.id == "manifests/ingress/shop/db"


def test_some_namespaces_with_no_rights_on_others(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite
) -> None:
    """Whether there are cluster-wide policies is answered by what the server serves, for who may
    not list them gets the same answer where there are none."""
    api.forbidden |= {path for path in api.lists if "/namespaces/" not in path}
    api.forbidden.add("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies")
    arguments = ("--lab-manifests", "cluster:shop", "--lab-manifests-namespace", "shop")
    ended = run_clean(*arguments, KUBECONFIG=kubeconfig)
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "4 pods, 1 Services and 1 policies taken" in ended.out
    api.others["/apis/policy.networking.k8s.io/v1alpha2"] = {"resources": []}
    ended = run_clean(*arguments, KUBECONFIG=kubeconfig)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "refuses to be read: GET /apis/policy.networking.k8s.io" in ended.out


def test_policies_that_the_model_does_not_read(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite
) -> None:
    api.serve("cilium.io", "v2", "CiliumNetworkPolicy", "a", "b", "c")
    api.serve("cilium.io", "v2", "CiliumEndpoint", "pod")
    api.serve("projectcalico.org", "v3", "NetworkPolicy", "knp.default.db")  # Kubernetes' own
    api.serve("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy")  # there is none
    stopped = run_clean("--lab-manifests", "cluster:", KUBECONFIG=kubeconfig)
    assert stopped.code == pytest.ExitCode.USAGE_ERROR
    told = "cluster:shop: CiliumNetworkPolicy (cilium.io/v2) may matter, and is not read"
    assert [one.strip() for one in stopped.out.splitlines() if "may matter" in one] == [told]
    assert "--lab-manifests-partial" in stopped.out
    partial = run_clean(
        "--lab-manifests", "cluster:", "--lab-manifests-partial", KUBECONFIG=kubeconfig
    )
    assert partial.code == pytest.ExitCode.OK, partial.out
    assert f"netpol: cluster:shop: left out: {told}" in partial.out


def test_workers_derive_from_what_the_first_process_has_taken(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite
) -> None:
    ended = run_clean("--lab-manifests", "cluster:", "-n", "2", KUBECONFIG=kubeconfig)
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "manifests/ingress/shop/db" in {one.id for one in ended.record.scenarios}
    assert len([asked for asked in api.asked if asked.startswith("/api/v1/pods?")]) == 3  # pages


def test_nothing_is_left_where_nothing_runs(
    made_up: Path, kubeconfig: str, run_clean: RunSuite
) -> None:
    for switch in ("--collect-only", "--lab-dry-run"):
        ended = run_clean("--lab-manifests", "cluster:", switch, KUBECONFIG=kubeconfig)
        assert ended.code == pytest.ExitCode.OK, ended.out
        assert not list(ended.reports.glob("*/manifests.yaml"))


def test_clusters_that_cannot_be_read(
    made_up: Path, api: ApiServer, kubeconfig: str, run_clean: RunSuite, tmp_path: Path
) -> None:
    """One sentence, before anything is made."""

    def refused(where: str, kubeconfig: str = kubeconfig, *more: str) -> str:
        ended = run_clean("--lab-manifests", where, *more, KUBECONFIG=kubeconfig)
        assert ended.code == pytest.ExitCode.USAGE_ERROR, ended.out
        assert not ended.reports.exists()
        return ended.out

    assert "name elsewhere in" in refused("cluster:elsewhere")
    assert "the kubeconfig cannot be used" in refused("cluster:", str(tmp_path / "nowhere"))
    expired = api.write_kubeconfig(tmp_path / "expired", token="old")
    assert "cluster:shop does not know who asks" in refused("cluster:", str(expired))
    more = ("--lab-manifests-namespace", "shp")
    assert "has not what was asked for: GET /api/v1/namespaces/shp" in refused(
        "cluster:", kubeconfig, *more
    )
    out = refused("shop", kubeconfig, *more)
    assert "--lab-manifests-namespace is for --lab-manifests cluster:, which is not" in out
    api.forbidden.add("/api/v1/pods")
    assert "cluster:shop refuses to be read: GET /api/v1/pods" in refused("cluster:")
    closed = tmp_path / "closed"
    closed.write_text(Path(kubeconfig).read_text().replace(f":{api.port}", ":1"))
    assert "http://127.0.0.1:1 does not answer to GET" in refused("cluster:", str(closed))
    api.forbidden.clear()
    api.lists["/api/v1/pods"] = api.lists["/apis/networking.k8s.io/v1/networkpolicies"] = []
    assert "there is no pod and no policy there to derive from" in refused("cluster:")
