"""From one world to the next by the smallest difference."""

from __future__ import annotations

from harness.model.actions import Delete, Relabel
from harness.model.policy import NetworkPolicy
from harness.model.world import Namespace, Pod, World
from harness.run.reset import changes


def test_a_namespace_that_every_cluster_has_is_emptied_and_stays() -> None:
    there = World(
        namespaces={"default": Namespace("default", {"a": "b"}), "x": Namespace("x")},
        pods={("default", "p"): Pod("default", "p"), ("x", "q"): Pod("x", "q")},
    )
    assert changes(there, World()) == [
        Delete("Namespace", "", "x"),
        Delete("Pod", "default", "p"),
        Relabel("Namespace", "", "default", {"a": None}),
    ]


def test_what_was_put_into_a_namespace_of_the_lab_s_own_goes() -> None:
    there = World(policies={("kube-system", "p"): NetworkPolicy("kube-system", "p")})
    assert changes(there, World()) == [Delete("NetworkPolicy", "kube-system", "p")]
