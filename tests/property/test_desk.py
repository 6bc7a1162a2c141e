"""The tools at the desk look at groups of pods and stretches of ports; one cell at a time, the
oracle says the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from harness.desk.assertions import Assertion, End, Port
from harness.desk.changes import compare
from harness.desk.outside import hosts_within, outside_hosts
from harness.desk.reach import matrix, with_hosts
from harness.desk.redundant import redundant
from harness.desk.verify import verify
from harness.model import cidr
from harness.model.fast import Reach
from harness.model.flow import Cell, Endpoint, EndpointKind, Verdict
from harness.model.oracle import decide
from harness.model.policy import IPBlock, LabelSelector, Protocol, Source
from harness.model.portsets import LAST_PORT
from harness.model.routing import absent
from harness.model.world import External, Pod, World
from tests.property.model_strategies import CIDRS, PORTS, cells_of, policies, worlds

full_worlds = worlds(with_cluster_policies=True)
some_ports = st.lists(
    st.one_of(st.sampled_from(PORTS), st.integers(1, LAST_PORT)), min_size=2, max_size=3
)


def live_pods(world: World, family: int = 4) -> list[Pod]:
    return [pod for pod in world.pods.values() if not absent(pod, family)]


def end(pod: Pod) -> Endpoint:
    return Endpoint(EndpointKind.POD, *pod.key)


@given(full_worlds, some_ports, st.sampled_from((4, 6)))
def test_the_matrix_says_what_the_oracle_says(world: World, ports: list[int], family: int) -> None:
    found = matrix(world, family=family)
    place = {member: i for i, group in enumerate(found.groups) for member in group.members}
    pods = live_pods(world, family)
    assert {end(pod) for pod in pods} == {m for m in place if m.kind is EndpointKind.POD}
    for one, two in product(pods, repeat=2):
        if one == two:
            continue
        i, j = place[end(one)], place[end(two)]
        for port, protocol in product(ports, Protocol):
            cell = Cell(end(one), end(two), port, protocol, family=family)
            assert found.cells[i, j].verdict(protocol, port) is decide(world, cell).verdict
        if found.cells[i, j].undefined:
            assert found.reason(i, j)


@given(full_worlds, st.sampled_from(CIDRS), st.integers(0, 2**20))
def test_outside_addresses_are_told_apart_as_policies_do(
    world: World, block: str, offset: int
) -> None:
    """An address anywhere near a range of the policies is as one of those that speak for all."""
    network = cidr.network(block)
    address = str(network.network_address + min(offset, network.num_addresses))
    family = cidr.family(address)
    hosts = outside_hosts(world, family=family)
    reach = Reach(with_hosts(world, [*hosts, External("probe", (address,))]), family)
    here = [end(pod) for pod in live_pods(world, family)]

    def said(name: str) -> list[object]:
        host = Endpoint(EndpointKind.EXTERNAL, "", name)
        return [(reach.connection(p, host), reach.connection(host, p)) for p in here]

    assert said("probe") in [said(host.name) for host in hosts]


@given(full_worlds, policies(), some_ports)
def test_a_diff_tells_every_cell_that_changes_and_no_other(
    old: World, policy: object, ports: list[int]
) -> None:
    new = old.with_(policies={**old.policies, policy.key: policy})  # type: ignore[attr-defined]
    told: dict[tuple[Endpoint, Endpoint, Protocol, int], Verdict] = {}
    changes = compare(old, new, 4)
    for verdict, found in zip(
        (Verdict.ALLOW, Verdict.DENY, Verdict.UNDEFINED),
        (changes.opened, changes.closed, changes.blurred),
        strict=True,
    ):
        for change in found:
            for a, b in product(change.source.members, change.target.members):
                for (protocol, first, last), port in product(change.ports, ports):
                    if a != b and first <= port <= last:
                        told[a, b, protocol, port] = verdict
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
    hosts = hosts_within(World(), IPBlock("192.0.2.0/24", ("192.0.2.0/25",)))
    assert [host.ips for host in hosts] == [("192.0.2.128",)]
