"""The fast path comes to the oracle's verdicts: in any world, for any port, and after changes."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from harness.model.fast import Reach
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.oracle import Oracle
from harness.model.policy import NetworkPolicy, Protocol
from harness.model.profile import READINGS
from harness.model.world import World
from tests.property.model_strategies import PORTS, policies, worlds

any_world = worlds(with_cluster_policies=True, unknown_addresses=True)
profiles = st.fixed_dictionaries(
    {}, optional={reason: st.sampled_from(readings) for reason, readings in READINGS.items()}
)
ports = st.lists(
    st.one_of(st.sampled_from((*PORTS, 82, 500)), st.integers(1, 65535)), min_size=1, max_size=3
)


def cells(world: World, reach: Reach, family: int, asked: list[int]) -> list[Cell]:
    del world
    return [
        Cell(source, target, port, protocol, via(target), family)
        for source, target in product(reach.points.index, repeat=2)
        for port in asked
        for protocol in Protocol
    ]


def via(target: Endpoint) -> Via:
    return Via.EXTERNAL_IP if target.kind is EndpointKind.EXTERNAL else Via.POD_IP


@given(any_world, st.sampled_from((4, 6)), profiles, ports)
def test_the_fast_path_says_what_the_oracle_says(
    world: World, family: int, profile: dict[str, str], asked: list[int]
) -> None:
    reach, oracle = Reach(world, family, profile), Oracle(world, profile)
    table = reach.table()
    place = {end: i for i, group in enumerate(table.groups) for end in group}
    assert place.keys() == reach.points.index.keys()
    for cell in cells(world, reach, family, asked):
        if cell.source == cell.target and cell.source.kind is EndpointKind.EXTERNAL:
            continue
        said = oracle.decide(cell)
        fast = reach.verdict(cell.source, cell.target, cell.port, cell.protocol)
        assert fast is said.verdict, f"{cell}: {said.text}"
        if cell.source != cell.target:
            shared = table.connection(place[cell.source], place[cell.target])
            assert shared.verdict(cell.protocol, cell.port) is said.verdict, cell


@given(any_world, st.lists(policies(), min_size=1, max_size=3), st.data())
def test_after_changes_it_is_as_if_it_had_been_so_from_the_start(
    world: World, changes: list[NetworkPolicy], data: st.DataObject
) -> None:
    reach = Reach(world)
    before = _all(reach)
    changed = reach
    for policy in changes:
        if changed.world.policies and data.draw(st.booleans()):
            changed = changed.without_policy(
                *data.draw(st.sampled_from(sorted(changed.world.policies)))
            )
        _all(changed)
        changed = changed.with_policy(policy)
    assert _all(changed) == _all(Reach(changed.world))
    assert _all(reach) == before
    after = _all(changed)
    assert {change[:2]: change[2:] for change in reach.changes(changed)} == {
        pair: (said, after[pair]) for pair, said in before.items() if after[pair] != said
    }
    assert _all(reach.with_policy(changes[0])) == _all(
        Reach(world.with_(policies={**world.policies, changes[0].key: changes[0]}))
    )


def _all(reach: Reach) -> dict[tuple[Endpoint, Endpoint], object]:
    return {
        (source, target): reach.connection(source, target)
        for source, target in product(reach.points.index, repeat=2)
        if source != target
    }
