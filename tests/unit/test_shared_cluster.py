"""A cluster that others use: names of one's own, who needs to be alone, what is left alone."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness import __main__ as cli
from harness.labs.base import LabError
from harness.labs.cluster.connect import connect, context_name
from harness.labs.cluster.leftovers import leftovers
from harness.labs.cluster.names import Names
from harness.labs.cluster.objects import KEPT_LABEL, RUN_LABEL
from harness.labs.cluster.survey import Survey, _alarms, _owners, _unfit
from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy, Subject, Tier
from harness.model.manifest import from_manifest, to_manifest
from harness.model.policy import LabelSelector, NetworkPolicy
from harness.model.world import ContainerPort, Namespace, Node, Pod, Service, ServicePort, World
from harness.run import apart
from harness.run.reset import changes
from harness.scenarios import worlds
from harness.scenarios.scenario import Scenario, Step
from tests.standins.apiserver import api_server

NAMES = Names("np-1-gw0", {"worker": "ip-10-0-0-7"}, ("default", "kube-system"))
NAME_LABEL = "kubernetes.io/metadata.name"
EVERYTHING = LabelSelector()


def policy(**spec: Any) -> NetworkPolicy:
    data = {"metadata": {"namespace": "x", "name": "p"}, "spec": spec}
    found = from_manifest({"kind": "NetworkPolicy", **data})
    assert isinstance(found, NetworkPolicy)
    return found


def scenario(*actions: Any, world: World | None = None) -> Scenario:
    steps = (Step("one", tuple(actions)),)
    return Scenario("s", "S", "why", world or worlds.world("pair"), steps, frozenset())


# -- names -----------------------------------------------------------------------------------------


def test_every_object_goes_to_a_namespace_of_ones_own() -> None:
    pod = NAMES.object(Pod("x", "a", {"p": "a"}, node="worker"))
    assert pod == Pod("np-1-gw0-x", "a", {"p": "a"}, node="ip-10-0-0-7")
    assert NAMES.object(Service("x", "s")) == Service("np-1-gw0-x", "s")
    namespace = NAMES.object(Namespace("x", {"team": "a"}))
    assert namespace == Namespace("np-1-gw0-x", {"team": "a", NAME_LABEL: "np-1-gw0-x"})
    assert NAMES.object(Namespace("kube-system")) == Namespace("kube-system")
    assert NAMES.own("np-1-gw0-x") == "x"


def test_selectors_on_a_namespaces_name_follow_it_and_no_others() -> None:
    asked = policy(
        podSelector={"matchLabels": {"app": "x"}},
        ingress=[
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {NAME_LABEL: "y", "team": "y"}}},
                    {"podSelector": {"matchLabels": {NAME_LABEL: "y"}}},
                ]
            }
        ],
        egress=[
            {
                "to": [
                    {
                        "namespaceSelector": {
                            "matchExpressions": [
                                {"key": NAME_LABEL, "operator": "NotIn", "values": ["x", "default"]}
                            ]
                        }
                    }
                ]
            }
        ],
    )
    told = to_manifest(NAMES.object(asked))
    assert told["metadata"] == {"namespace": "np-1-gw0-x", "name": "p"}
    spec = told["spec"]
    assert spec["podSelector"] == {"matchLabels": {"app": "x"}}
    by_namespace, by_pod = spec["ingress"][0]["from"]
    labels = by_namespace["namespaceSelector"]["matchLabels"]
    assert labels == {NAME_LABEL: "np-1-gw0-y", "team": "y"}
    assert by_pod["podSelector"]["matchLabels"] == {NAME_LABEL: "y"}
    [expression] = spec["egress"][0]["to"][0]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["np-1-gw0-x", "default"]


def test_actions_follow() -> None:
    assert NAMES.action(Delete("Namespace", "", "x")) == Delete("Namespace", "", "np-1-gw0-x")
    assert NAMES.action(Delete("Pod", "x", "a")) == Delete("Pod", "np-1-gw0-x", "a")
    relabel = Relabel("Namespace", "", "x", {"a": None})
    assert NAMES.action(relabel) == replace(relabel, name="np-1-gw0-x")
    assert NAMES.action(Finish("x", "a")) == Finish("np-1-gw0-x", "a")
    cluster = ClusterNetworkPolicy("c", Tier.ADMIN, 1, Subject(LabelSelector(((NAME_LABEL, "x"),))))
    told = NAMES.action(Apply(cluster))
    assert isinstance(told, Apply)
    assert isinstance(told.object, ClusterNetworkPolicy)
    assert told.object.name == "np-1-gw0-c"
    assert told.object.subject.namespace_selector.match_labels == ((NAME_LABEL, "np-1-gw0-x"),)


def test_what_a_lab_finds_comes_back_under_the_scenarios_names() -> None:
    asked = worlds.world("pair")
    there = NAMES.world(asked)
    assert {key[0] for key in there.pods} == {"np-1-gw0-x"}
    found = there.with_(
        pods={key: replace(pod, ips=("10.0.0.1",)) for key, pod in there.pods.items()},
        nodes={"ip-10-0-0-7": Node("ip-10-0-0-7")},
        namespaces={"default": Namespace("default"), "shop": Namespace("shop")},
    )
    back = NAMES.back(asked, found)
    assert back.pods.keys() == asked.pods.keys()
    assert {pod.ips for pod in back.pods.values()} == {("10.0.0.1",)}
    assert back.services.keys() == asked.services.keys()
    assert set(back.namespaces) == {*asked.namespaces, "default"}
    assert set(back.nodes) == {"ip-10-0-0-7"}


# -- turns -----------------------------------------------------------------------------------------


def test_who_reaches_beyond_its_own_namespaces() -> None:
    assert apart.wide(scenario(Apply(policy(podSelector={})))) == ""
    cluster = ClusterNetworkPolicy("c", Tier.ADMIN, 1, Subject(EVERYTHING))
    assert "ClusterNetworkPolicy" in apart.wide(scenario(Apply(cluster)))
    assert "node n" in apart.wide(scenario(Apply(Node("n"))))
    system = replace(policy(podSelector={}), namespace="kube-system")
    assert "every cluster has" in apart.wide(scenario(Apply(system)))
    assert "default" in apart.wide(scenario(Relabel("Namespace", "", "default", {"a": "b"})))


def test_what_disturbs_nobody_stays_up() -> None:
    """Making pods anew for each scenario that runs alone is most of its time on a cluster."""
    quiet = worlds.world("pair")
    cluster = ClusterNetworkPolicy("c", Tier.ADMIN, 1, Subject(EVERYTHING))
    system = replace(policy(podSelector={}), namespace="kube-system")
    on_node = Pod("x", "on-node", ports=(ContainerPort(80, host_port=80),))
    outside = Service("x", "outside", ports=(ServicePort(80, 80, node_port=30000),))
    loud = quiet.with_(
        namespaces={**quiet.namespaces, "default": Namespace("default", {"a": "b"})},
        pods={**quiet.pods, on_node.key: on_node, ("default", "p"): Pod("default", "p")},
        services={**quiet.services, outside.key: outside},
        policies={**quiet.policies, system.key: system},
        cluster_policies={"c": cluster},
    )
    assert apart.tame(loud) == quiet
    gone = changes(loud, apart.tame(loud))
    assert {action.kind for action in gone if isinstance(action, Delete)} == {
        "ClusterNetworkPolicy",
        "NetworkPolicy",
        "Pod",
        "Service",
    }
    assert [action for action in gone if not isinstance(action, Delete)] == [
        Relabel("Namespace", "", "default", {"a": None})
    ]


def test_who_needs_ports_of_nodes_is_alone() -> None:
    def with_(thing: Any) -> bool:
        return apart.alone(scenario(Apply(thing)))

    assert not with_(Pod("x", "a", ports=(ContainerPort(80),)))
    assert with_(Pod("x", "a", ports=(ContainerPort(80, host_port=80),)))
    assert with_(Pod("x", "a", ports=(ContainerPort(80),), host_network=True))
    assert with_(Service("x", "s", ports=(ServicePort(80, 80, node_port=30000),)))


def _take(directory: Path, alone: bool, inside: Any, go: Any) -> None:
    turns = apart.Turns(directory)
    with turns.take(alone=alone):
        inside.set()
        assert go.wait(60)
    turns.close()


def test_many_at_once_or_one_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    go, events = context.Event(), [context.Event() for _ in range(3)]
    workers = [
        context.Process(target=_take, args=(tmp_path, alone, event, go))
        for alone, event in zip((False, False, True), events, strict=True)
    ]
    for worker, event in zip(workers[:2], events[:2], strict=True):
        worker.start()
        assert event.wait(60)  # two at once
    workers[2].start()
    assert not events[2].wait(1)  # who wants to be alone waits for both
    go.set()
    assert events[2].wait(60)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


# -- what a cluster is -----------------------------------------------------------------------------


def survey(*nodes: str, control_planes: int = 0) -> Survey:
    return Survey("https://x", "1.36", nodes, control_planes, {}, frozenset(), 0, (), ())


def test_what_scenarios_call_the_nodes() -> None:
    kind = survey("k-control-plane", "k-worker", "k-worker2", control_planes=1)
    assert kind.aliases(3) == {
        "control-plane": "k-control-plane",
        "worker": "k-worker",
        "worker2": "k-worker2",
    }
    assert survey("a", "b").aliases(3) == {"worker": "a", "worker2": "b"}
    managed = {"control-plane": "a", "worker": "b", "worker2": "c"}
    assert survey("a", "b", "c", "d").aliases(3) == managed
    many = survey("m1", "m2", "m3", "w1", "w2", control_planes=3).aliases(5)
    assert many == {"control-plane": "m1", "worker": "w1", "worker2": "w2"}
    with pytest.raises(LabError, match="has 1 nodes that take pods, and two are needed"):
        survey("m", "w", control_planes=1).aliases(3)


def test_nodes_that_take_no_pods() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    node: dict[str, Any] = {"metadata": {"name": "n"}, "spec": {}, "status": {"conditions": ready}}
    assert _unfit(node) == ""
    assert _unfit({**node, "status": {}}) == "not Ready"
    assert _unfit({**node, "spec": {"unschedulable": True}}) == "cordoned"
    taints = [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]
    assert _unfit({**node, "spec": {"taints": taints}}) == "taint b"
    assert _unfit({**node, "metadata": {"labels": {"kubernetes.io/os": "windows"}}}) == "not Linux"


def test_what_runs_there_is_told_by_who_owns_the_pods() -> None:
    def pod(kind: str, name: str, **labels: str) -> dict[str, Any]:
        owner = {"kind": kind, "name": name}
        meta = {"namespace": "kube-system", "ownerReferences": [owner], "labels": labels}
        return {"metadata": meta}

    assert [*_owners(pod("DaemonSet", "canal"))] == [("DaemonSet", "kube-system", "canal")]
    made = pod("ReplicaSet", "coredns-7d764666f9", **{"pod-template-hash": "7d764666f9"})
    assert [*_owners(made)] == [("Deployment", "kube-system", "coredns")]
    assert [*_owners({"metadata": {"namespace": "x"}})] == []


@pytest.mark.parametrize(
    ("server", "context", "nodes", "namespaces", "pods", "says"),
    [
        ("https://127.0.0.1:6443", "kind-kind", 3, ["default", "shop"], 10, ""),
        ("https://127.0.0.1:6443", "product-dev", 3, ["delivery"], 10, ""),
        ("https://127.0.0.1:6443", "shop-prod", 3, [], 0, "its context is called shop-prod"),
        ("https://api.live.example.org", "x", 3, [], 0, "its server is called api.live"),
        ("https://x", "x", 3, ["a", "production"], 0, "it has a namespace production"),
        ("https://x", "x", 21, [], 0, "it has 21 nodes"),
        ("https://x", "x", 3, [], 101, "101 pods of others run on it"),
    ],
)
def test_what_looks_like_production(
    server: str, context: str, nodes: int, namespaces: list[str], pods: int, says: str
) -> None:
    running = [{"metadata": {"namespace": "shop"}}] * pods
    running += [{"metadata": {"namespace": "kube-system"}}] * 500
    told = "; ".join(_alarms(server, context, nodes, namespaces, running))
    assert told.startswith(says)
    assert bool(told) == bool(says)


# -- kubeconfigs, and what runs have left ----------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{", "[1, 2]", "contexts: 3", "apiVersion: v1", "\0", b"\xff\xfe"], ids=repr
)
def test_what_is_no_kubeconfig_is_told(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "config"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LabError, match=f"{file} cannot be used: ") as caught:
        connect(file)
    assert "\n" not in caught.value.message
    assert context_name(None, file) == ""


def test_what_runs_have_left_is_told_by_run(tmp_path: Path) -> None:
    """All pages of it, whatever is being deleted left out, by the server's clock; the kinds that
    the cluster has not leave nothing."""
    made = {"old": "2020-01-02T03:04:05Z", "new": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}

    def item(name: str, run: str, namespace: str = "", **more: Any) -> dict[str, Any]:
        labels = {RUN_LABEL: run, **more.pop("labels", {})}
        meta = {"name": name, "creationTimestamp": made[run], "labels": labels, **more}
        return {"metadata": {**meta, **({"namespace": namespace} if namespace else {})}}

    with api_server() as server:
        server.lists["/api/v1/namespaces"] = [
            *(item(f"np-old-{letter}", "old") for letter in "abcde"),
            item("np-new-x", "new", labels={KEPT_LABEL: "true"}),
            item("np-new-y", "new", deletionTimestamp=made["new"]),
        ]
        server.lists["/api/v1/pods"] = [
            item("p", "old", "np-old-a"),
            item("q", "old", "default"),
        ]
        old, new = leftovers(connect(server.write_kubeconfig(tmp_path / "config")))
    assert (old.run, old.gone, old.kept) == ("old", True, False)
    assert str(old) == (
        "namespaces np-old-a, np-old-b, np-old-c, … (5) and 1 objects in none of these"
    )
    assert f"{old.since:%Y-%m-%d %H:%M:%S}" == "2020-01-02 03:04:05"
    assert (new.run, new.gone, new.kept, new.namespaces) == ("new", False, True, ("np-new-x",))


def test_the_desk_tells_of_policies_that_the_model_does_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for a kind, in whatever versions it is served; not of kinds that there are none of."""
    with api_server() as server:
        pod = {"metadata": {"namespace": "x", "name": "a"}, "spec": {"containers": [{"name": "c"}]}}
        server.lists["/api/v1/pods"] = [pod]
        server.serve("cilium.io", "v2", "CiliumNetworkPolicy", "a", "b", "c")
        server.serve("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", "d")
        server.forbidden.add("/apis/crd.projectcalico.org/v1/globalnetworkpolicys")
        server.serve("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy")
        server.serve("apps.example.org", "v1", "App", "e")
        file = server.write_kubeconfig(tmp_path / "config")
        assert cli.main(["matrix", "--kubeconfig", str(file)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "cluster:shop: warning: kind: CiliumNetworkPolicy (cilium.io/v2) is left out: the model "
        "does not read it; 3 are there",
        "cluster:shop: warning: kind: GlobalNetworkPolicy (crd.projectcalico.org/v1) is left out: "
        "the model does not read it; they may not be listed",
    ]
