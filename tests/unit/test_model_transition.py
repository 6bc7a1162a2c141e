"""What actions make of a world, and which are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.policy import NetworkPolicy
from harness.model.transition import ActionError, step
from harness.model.world import External, Namespace, Node, Phase, Pod, Service, World
from tests.unit.model_worlds import three_by_three, verdict, with_policies


def test_apply_creates_and_replaces() -> None:
    world = step(World(), Apply(Namespace("a", {"k": "1"})))
    world = step(world, Apply(Namespace("a", {"k": "2"})))
    assert world.namespaces["a"].labels == {"k": "2", "kubernetes.io/metadata.name": "a"}
    for thing in (
        Pod("a", "p"),
        Service("a", "s"),
        NetworkPolicy("a", "n"),
        Node("node"),
        External("e"),
    ):
        world = step(world, Apply(thing))
    assert (len(world.pods), len(world.services), len(world.policies)) == (1, 1, 1)
    assert (len(world.nodes), len(world.externals)) == (1, 1)


def test_the_old_world_never_changes() -> None:
    before = three_by_three()
    step(before, Delete("Namespace", "", "x"))
    step(before, Relabel("Pod", "x", "a", {"pod": "changed"}))
    assert before == three_by_three()


def test_a_namespace_takes_its_contents_with_it() -> None:
    world = with_policies(
        """
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: p, namespace: x}
        spec: {podSelector: {}}
        """
    )
    world = step(world, Delete("Namespace", "", "x"))
    assert {key[0] for key in world.pods} == {"y", "z"}
    assert {key[0] for key in world.services} == {"y", "z"}
    assert not world.policies


def test_a_node_takes_its_pods_with_it() -> None:
    world = step(three_by_three(), Delete("Node", "", "n2"))
    assert {key[1] for key in world.pods} == {"a", "b"}


def test_relabel_sets_and_takes_away() -> None:
    world = step(three_by_three(), Relabel("Pod", "x", "a", {"pod": None, "new": "1"}))
    assert world.pods["x", "a"].labels == {"new": "1"}
    assert world.pods["x", "a"].ips == ("10.0.0.1", "fd00::0:1")
    world = step(world, Relabel("Namespace", "", "x", {"ns": "other"}))
    assert world.namespaces["x"].labels["ns"] == "other"


def test_a_finished_pod_has_no_address_and_matches_nothing() -> None:
    world = step(three_by_three(), Finish("x", "a"))
    pod = world.pods["x", "a"]
    assert (pod.phase, pod.ips, pod.ready, pod.live) == (Phase.SUCCEEDED, (), False, False)
    assert verdict(world, "y/b -> x/a:80") == "undefined(not-running)"
    assert not world.backends(world.services["x", "svc"])


BUSY = three_by_three()
DONE = step(BUSY, Finish("x", "a", Phase.FAILED))

REFUSED: dict[str, tuple[World, Action, str]] = {
    "a pod of a namespace that is not there": (
        BUSY,
        Apply(Pod("nowhere", "p")),
        r"no namespace 'nowhere'.*Apply the Namespace first",
    ),
    "delete what is not there": (BUSY, Delete("Pod", "x", "q"), "no Pod x/q; there is: x/a, x/b"),
    "delete twice": (
        step(BUSY, Delete("Pod", "x", "a")),
        Delete("Pod", "x", "a"),
        "no Pod x/a",
    ),
    "delete an unknown kind": (BUSY, Delete("Deployment", "x", "a"), "'Deployment' is no kind"),
    "a namespace within a namespace": (
        BUSY,
        Delete("Namespace", "x", "y"),
        "lives in no namespace",
    ),
    "relabel who is not there": (BUSY, Relabel("Pod", "x", "q", {}), "no Pod x/q"),
    "relabel a namespace that is not there": (
        BUSY,
        Relabel("Namespace", "", "q", {}),
        "Namespace q",
    ),
    "relabel a Service": (BUSY, Relabel("Service", "x", "svc", {}), "only a Pod or a Namespace"),
    "rename a namespace by its label": (
        BUSY,
        Relabel("Namespace", "", "x", {"kubernetes.io/metadata.name": "y"}),
        "keeps it at the namespace's name",
    ),
    "take away a namespace's name label": (
        BUSY,
        Relabel("Namespace", "", "x", {"kubernetes.io/metadata.name": None}),
        "keeps it at the namespace's name",
    ),
    "finish who is not there": (BUSY, Finish("x", "q"), "no Pod x/q"),
    "finish twice": (DONE, Finish("x", "a"), "has finished already"),
    "finish as running": (BUSY, Finish("x", "a", Phase.RUNNING), "Succeeded or Failed"),
    "delete out of an empty world": (World(), Delete("Node", "", "n"), "there is: none at all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_actions(name: str) -> None:
    world, action, message = REFUSED[name]
    with pytest.raises(ActionError, match=message):
        step(world, action)


def test_the_namespaces_that_each_cluster_has_need_not_be_made() -> None:
    assert step(World(), Apply(Pod("kube-system", "p"))).pods


def test_the_verdict_follows_the_present_state() -> None:
    """Rule 12: relabelled pods and namespaces, deleted and replaced policies."""
    world = with_policies(
        """
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: p, namespace: x}
        spec:
          podSelector: {matchLabels: {pod: a}}
          ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]
        """
    )
    asked = "y/b -> x/a:80"
    assert verdict(world, asked) == "deny"
    assert verdict(step(world, Relabel("Namespace", "", "y", {"ns": "z"})), asked) == "allow"
    assert verdict(step(world, Relabel("Pod", "x", "a", {"pod": "free"})), asked) == "allow"
    assert verdict(step(world, Delete("NetworkPolicy", "x", "p")), asked) == "allow"
    policy = world.policies["x", "p"]
    assert verdict(step(world, Apply(replace(policy, ingress=()))), "z/a -> x/a:80") == "deny"
