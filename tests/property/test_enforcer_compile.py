"""The compiled form says what the oracle says, however its objects came."""

from __future__ import annotations

from enforcer_reading import PROFILE, compiled_for, objects_of, realistic, verdict
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NODES, cells_of, worlds

from harness.enforcer.compiler import Compiler
from harness.model.flow import Cell, EndpointKind, Verdict
from harness.model.oracle import expected
from harness.model.world import Namespace, Node, Pod, World


@given(st.booleans().flatmap(lambda c: worlds(with_cluster_policies=c)), st.sampled_from((4, 6)))
def test_compiled_rules_agree_with_the_oracle(world: World, family: int) -> None:
    world = realistic(world)
    compiled = {node: compiled_for(node, objects_of(world)) for node in NODES}
    cells = [
        cell
        for cell in cells_of(world, family=family)
        if cell.target.kind is not EndpointKind.SERVICE and not from_own_node(world, cell)
    ]
    judged = 0
    for cell, decision in expected(world, cells, PROFILE).items():
        if decision.verdict is not Verdict.UNDEFINED:
            judged += 1
            said = Verdict.ALLOW if verdict(world, compiled, cell) else Verdict.DENY
            assert said is decision.verdict, f"{cell}: {decision.text}"
    assert judged or not any(pod.live and pod.ips for pod in world.pods.values())


def from_own_node(world: World, cell: Cell) -> bool:
    """Is it a host-network pod that connects to a pod of its node? Nobody can tell it from the
    node itself, whose connections to its pods are always allowed; the oracle reads it otherwise."""
    if not cell.source.kind is cell.target.kind is EndpointKind.POD:
        return False
    source = world.pods[cell.source.namespace, cell.source.name]
    target = world.pods[cell.target.namespace, cell.target.name]
    return source.host_network and source.node == target.node


@given(st.data(), worlds(with_cluster_policies=True), worlds(with_cluster_policies=True))
def test_a_snapshot_does_not_depend_on_the_way_to_it(
    data: st.DataObject, before: World, after: World
) -> None:
    """From one world to another by single changes in any order, looked at now and then."""
    compiler = Compiler("n1")
    for thing in objects_of(before):
        compiler.put(thing)  # type: ignore[arg-type]
    compiler.snapshot()
    there, wanted = ({key_of(o): o for o in objects_of(w)} for w in (before, after))
    for key in data.draw(st.permutations(sorted({*there, *wanted}))):
        if key in wanted:
            compiler.put(wanted[key])  # type: ignore[arg-type]
        else:
            compiler.drop(*key)
        if data.draw(st.booleans()):
            compiler.snapshot()
    fresh = compiled_for("n1", objects_of(after))
    assert compiler.snapshot() == fresh


def key_of(thing: object) -> tuple[str, str, str]:
    namespace = "" if isinstance(thing, Namespace | Node) else getattr(thing, "namespace", "")
    return type(thing).__name__, namespace, thing.name  # type: ignore[attr-defined]


@given(worlds())
def test_what_did_not_change_is_the_same_object(world: World) -> None:
    compiler = Compiler("n1")
    for thing in objects_of(world):
        compiler.put(thing)  # type: ignore[arg-type]
    first = compiler.snapshot()
    for thing in objects_of(world):
        compiler.put(thing)  # type: ignore[arg-type]
    compiler.put(Pod("other", "new", node="n2", ips=("10.9.9.9",)))
    second = compiler.snapshot()
    assert second.pods is first.pods
    assert second.targets is first.targets
