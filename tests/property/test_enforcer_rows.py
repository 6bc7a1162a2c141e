"""What both data planes make of a target's rows: the same however the rows came, and what they say.

Few rows and many by turns, so that chains are cut into pages, get a map of ports, and go back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.enforcer import names
from harness.enforcer.compiled import (
    ANY,
    Anything,
    Blocks,
    Compiled,
    LocalPod,
    Peers,
    PodQuery,
    Ports,
    PortSpan,
    Row,
    Rows,
    Target,
    Way,
)
from harness.enforcer.iptables import pages
from harness.enforcer.iptables.render import Renderer as Iptables
from harness.enforcer.meaning import join_spans
from harness.enforcer.nftables import portmap
from harness.enforcer.nftables.render import Renderer as Nftables
from harness.enforcer.ruleset import Ruleset
from harness.model.policy import Direction, LabelSelector, Protocol

TARGET = Target(Direction.INGRESS, PodQuery("x", LabelSelector()))
WAY = Way((), (TARGET,), ())
SOMEBODY = PodQuery("x", LabelSelector((("app", "web"),)))
NUMBERS = (1, 79, 80, 81, 90, 443, 65535)

spans = st.builds(
    lambda protocol, first, more: PortSpan(protocol, first, min(first + more, 65535)),
    st.sampled_from((Protocol.TCP, Protocol.UDP)),
    st.sampled_from(NUMBERS),
    st.sampled_from((0, 0, 1, 10)),
)
ports = st.one_of(
    st.just(ANY),
    st.builds(
        Ports,
        st.lists(spans, max_size=3).map(join_spans),
        st.sampled_from(((), ((Protocol.TCP, "http"),))),
    ),
)
peers = st.sampled_from(
    (
        ANY,
        Peers(frozenset({SOMEBODY}), Blocks((), ())),
        Peers(frozenset(), Blocks(((1, 5), (9, 9)), ((1, 5),))),
        Peers(frozenset({SOMEBODY}), Blocks(((7, 7),), ())),
    )
)


def rows_of(found: Mapping[Ports | Anything, Peers | Anything]) -> Rows:
    return {
        names.of_ports(ports): Row(peers, ports, (f"x/{names.of_ports(ports)} ingress[0]",))
        for ports, peers in found.items()
    }


rows = st.dictionaries(ports, peers, max_size=12).map(rows_of)


def snapshot(rows: Rows, addresses: tuple[str, ...] = ("10.0.0.1", "fd00::1")) -> Compiled:
    return Compiled(pods={("x", "a"): LocalPod(addresses, WAY, None)}, targets={TARGET: rows})


@pytest.mark.parametrize(
    "renderer",
    [
        lambda: Iptables(4, "NPa4-"),
        lambda: Iptables(6, "NPa6-"),
        lambda: Nftables(4),
        lambda: Nftables(6),
    ],
)
@given(turns=st.lists(rows, min_size=1, max_size=5))
def test_what_is_rendered_does_not_depend_on_what_was(
    renderer: Callable[[], Callable[[Compiled], Ruleset]], turns: list[Rows]
) -> None:
    with mock.patch.object(pages, "PAGE", 6), mock.patch.object(portmap, "FEW", 3):
        goes_on = renderer()
        there: Rows = {}
        for wanted in turns:
            # rows that stay the same are the same objects, as the compiler has it
            there = {k: there[k] if there.get(k) == row else row for k, row in wanted.items()}
            found, fresh = goes_on(snapshot(there)), renderer()(snapshot(there))
            assert found == fresh
            assert list(found.chains)[-1:] == list(fresh.chains)[-1:]


@given(turns=st.lists(rows, min_size=1, max_size=4))
def test_a_map_of_ports_leads_to_the_peers_that_may_use_each(turns: list[Rows]) -> None:
    render = portmap.Render(
        rules=lambda row: (f"all of {row.origins[0]} at {row.ports}",),
        peers=lambda row: row.origins,
        sets=lambda _: {},
    )
    with mock.patch.object(portmap, "FEW", 0):
        target = portmap.PortMap("chain", render)
        for wanted in turns:
            target.turn(wanted)
            for protocol in (Protocol.TCP, Protocol.UDP):
                for port in {*NUMBERS, 2, 82, 100}:
                    said = set(reached(target.ruleset, protocol, port))
                    assert said == {
                        row.origins[0]
                        for row in wanted.values()
                        if isinstance(row.ports, Ports)
                        for span in row.ports.spans
                        if span.protocol is protocol and span.first <= port <= span.last
                    }


def reached(ruleset: Ruleset, protocol: Protocol, port: int) -> list[str]:
    """The rules of the chains that a port leads to."""
    found: list[str] = []
    for name, made in ruleset.sets.items():
        assert f"meta l4proto . th dport vmap @{name}" in ruleset.chains["chain"]
        hits = []
        for element in made.elements:
            match = re.fullmatch(r"(\w+) \. (\d+)(?:-(\d+))? : jump (\S+)", element)
            assert match, element
            first, last = int(match[2]), int(match[3] or match[2])
            if match[1] == protocol.lower() and first <= port <= last:
                hits.append(match[4])
        assert len(hits) <= 1, "elements of a map overlap"
        found += [rule for chain in hits for rule in ruleset.chains[chain]]
    return found


@given(wanted=rows, more=ports, peers=peers)
def test_one_row_more_changes_one_page(wanted: Rows, more: Ports | Anything, peers: Peers) -> None:
    with mock.patch.object(pages, "PAGE", 6):
        renderer = Iptables(4, "NPa4-")
        before = renderer(snapshot(wanted))
        after = renderer(snapshot({**wanted, **rows_of({more: peers})}))
    if len(before.chains) != len(after.chains):
        return  # another number of pages
    differ = [name for name, rules in after.chains.items() if before.chains.get(name) != rules]
    assert len(differ) <= 1


def test_a_family_that_no_pod_of_the_node_has_needs_no_rules_of_policies() -> None:
    one = rows_of({ANY: ANY})
    for renderer in (Iptables(6, "NPa6-"), Nftables(6)):
        without = renderer(snapshot(one, ("10.0.0.1",)))
        assert without == renderer(Compiled())
        assert renderer(snapshot(one)) != without
