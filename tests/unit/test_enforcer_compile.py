"""Compile by example: what each rule of the specification becomes. The oracle is asked the same
of random worlds in tests/property; here the cases have names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from harness.enforcer import meaning
from harness.enforcer.compiled import ANY, Compiled, Ports, PortSpan, Row
from harness.enforcer.compiler import Compiler
from harness.model.policy import (
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
    Requirement,
    Rule,
)
from harness.model.world import ContainerPort, Namespace, Node, Phase, Pod

WEB = LabelSelector((("app", "web"),))
EVERYONE = LabelSelector()


def pod(name: str, ip: str = "", namespace: str = "x", node: str = "n", **more: Any) -> Pod:
    more.setdefault("labels", {"app": name})
    return Pod(namespace, name, node=node, ips=(ip,) if ip else (), **more)


def policy(name: str = "p", *ingress: Rule, **more: Any) -> NetworkPolicy:
    more.setdefault("namespace", "x")
    return NetworkPolicy(name=name, ingress=ingress, **more)


def compiled(*things: Any) -> Compiled:
    return compiler(things).snapshot()


def compiler(things: Iterable[Any]) -> Compiler:
    made = Compiler("n")
    for thing in things:
        made.put(thing)
    return made


def rows(found: Compiled, name: str, direction: Direction = Direction.INGRESS) -> list[Row]:
    way = found.pods["x", name].way(direction)
    assert way, "not isolated"
    return [row for target in way.targets or () for row in found.targets[target].values()]


def peers(found: Compiled, name: str) -> set[str]:
    """The addresses of the pods that may connect to a pod."""
    allowed: set[str] = set()
    for row in rows(found, name):
        assert row.peers is not ANY
        allowed |= found.pod_sets[row.peers.pods].v4 if row.peers.pods else set()
    return allowed


# Isolation


def test_a_pod_that_nothing_selects_is_open() -> None:
    found = compiled(pod("a", "10.0.0.1"), policy(namespace="y"))
    assert found.pods["x", "a"].ingress is None


def test_absent_policy_types_isolate_ingress_and_egress_only_with_a_rule() -> None:
    assert meaning.directions(policy()) == (Direction.INGRESS,)
    both = policy(egress=(Rule(),))
    assert meaning.directions(both) == (Direction.INGRESS, Direction.EGRESS)


def test_rules_of_a_direction_that_is_not_listed_do_nothing() -> None:
    only = policy(policy_types=(Direction.INGRESS,), egress=(Rule(),))
    assert compiled(pod("a", "10.0.0.1"), only).pods["x", "a"].egress is None


def test_no_rule_allows_nothing_and_an_empty_rule_everything() -> None:
    assert rows(compiled(pod("a", "10.0.0.1"), policy()), "a") == []
    (row,) = rows(compiled(pod("a", "10.0.0.1"), policy("p", Rule())), "a")
    assert (row.peers, row.ports) == (ANY, ANY)


def test_policies_that_select_the_same_pods_allow_their_union_in_one_row() -> None:
    one = policy("one", Rule((Peer(WEB),)))
    two = policy("two", Rule((Peer(LabelSelector((("app", "db"),))),)))
    found = compiled(pod("a", "10.0.0.1"), pod("web", "10.0.0.2"), pod("db", "10.0.0.3"), one, two)
    (row,) = rows(found, "a")
    assert row.origins == ("x/one ingress[0]", "x/two ingress[0]")
    assert peers(found, "a") == {"10.0.0.2", "10.0.0.3"}


def test_only_pods_of_this_node_are_looked_after() -> None:
    found = compiled(pod("a", "10.0.0.1", node="elsewhere"), policy())
    assert found.pods == {}
    assert found.targets == {}


# Peers


def test_a_pod_selector_means_the_policys_own_namespace() -> None:
    found = compiled(
        pod("a", "10.0.0.1"),
        pod("web", "10.0.0.2"),
        pod("web", "10.0.0.3", namespace="y"),
        policy("p", Rule((Peer(WEB),))),
    )
    assert peers(found, "a") == {"10.0.0.2"}


def test_both_selectors_in_one_peer_are_anded() -> None:
    space = LabelSelector((("team", "red"),))
    found = compiled(
        Namespace("y", {"team": "red"}),
        pod("a", "10.0.0.1"),
        pod("web", "10.0.0.2"),
        pod("web", "10.0.0.3", namespace="y"),
        pod("db", "10.0.0.4", namespace="y"),
        policy("p", Rule((Peer(WEB, space),))),
    )
    assert peers(found, "a") == {"10.0.0.3"}


def test_every_namespace_has_its_name_for_a_label() -> None:
    space = LabelSelector((("kubernetes.io/metadata.name", "y"),))
    found = compiled(
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2", namespace="y"),  # whose Namespace was never seen
        policy("p", Rule((Peer(None, space),))),
    )
    assert peers(found, "a") == {"10.0.0.2"}


def test_a_namespace_that_is_relabelled_takes_its_pods_along() -> None:
    space = LabelSelector((("team", "red"),))
    made = compiler(
        [
            Namespace("y", {"team": "blue"}),
            pod("a", "10.0.0.1"),
            pod("b", "10.0.0.2", namespace="y"),
            policy("p", Rule((Peer(None, space),))),
        ]
    )
    assert peers(made.snapshot(), "a") == set()
    made.put(Namespace("y", {"team": "red"}))
    assert peers(made.snapshot(), "a") == {"10.0.0.2"}
    made.drop("Namespace", "", "y")
    assert peers(made.snapshot(), "a") == set()


@pytest.mark.parametrize(
    ("requirement", "labels", "holds"),
    [
        (Requirement("k", Operator.NOT_IN, ("v",)), {}, True),
        (Requirement("k", Operator.NOT_IN, ("v",)), {"k": "v"}, False),
        (Requirement("k", Operator.IN, ("", "v")), {}, False),
        (Requirement("k", Operator.IN, ("", "v")), {"k": ""}, True),
        (Requirement("k", Operator.EXISTS), {"k": ""}, True),
        (Requirement("k", Operator.DOES_NOT_EXIST), {"k": ""}, False),
    ],
)
def test_requirements(requirement: Requirement, labels: dict[str, str], holds: bool) -> None:
    assert meaning.requirement_holds(requirement, labels) is holds


def test_an_empty_value_asks_for_the_key() -> None:
    assert not meaning.selects(LabelSelector((("k", ""),)), {})


@pytest.mark.parametrize(
    "odd",
    [
        pod("web", "10.0.0.2", host_network=True),
        pod("web", "10.0.0.2", phase=Phase.SUCCEEDED),
        pod("web", "10.0.0.2", phase=Phase.FAILED),
        pod("web"),
    ],
)
def test_pods_that_no_selector_finds(odd: Pod) -> None:
    found = compiled(pod("a", "10.0.0.1"), odd, policy("p", Rule((Peer(WEB),))))
    assert peers(found, "a") == set()
    assert ("x", "web") not in found.pods


def test_a_finished_pods_address_can_be_anothers() -> None:
    made = compiler([pod("a", "10.0.0.1"), pod("web", "10.0.0.2"), policy("p", Rule((Peer(WEB),)))])
    made.snapshot()
    made.put(pod("web", "10.0.0.2", phase=Phase.SUCCEEDED))
    made.put(pod("db", "10.0.0.2"))
    found = made.snapshot()
    assert peers(found, "a") == set()
    assert found.pods["x", "db"].addresses == ("10.0.0.2",)


# ipBlocks


def blocks(*written: IPBlock) -> tuple[str, ...]:
    from harness.enforcer import ranges

    found = meaning.blocks(Peer(ip_block=one) for one in written)
    return ranges.prefixes(found.v4, 4) + ranges.prefixes(found.v6, 6)


def test_except_subtracts_within_its_own_peer_only() -> None:
    wide = IPBlock("10.0.0.0/24", ("10.0.0.0/25",))
    assert blocks(wide) == ("10.0.0.128/25",)
    narrow = IPBlock("10.0.0.1/32")
    for order in ((wide, narrow), (narrow, wide)):
        assert blocks(*order) == ("10.0.0.1/32", "10.0.0.128/25")


def test_overlapping_blocks_in_either_order() -> None:
    one, two = IPBlock("10.0.0.0/24", ("10.0.0.64/26",)), IPBlock("10.0.0.64/27")
    assert blocks(one, two) == blocks(two, one)
    assert blocks(one, two) == ("10.0.0.0/26", "10.0.0.64/27", "10.0.0.128/25")


def test_families_are_kept_apart() -> None:
    assert blocks(IPBlock("::/0"), IPBlock("10.0.0.0/8")) == ("10.0.0.0/8", "::/1", "8000::/1")


def test_a_block_that_is_none_is_reported_and_allows_nothing() -> None:
    made = compiler(
        [
            pod("a", "10.0.0.1"),
            policy("bad", Rule((Peer(ip_block=IPBlock("10.0.0.0/33")),)), Rule((Peer(WEB),))),
            policy("good", Rule((Peer(WEB),), (PolicyPort(port=80),))),
        ]
    )
    found = made.snapshot()
    assert {row.origins for row in rows(found, "a")} == {
        ("x/bad ingress[1]",),
        ("x/good ingress[0]",),
    }
    assert list(made.problems) == ["NetworkPolicy x/bad"]
    assert "ingress[0]" in made.problems["NetworkPolicy x/bad"][0]
    made.put(policy("bad", Rule((Peer(WEB),))))
    assert made.problems == {}


# Ports


def ports(*written: PolicyPort) -> Ports:
    found = meaning.ports(written)
    assert found is not ANY
    return found  # type: ignore[return-value]


def test_no_ports_is_every_port_of_every_protocol() -> None:
    assert meaning.ports(()) is ANY


def test_a_protocol_alone_is_all_of_it() -> None:
    assert ports(PolicyPort(Protocol.UDP)).spans == (PortSpan(Protocol.UDP, 0, 65535),)
    everything = ports(PolicyPort(Protocol.UDP), PolicyPort(Protocol.UDP, 53))
    assert everything.spans == (PortSpan(Protocol.UDP, 0, 65535),)


def test_ranges_include_both_ends_and_join() -> None:
    found = ports(PolicyPort(port=80, end_port=90), PolicyPort(port=91), PolicyPort(port=93))
    assert found.spans == (PortSpan(Protocol.TCP, 80, 91), PortSpan(Protocol.TCP, 93, 93))


@pytest.mark.parametrize("wrong", [PolicyPort(port=90, end_port=80), PolicyPort(end_port=80)])
def test_ranges_without_meaning(wrong: PolicyPort) -> None:
    with pytest.raises(meaning.UnclearError):
        meaning.span(wrong)


def test_a_name_is_resolved_by_each_destination_with_its_protocol() -> None:
    found = compiled(
        pod("a", "10.0.0.1", ports=(ContainerPort(80, Protocol.TCP, "http"),)),
        pod("b", "10.0.0.2", ports=(ContainerPort(8080, Protocol.TCP, "http", "sidecar"),)),
        pod("c", "10.0.0.3", ports=(ContainerPort(90, Protocol.UDP, "http"),)),
        policy("p", Rule((), (PolicyPort(port="http"),))),
    )
    doors = found.named_ports[Protocol.TCP, "http"]
    assert doors.v4 == {("10.0.0.1", 80), ("10.0.0.2", 8080)}


def test_a_pod_that_changes_its_names_changes_the_doors() -> None:
    made = compiler(
        [
            pod("a", "10.0.0.1", ports=(ContainerPort(80, Protocol.TCP, "http"),)),
            policy("p", Rule((), (PolicyPort(port="http"),))),
        ]
    )
    made.snapshot()
    made.put(pod("a", "10.0.0.1", ports=(ContainerPort(81, Protocol.TCP, "http"),)))
    assert made.snapshot().named_ports[Protocol.TCP, "http"].v4 == {("10.0.0.1", 81)}


# The rest


def test_the_nodes_own_prefixes_are_guarded() -> None:
    made = compiler([Node("n", pod_cidrs=("10.0.0.0/24",)), Node("m", pod_cidrs=("10.0.1.0/24",))])
    assert made.snapshot().guarded == ("10.0.0.0/24",)


def test_addresses_in_other_spellings_are_the_same() -> None:
    found = compiled(pod("a", "10.0.0.1"), pod("web", "FD00:0::1"), policy("p", Rule((Peer(WEB),))))
    assert set(found.pods["x", "web"].addresses) == {"fd00::1"}


def test_an_update_to_no_rules_takes_the_old_away() -> None:
    made = compiler([pod("a", "10.0.0.1"), policy("p", Rule())])
    made.snapshot()
    made.put(policy("p"))
    assert rows(made.snapshot(), "a") == []


def test_what_nothing_speaks_of_is_forgotten() -> None:
    one = policy("p", Rule((Peer(WEB),), (PolicyPort(port="http"),)))
    made = compiler([pod("a", "10.0.0.1"), pod("web", "10.0.0.2"), one])
    assert made.snapshot().pod_sets
    made.drop("NetworkPolicy", "x", "p")
    found = made.snapshot()
    assert (found.targets, found.pod_sets, found.named_ports) == ({}, {}, {})
    assert found.pods["x", "a"].ingress is None
