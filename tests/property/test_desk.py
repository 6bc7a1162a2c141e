"""The tools at the desk look at groups of pods and stretches of ports; one cell at a time, the
oracle says the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from harness.desk.assertions import Assertion, End, Port
from harness.desk.changes import compare
from harness.desk.groups import Group
from harness.desk.outside import outside_groups
from harness.desk.reach import LAST_PORT, Reach, matrix
from harness.desk.redundant import redundant
from harness.desk.verify import verify
from harness.model import cidr
from harness.model.flow import Cell, Endpoint, EndpointKind, Verdict
from harness.model.oracle import decide
from harness.model.policy import IPBlock, LabelSelector, Protocol, Source
from harness.model.routing import absent
from harness.model.world import External, Pod, World
from tests.property.model_strategies import CIDRS, PORTS, cells_of, policies, worlds

full_worlds = worlds(with_cluster_policies=True)
some_ports = st.lists(
    st.one_of(st.sampled_from(PORTS), st.integers(1, LAST_PORT)), min_size=2, max_size=3
)


def live_pods(world: World) -> list[Pod]:
    return [pod for pod in world.pods.values() if not absent(pod, family_of(pod))]


def family_of(pod: Pod) -> int:
    return cidr.family(pod.ips[0]) if pod.ips else 4


def end(pod: Pod) -> Endpoint:
    return Endpoint(EndpointKind.POD, *pod.key)


@given(full_worlds, some_ports)
def test_the_matrix_says_what_the_oracle_says(world: World, ports: list[int]) -> None:
    found = matrix(world)
    place = {member: i for i, group in enumerate(found.groups) for member in group.members}
    assert {end(pod) for pod in live_pods(world)} == {
        member for member in place if member.kind is EndpointKind.POD
    }
    for one, two in product(live_pods(world), repeat=2):
        if one == two:
            continue
        connection = found.cells[place[end(one)], place[end(two)]]
        for port, protocol in product(ports, Protocol):
            said = decide(world, Cell(end(one), end(two), port, protocol))
            assert connection.at(protocol, port).verdict is said.verdict


@given(full_worlds, st.sampled_from(CIDRS), st.integers(0, 2**20), some_ports)
def test_outside_addresses_are_told_apart_as_policies_do(
    world: World, block: str, offset: int, ports: list[int]
) -> None:
    """An address anywhere near a range of the policies is in the group that speaks for it."""
    network = cidr.network(block)
    address = str(network.network_address + min(offset, network.num_addresses))
    groups, hosts = outside_groups(world)
    if cidr.family(address) == 6 and len({cidr.family(host.ips[0]) for host in hosts}) == 1:
        return  # nobody speaks of IPv6 here
    probe = External("probe", (address,))
    reach = Reach(world, outside=[*hosts, probe])
    mine = Group("probe", (Endpoint(EndpointKind.EXTERNAL, "", "probe"),))
    alike = [
        group
        for group, host in zip(groups, hosts, strict=True)
        if cidr.family(host.ips[0]) == cidr.family(address)
    ]
    for pod in live_pods(world):
        here = Group("", (end(pod),))
        answers = [
            [reach.connection(here, out) for out in (mine, *alike)],
            [reach.connection(out, here) for out in (mine, *alike)],
        ]
        said = [
            tuple(
                row[i].at(protocol, port).verdict  # type: ignore[union-attr]
                for row in answers
                for port, protocol in product(ports, Protocol)
            )
            for i in range(len(alike) + 1)
        ]
        assert said[0] in said[1:]


@given(full_worlds, policies(), some_ports)
def test_a_diff_tells_every_cell_that_changes_and_no_other(
    old: World, policy: object, ports: list[int]
) -> None:
    new = old.with_(policies={**old.policies, policy.key: policy})  # type: ignore[attr-defined]
    told: dict[tuple[Endpoint, Endpoint, Protocol, int], Verdict] = {}
    changes = compare(old, new)
    for verdict, found in zip(
        (Verdict.ALLOW, Verdict.DENY, Verdict.UNDEFINED),
        (changes.opened, changes.closed, changes.blurred),
        strict=True,
    ):
        for change in found:
            for a, b in product(change.source.members, change.target.members):
                for stretch, port in product(change.stretches, ports):
                    if a != b and stretch.first <= port <= stretch.last:
                        told[a, b, stretch.protocol, port] = verdict
    for one, two in product(live_pods(old), repeat=2):
        if one == two:
            continue
        for port, protocol in product(ports, Protocol):
            cell = Cell(end(one), end(two), port, protocol)
            was, now = decide(old, cell).verdict, decide(new, cell).verdict
            key = (end(one), end(two), protocol, port)
            assert told.get(key) is (None if was is now else now)


@given(worlds(), st.sampled_from(PORTS), st.sampled_from([Verdict.ALLOW, Verdict.DENY]))
def test_an_assertion_holds_iff_it_does_for_every_pair(
    world: World, port: int, expect: Verdict
) -> None:
    where = Source("a.yaml", 1)
    anyone = End(LabelSelector())
    assertion = Assertion("all", anyone, anyone, expect, (Port(port, Protocol.TCP),), "", where)
    [result] = verify(world, [assertion])
    pairs = [(a, b) for a, b in product(live_pods(world), repeat=2) if a != b]
    wrong = [
        (a, b) for a, b in pairs if decide(world, Cell(end(a), end(b), port)).verdict is not expect
    ]
    assert result.holds == (bool(pairs) and not wrong)
    if result.counter is not None:
        cell = Cell(result.counter.source, result.counter.target, port)
        assert decide(world, cell).verdict is result.counter.decision.verdict is not expect


@given(worlds(max_policies=6))
def test_a_redundant_policy_can_be_taken_away(world: World) -> None:
    """All that are told may go at once, and no verdict changes."""
    gone = {policy.key for policy, _ in redundant(list(world.policies.values()))}
    less = world.with_(policies={k: p for k, p in world.policies.items() if k not in gone})
    for cell in cells_of(world):
        assert decide(less, cell).verdict is decide(world, cell).verdict


@given(policies(), policies())
def test_of_two_equal_policies_one_is_redundant(policy: object, other: object) -> None:
    twin = replace(policy, name="twin")  # type: ignore[type-var]
    assert [p for p, _ in redundant([policy, twin])] == [twin]  # type: ignore[list-item]


def test_a_block_of_its_own_range() -> None:
    world = World()
    groups, hosts = outside_groups(world, within=IPBlock("192.0.2.0/24", ("192.0.2.0/25",)))
    assert [host.ips for host in hosts] == [("192.0.2.128",)]
    assert [group.name for group in groups] == ["192.0.2.128"]
