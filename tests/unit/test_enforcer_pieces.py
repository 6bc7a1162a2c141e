"""The small parts of the enforcer: ranges, names, claims, intake, dispatch, segments, changes."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest

from harness.enforcer import names, ranges
from harness.enforcer.claims import Claims
from harness.enforcer.compiled import ANY, PodQuery, Ports, PortSpan, Row, Target, Way
from harness.enforcer.compiler import Compiler
from harness.enforcer.intake import Intake
from harness.enforcer.iptables import plane as iptables_plane
from harness.enforcer.iptables.dispatch import FEW, tree
from harness.enforcer.iptables.render import MULTIPORT, port_lists
from harness.enforcer.nftables.segments import segments
from harness.enforcer.ruleset import KernelSet, Ruleset, change, pieces
from harness.model.policy import Direction, LabelSelector, Protocol

X, Y = ("x", "a"), ("y", "b")


# Ranges


def network(text: str) -> ranges.Range:
    return ranges.of_network(text)[1]


def test_host_bits_are_dropped() -> None:
    assert ranges.of_network("10.1.2.3/8") == ranges.of_network("10.0.0.0/8")


def test_what_is_left_without_the_holes() -> None:
    left = ranges.minus(network("10.0.0.0/30"), [network("10.0.0.1/32"), network("10.0.0.3/32")])
    assert ranges.prefixes(left, 4) == ("10.0.0.0/32", "10.0.0.2/32")


@pytest.mark.parametrize("holes", [["10.0.0.0/8"], ["0.0.0.0/0"], ["10.0.0.0/9", "10.128.0.0/9"]])
def test_nothing_is_left(holes: list[str]) -> None:
    assert ranges.minus(network("10.0.0.0/8"), map(network, holes)) == ()


def test_holes_may_overlap_and_lie_outside() -> None:
    holes = [network(c) for c in ("10.0.0.0/24", "10.0.0.128/25", "11.0.0.0/8")]
    left = ranges.minus(network("10.0.0.0/23"), holes)
    assert ranges.prefixes(left, 4) == ("10.0.1.0/24",)


def test_everything_never_becomes_a_prefix_of_length_zero() -> None:
    assert ranges.prefixes([network("0.0.0.0/0")], 4) == ("0.0.0.0/1", "128.0.0.0/1")
    assert ranges.prefixes([network("::/0")], 6) == ("::/1", "8000::/1")


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "2001:db8::1/128"])
def test_prefixes_say_the_same_as_the_range(cidr: str) -> None:
    family, span = ranges.of_network(cidr)
    assert ranges.prefixes([span], family) == (str(ipaddress.ip_network(cidr)),)


# Names


def test_comments_that_differ_only_past_the_limit_differ() -> None:
    long = "a" * 300
    one, two = names.comment(f"{long}1", 128), names.comment(f"{long}2", 128)
    assert one != two
    assert len(one) == len(two) == 128


def test_a_comment_can_break_no_line_and_no_quote() -> None:
    assert names.comment('a"b\\c\nd\x00é', 50) == "a?b?c?d??"


def test_names_are_short_enough_for_the_kernel() -> None:
    query = PodQuery("n" * 63, LabelSelector(tuple((f"{'k' * 300}{i}", "v") for i in range(9))))
    way = Way((), (Target(Direction.INGRESS, query),), ())
    chain = f"NPa4-{names.class_chain(Direction.INGRESS, way)}"
    assert len(chain) <= 28
    assert len(f"NPa4-{names.pod_set(frozenset({query}))}") <= 31


def test_names_do_not_depend_on_the_order_of_a_set() -> None:
    queries = [PodQuery("x", LabelSelector((("app", str(i)),))) for i in range(20)]
    assert names.pod_set(frozenset(queries)) == names.pod_set(frozenset(reversed(queries)))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (PodQuery("x", LabelSelector()), PodQuery(LabelSelector((("x", ""),)), LabelSelector())),
        (
            PodQuery("x", LabelSelector((("a", "b,c"),))),
            PodQuery("x", LabelSelector((("a", "b"), ("c", "")))),
        ),
        (PodQuery("x-y", LabelSelector()), PodQuery("x", LabelSelector((("y", ""),)))),
    ],
)
def test_queries_that_differ_have_names_that_differ(one: PodQuery, two: PodQuery) -> None:
    assert names.of_query(one) != names.of_query(two)


# Claims


def test_an_address_goes_to_the_last_that_began_to_claim_it() -> None:
    claims = Claims()
    claims.claim(X, ("10.0.0.1",))
    assert claims.claim(Y, ("10.0.0.1",)) == {X, Y}
    assert claims.of(X) == ()
    assert claims.of(Y) == ("10.0.0.1",)


def test_a_late_event_of_the_old_owner_does_not_take_it_back() -> None:
    claims = Claims()
    claims.claim(X, ("10.0.0.1",), uid="1")
    claims.claim(Y, ("10.0.0.1",), uid="2")
    assert claims.claim(X, ("10.0.0.1",), uid="1") == set()
    assert claims.of(Y) == ("10.0.0.1",)


def test_what_the_new_owner_leaves_goes_back_to_whoever_claims_it() -> None:
    claims = Claims()
    claims.claim(X, ("10.0.0.1",))
    claims.claim(Y, ("10.0.0.1",))
    assert claims.claim(Y, ()) == {X, Y}
    assert claims.of(X) == ("10.0.0.1",)


def test_a_pod_that_is_being_deleted_yields_to_one_that_is_not() -> None:
    claims = Claims()
    claims.claim(X, ("10.0.0.1",))
    claims.claim(Y, ("10.0.0.1",))
    claims.claim(Y, ("10.0.0.1",), leaving=True)
    assert claims.of(X) == ("10.0.0.1",)


def test_another_pod_of_the_same_name_claims_anew() -> None:
    claims = Claims()
    claims.claim(X, ("10.0.0.1",), uid="1")
    claims.claim(Y, ("10.0.0.1",), uid="2")
    claims.claim(X, ("10.0.0.1",), uid="3")
    assert claims.of(X) == ("10.0.0.1",)


# Intake


def pod(name: str, uid: str = "", version: str = "", **labels: str) -> dict[str, Any]:
    metadata = {"namespace": "x", "name": name, "labels": labels, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "resourceVersion": version},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
    }


@pytest.fixture
def compiler() -> Compiler:
    return Compiler("n")


@pytest.fixture
def intake(compiler: Compiler) -> Intake:
    return Intake(compiler)


def test_an_older_event_is_left_out(intake: Intake, compiler: Compiler) -> None:
    intake.take("ADDED", pod("a", "1", "9", app="new"))
    intake.take("MODIFIED", pod("a", "1", "8", app="old"))
    assert compiler._pods["x", "a"].labels == {"app": "new"}


def test_versions_are_compared_as_numbers(intake: Intake, compiler: Compiler) -> None:
    intake.take("ADDED", pod("a", "1", "9", app="old"))
    intake.take("MODIFIED", pod("a", "1", "10", app="new"))
    assert compiler._pods["x", "a"].labels == {"app": "new"}


def test_an_event_after_the_end_is_left_out(intake: Intake, compiler: Compiler) -> None:
    intake.take("ADDED", pod("a", "1", "9"))
    intake.take("DELETED", pod("a", "1", "11"))
    intake.take("MODIFIED", pod("a", "1", "10"))
    assert compiler.snapshot().pods == {}


def test_the_end_of_a_predecessor_does_not_end_the_successor(
    intake: Intake, compiler: Compiler
) -> None:
    intake.take("ADDED", pod("a", "1", "9"))
    intake.take("ADDED", pod("a", "2", "12"))
    intake.take("DELETED", pod("a", "1", "11"))
    assert set(compiler.snapshot().pods) == {("x", "a")}


def test_doubled_events_change_nothing(intake: Intake, compiler: Compiler) -> None:
    intake.take("ADDED", pod("a", "1", "9"))
    first = compiler.snapshot()
    intake.take("ADDED", pod("a", "1", "9"))
    second = compiler.snapshot()
    assert second.pods is first.pods
    intake.take("DELETED", pod("a", "1", "9"))
    intake.take("DELETED", pod("a", "1", "9"))
    assert compiler.snapshot().pods == {}


def test_an_object_that_cannot_be_read_is_named(intake: Intake) -> None:
    broken = {"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "spec": {"ingress": 1}}
    problem = intake.take("ADDED", {**broken, "metadata": {"namespace": "x", "name": "p"}})
    assert "NetworkPolicy x/p" in problem
    assert "ingress" in problem


@pytest.mark.parametrize("metadata", [None, [], "x"])
def test_an_object_without_metadata_is_no_crash(intake: Intake, metadata: object) -> None:
    assert intake.take("ADDED", {"kind": "Pod", "metadata": metadata}) == "a Pod without metadata"


def test_other_kinds_are_ignored(intake: Intake) -> None:
    assert intake.take("ADDED", {"kind": "Secret"}) == ""


# Dispatch


def follow(chains: dict[str, tuple[str, ...]], root: str, address: str) -> tuple[str, int]:
    """Where a packet to an address ends, and how many rules it met on the way."""
    met, chain = 0, root
    while True:
        for rule in chains[chain]:
            met += 1
            flag, prefix, *_, goal = rule.split()
            assert flag == "-d"
            if ipaddress.ip_address(address) in ipaddress.ip_network(prefix):
                break
        else:
            return "", met
        if goal not in chains:
            return goal, met
        chain = goal


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, 100, 253])
@pytest.mark.parametrize("base", ["10.244.3.0", "fd00:10:244:3::"])
def test_every_address_finds_its_chain_in_few_steps(base: str, count: int) -> None:
    first = ipaddress.ip_address(base)
    addresses = [str(first + i + 2) for i in range(count)]
    leaves = {a: f"-d {a} -g pod-{i}" for i, a in enumerate(addresses)}
    chains = tree(leaves, first.version, "-d", "root", "branch-")
    for i, address in enumerate(addresses):
        goal, met = follow(chains, "root", address)
        assert goal == f"pod-{i}"
        assert met <= 34  # two digits of sixteen values, and a leaf
    for other in (str(first + count + 2), str(first + 1)):
        assert follow(chains, "root", other)[0] == ""


def test_scattered_addresses_are_found_as_well() -> None:
    addresses = [str(ipaddress.ip_address(i * 2654435761 % 2**32)) for i in range(1, 300)]
    leaves = {address: f"-d {address} -g {address}" for address in addresses}
    chains = tree(leaves, 4, "-d", "root", "branch-")
    assert all(follow(chains, "root", address)[0] == address for address in addresses)


def test_one_address_more_changes_one_branch() -> None:
    leaves = {f"10.0.0.{i}": f"-d 10.0.0.{i} -g p{i}" for i in range(1, 100)}
    more = {**leaves, "10.0.0.200": "-d 10.0.0.200 -g p200"}
    before, after = (tree(some, 4, "-d", "root", "b-") for some in (leaves, more))
    differ = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert len(differ) == 1


# Ports


def test_a_multiport_match_holds_fifteen_numbers_and_a_range_is_two() -> None:
    spans = [PortSpan(Protocol.TCP, 2 * i, 2 * i) for i in range(1, 17)]
    assert [len(words) for words in port_lists(spans)] == [15, 1]
    spans = [PortSpan(Protocol.TCP, 10 * i, 10 * i + 5) for i in range(1, 9)]
    lists = list(port_lists(spans))
    assert [len(words) for words in lists] == [7, 1]
    assert all(sum(1 + (":" in word) for word in words) <= MULTIPORT for words in lists)


def row(name: str, *spans: tuple[int, int], protocol: Protocol = Protocol.TCP) -> Row:
    ports = Ports(tuple(PortSpan(protocol, first, last) for first, last in spans), ())
    return Row(ANY, ports, (name,))


def test_segments_cover_each_row_exactly() -> None:
    rows = [
        row("a", (80, 80), (443, 443)),
        row("b", (70, 90)),
        row("c", (90, 100)),
        row("d", (80, 80), protocol=Protocol.UDP),
        row("e", (0, 65535)),
    ]
    found = list(segments(rows))
    for name in "abcde":
        for protocol in Protocol:
            for port in (0, 69, 70, 79, 80, 81, 90, 91, 100, 101, 442, 443, 444, 65535):
                said = [
                    name in {one.origins[0] for one in held}
                    for span, held in found
                    if span.protocol is protocol and span.first <= port <= span.last
                ]
                assert len(said) <= 1, "segments overlap"
                truth = any(
                    span.protocol is protocol and span.first <= port <= span.last
                    for one in rows
                    if one.origins == (name,)
                    for span in one.ports.spans  # type: ignore[union-attr]
                )
                assert (said == [True]) == truth, (name, protocol, port)


# Changes


def test_a_change_holds_only_what_differs() -> None:
    same = KernelSet("hash:ip", frozenset({"1"}))
    old = Ruleset(
        {"same": same, "grows": KernelSet("t", frozenset({"1", "2"})), "goes": same},
        {"same": ("a",), "other": ("b",), "goes": ("c",)},
    )
    new = Ruleset(
        {"same": same, "grows": KernelSet("t", frozenset({"2", "3"})), "comes": same},
        {"same": ("a",), "other": ("b", "c"), "comes": ("d",)},
    )
    found = change(old, new)
    assert found.new_sets == {"comes": same}
    assert (found.taken, found.given) == ({"grows": {"1"}}, {"grows": {"3"}})
    assert found.gone_sets == {"goes": same}
    assert found.new_chains == {"comes": ("d",)}
    assert found.changed_chains == {"other": ("b", "c")}
    assert found.gone_chains == ("goes",)
    assert not change(new, new)


def test_pieces_keep_order_and_weight() -> None:
    cut = list(pieces([5, 5, 1, 20, 3], 10, lambda n: n))
    assert cut == [[5, 5], [1], [20], [3]]


def test_lines_of_iptables_are_weighed_at_least_as_heavy_as_they_are() -> None:
    """Measured: so many bytes each took of the 425,952 that one transaction may have."""
    measured = {
        "-j B": 328,
        "-s 10.0.0.1 -g B": 520,
        '-s 10.0.0.1 ! -d 10.0.0.1 -m comment --comment "ns/pod" -g B': 1322,
        "-m set --match-set s src -g B": 505,
        "-p tcp -m multiport --dports 80,443 -g B": 681,
        "-p tcp -m multiport --dports 80 -m set --match-set s src "
        '-m comment --comment "a" -g B': 1468,
        "-m mark --mark 0x1000/0x1000 -j RETURN": 609,
    }
    for rule, size in measured.items():
        assert size <= iptables_plane.weigh(f"-A chain {rule}") <= 1.5 * size, rule


def test_only_names_of_ours_are_stale() -> None:
    found = ["NPa4-in", "NPb6-x", "NETPOL", "KUBE-NPa4-", "NP-x", "INPUT", "NPb4-y"]
    assert iptables_plane.stale(found, {"a"}) == ["NPb6-x", "NPb4-y"]
    assert re.match(iptables_plane.OURS, "NPa4-in")
