"""Random policies on a real kernel: every cell of the matrix against the oracle, on both planes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onenode import Enforcer, OneNode

sys.path.append(str(Path(__file__).parents[1] / "property"))

from enforcer_reading import PROFILE
from model_strategies import PORTS, cluster_policies, labels, policies

from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.flow import Cell, Decision, Endpoint, EndpointKind, Verdict, Via
from harness.model.manifest import to_manifest
from harness.model.oracle import expected
from harness.model.policy import Direction, NetworkPolicy, Protocol
from harness.model.world import ContainerPort, External, Namespace, Node, Pod, World

NODE, OTHER = "n1", "n2"
NAMED = (
    ContainerPort(80, Protocol.TCP, "http"),
    ContainerPort(81, Protocol.TCP, "web", container="sidecar"),
    ContainerPort(80, Protocol.UDP, "dns"),
)
SWAPPED = (ContainerPort(81, Protocol.TCP, "http"), ContainerPort(80, Protocol.TCP, "web"))
PODS = [
    Pod("x", "a", {"app": "web"}, NODE, ("10.0.0.1", "fd00::1:1"), NAMED),
    Pod("x", "b", {"app": "db", "tier": ""}, NODE, ("10.0.0.2", "fd00::1:2"), SWAPPED),
    Pod("y", "a", {"app": "web", "tier": "web"}, NODE, ("10.0.0.5", "fd00::1:5"), NAMED),
    Pod("z", "c", {}, NODE, ("10.0.0.6", "fd00::1:6")),
    Pod("x", "c", {"tier": "db"}, OTHER, ("10.1.0.1", "fd00::2:1"), SWAPPED),
    Pod("y", "b", {"app": "web"}, OTHER, ("10.1.0.2", "fd00::2:2"), NAMED),
]
WORLD = World(
    namespaces={name: Namespace(name, {"tier": name}) for name in ("x", "y", "z")},
    pods={pod.key: pod for pod in PODS},
    nodes={NODE: Node(NODE, ("192.168.0.1", "fd01::1"), labels={"app": "web"})},
    externals={"e": External("e", ("203.0.113.9", "2001:db8::9"))},
)


@pytest.fixture(scope="module")
def node() -> Iterator[OneNode]:
    with OneNode(WORLD.nodes[NODE].ips) as node:
        for pod in PODS:
            node.add(f"{pod.namespace}-{pod.name}", *pod.ips, tcp=PORTS[:2], udp=PORTS[:2])
        node.add("e", *WORLD.externals["e"].ips, tcp=PORTS[:2], udp=PORTS[:2])
        yield node


@pytest.fixture(scope="module", params=["iptables", "iptables-legacy", "nftables"])
def enforcer(node: OneNode, request: pytest.FixtureRequest) -> Iterator[Enforcer]:
    plane, _, variant = request.param.partition("-")
    options = ["--iptables", variant] if variant else []
    with Enforcer(node, plane, *options, name=NODE) as enforcer:
        enforcer.sync(*objects(WORLD))
        yield enforcer
    node.run(sys.executable, "-m", "harness.enforcer", "clean", "--dataplane", plane, *options)


def objects(world: World) -> list[dict[str, object]]:
    things = [*world.namespaces.values(), *world.nodes.values(), *world.pods.values()]
    return [to_manifest(thing) for thing in (*things, *world.policies.values())]


ENDS = [
    *((Endpoint(EndpointKind.POD, *p.key), f"{p.namespace}-{p.name}", p.ips) for p in PODS),
    (Endpoint(EndpointKind.NODE, "", NODE), "", WORLD.nodes[NODE].ips),
    (Endpoint(EndpointKind.EXTERNAL, "", "e"), "e", WORLD.externals["e"].ips),
]
VIA = {EndpointKind.NODE: Via.NODE_IP, EndpointKind.EXTERNAL: Via.EXTERNAL_IP}
#: cell, client's endpoint, address to dial
CELLS = [
    (Cell(source, target, port, protocol, VIA.get(target.kind, Via.POD_IP), family), client, ip)
    for family in (4, 6)
    for source, client, _ in ENDS
    for target, _, ips in ENDS
    for ip in ips
    if source != target and (":" in ip) == (family == 6)
    for port in PORTS[:2]
    for protocol in (Protocol.TCP, Protocol.UDP)
]


@settings(
    max_examples=12,
    phases=[Phase.generate],  # a failing example takes seconds: it is shown as it is
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(policies(), min_size=1, max_size=4, unique_by=lambda p: p.key),
    st.lists(cluster_policies, max_size=2, unique_by=(lambda p: p.name, lambda p: p.priority)),
    st.dictionaries(st.sampled_from([pod.key for pod in PODS]), labels, max_size=2),
)
def test_matrix(
    node: OneNode,
    enforcer: Enforcer,
    found: list[NetworkPolicy],
    cluster: list[ClusterNetworkPolicy],
    relabelled: dict[tuple[str, str], dict[str, str]],
) -> None:
    pods = {**WORLD.pods}
    for key, changed in relabelled.items():
        pods[key] = replace(pods[key], labels=changed)
    world = WORLD.with_(
        pods=pods,
        policies={policy.key: policy for policy in found},
        cluster_policies={policy.name: policy for policy in cluster},
    )
    manifests = [to_manifest(policy) for policy in (*found, *cluster)]
    enforcer.put(*(to_manifest(pods[key]) for key in relabelled), *manifests)
    try:
        decisions = expected(world, [cell for cell, _, _ in CELLS], PROFILE)
        hopes = [enforced(cell, decisions[cell]) for cell, _, _ in CELLS]
        seen = node.probe(
            [(client, address, c.protocol.lower(), c.port) for c, client, address in CELLS],
            hopes=hopes,
        )
        wrong = [
            f"{cell}: {'leak' if got else 'outage'}: {decisions[cell].text}"
            for (cell, _, _), hoped, got in zip(CELLS, hopes, seen, strict=True)
            if got != hoped
        ]
        assert not wrong, wrong
    finally:
        enforcer.drop(*manifests)
        enforcer.put(*(to_manifest(WORLD.pods[key]) for key in relabelled))


def enforced(cell: Cell, decision: Decision) -> bool:
    """What this one node lets through: a pod elsewhere is looked after by its own node."""
    ours = {
        Direction.EGRESS: local(cell.source),
        Direction.INGRESS: local(cell.target),
    }
    halves = [b for b in decision.because if ours[b.direction]]
    assert all(half.verdict is not Verdict.UNDEFINED for half in halves), decision
    return all(half.verdict is Verdict.ALLOW for half in halves)


def local(end: Endpoint) -> bool:
    return end.kind is EndpointKind.POD and WORLD.pods[end.namespace, end.name].node == NODE
