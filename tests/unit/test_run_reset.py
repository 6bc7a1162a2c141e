"""From one world to the next by the smallest difference."""

from __future__ import annotations

from harness.model.actions import Delete, Relabel
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
