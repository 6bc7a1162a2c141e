"""What old policies become in v1 allows what they allowed, and nothing else."""

from __future__ import annotations

import json
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from harness.model.flow import Cell, Endpoint, EndpointKind, Verdict
from harness.model.legacy import ANNOTATION, LegacyPolicy, LegacyRule, allowed, convert
from harness.model.oracle import Oracle
from harness.model.policy import NetworkPolicy, Peer, PolicyPort, Protocol
from harness.model.world import Namespace, World
from tests.property.model_strategies import (
    NAMESPACES,
    PORT_NAMES,
    PORTS,
    labels,
    namespace_selectors,
    selectors,
    worlds,
)

peers = st.one_of(st.builds(Peer, selectors), st.builds(Peer, st.none(), namespace_selectors))
ports = st.builds(
    PolicyPort,
    st.sampled_from((Protocol.TCP, Protocol.UDP)),
    st.one_of(st.none(), st.sampled_from(PORTS), st.sampled_from(PORT_NAMES)),
)
rules = st.builds(
    LegacyRule,
    st.one_of(st.none(), st.lists(peers, max_size=2).map(tuple)),
    st.one_of(st.none(), st.lists(ports, max_size=2).map(tuple)),
)
policies = st.builds(
    LegacyPolicy,
    st.sampled_from(NAMESPACES),
    st.sampled_from(("p", "q", "default-deny")),
    selectors,
    st.lists(rules, max_size=2).map(tuple),
)
isolation = json.dumps({"ingress": {"isolation": "DefaultDeny"}})


@given(
    worlds(ordinary=True, max_policies=0),
    st.lists(policies, max_size=4, unique_by=lambda p: p.key),
    st.dictionaries(st.sampled_from(NAMESPACES), st.tuples(labels, st.booleans())),
)
def test_the_v1_equivalent_means_the_same(
    world: World, old: list[LegacyPolicy], made: dict[str, tuple[dict[str, str], bool]]
) -> None:
    namespaces = {
        name: Namespace(name, own, {ANNOTATION: isolation} if shut else {})
        for name, (own, shut) in made.items()
    }
    before = world.with_(namespaces=namespaces)
    converted = convert([*namespaces.values(), *old])
    new = [thing for thing in converted.objects if isinstance(thing, NetworkPolicy)]
    assert len({policy.key for policy in new}) == len(new)
    oracle = Oracle(before.with_(policies={policy.key: policy for policy in new}))
    for (one, a), (two, b) in product(world.pods.items(), repeat=2):
        if one == two:
            continue
        for port, protocol in product(PORTS, (Protocol.TCP, Protocol.UDP)):
            cell = Cell(
                Endpoint(EndpointKind.POD, *one), Endpoint(EndpointKind.POD, *two), port, protocol
            )
            said = oracle.decide(cell).verdict
            was = allowed(before, old, a, b, port, protocol)
            assert said is (Verdict.ALLOW if was else Verdict.DENY), cell
