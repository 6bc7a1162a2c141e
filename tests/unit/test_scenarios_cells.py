"""Cells: parsing them, and which ones a step asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.policy import Protocol
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
)
from harness.scenarios import worlds
from harness.scenarios.cells import CellError, cells, matches_cell, parse_cell
from harness.scenarios.features import FEATURES, needs, unknown
from harness.scenarios.presume import presume
from harness.scenarios.scenario import Probes, Scenario, Step

ALL = frozenset({"ipv4", "ipv6", "udp", "sctp", "dns", "node-client", "external"})
TCP80 = Probes()


def ask(world_name: str, probes: Probes, features: frozenset[str] = ALL) -> list[Cell]:
    return cells(presume(worlds.world(world_name)), probes, features)


@pytest.mark.parametrize(
    "text",
    [
        "x/a -> y/b:80/TCP",
        "x/a -> y/b:53/UDP",
        "x/a -> svc:y/b:80/TCP by service-ip",
        "x/a -> svc:y/b:80/TCP by service-name",
        "x/a -> node:worker:9100/TCP by node-ip",
        "node:worker -> x/a:80/TCP (IPv6)",
        "external:out -> node:worker:30080/TCP by node-port (IPv6)",
        "x/a -> external:out:443/TCP",
    ],
)
def test_the_text_of_a_cell_is_read_back(text: str) -> None:
    assert str(parse_cell(text)) == text


def test_what_may_be_left_out() -> None:
    short = parse_cell("x/a->svc:y/b:80")
    assert (short.protocol, short.via, short.family) == (Protocol.TCP, Via.SERVICE_IP, 4)


@pytest.mark.parametrize(
    "text", ["", "x/a -> y/b", "x/a y/b:80", "x -> y/b:80", "x/a -> y/b:0", "x/a -> y/b:80/X",
             "x/a -> y/b:80 by magic", "x/a -> y/b:99999"],
)  # fmt: skip
def test_what_is_no_cell(text: str) -> None:
    with pytest.raises(CellError):
        parse_cell(text)


def test_patterns_leave_out_ends_without_an_address_of_the_family() -> None:
    world = presume(worlds.world("pair"))
    six = External("six", ("2001:db8::1",), (ContainerPort(80),))
    world = world.with_(externals={**world.externals, "six": six})
    patterns = [
        parse_cell(f"{ends}:80{family}")
        for ends in ("external:* -> x/*", "x/* -> external:*")
        for family in ("", " (IPv6)")
    ]
    asked = cells(world, Probes(vias=(), extra=tuple(patterns)), ALL)
    assert {c.family for c in asked if "six" in (c.source.name, c.target.name)} == {6}
    assert {c.family for c in asked} == {4, 6}


def test_patterns() -> None:
    cell = parse_cell("x/a -> y/b:80")
    assert matches_cell(parse_cell("*/* -> y/*:80"), cell)
    assert not matches_cell(parse_cell("*/* -> y/*:81"), cell)
    assert not matches_cell(parse_cell("*/* -> z/*:80"), cell)
    assert not matches_cell(parse_cell("node:* -> y/b:80"), cell)


def test_every_pod_to_every_other() -> None:
    asked = ask("three-by-three", TCP80)
    assert len(asked) == 72
    assert len(set(asked)) == 72
    assert asked == ask("three-by-three", TCP80)
    assert all(c.source != c.target for c in asked)


def test_families_and_protocols_that_the_lab_lacks_are_not_asked() -> None:
    probes = Probes(ports=((80, Protocol.TCP), (80, Protocol.UDP)), families=(4, 6))
    assert len(ask("pair", probes)) == 8
    assert len(ask("pair", probes, frozenset({"ipv4", "udp"}))) == 4
    assert len(ask("pair", probes, frozenset({"ipv4"}))) == 2
    assert ask("pair", probes, frozenset()) == []


def test_targets_that_are_not_served_are_not_asked() -> None:
    assert ask("pair", Probes(ports=((90, Protocol.TCP),))) == []
    bare = worlds.world_of(pods=[Pod("q", "a"), Pod("q", "b")])
    assert len(cells(presume(bare), TCP80, ALL)) == 2  # nginx' own port


def test_clients_and_servers_and_pods_that_are_not_there() -> None:
    pods = [
        Pod("q", "client", workload=Workload.CLIENT),
        Pod("q", "server", workload=Workload.SERVER),
        Pod("q", "done", phase=Phase.SUCCEEDED),
        Pod("q", "pending", phase=Phase.PENDING),
        Pod("kube-system", "dns", workload=Workload.BOTH),
    ]
    world = presume(worlds.world_of(pods=pods))
    assert [str(c) for c in cells(world, TCP80, ALL)] == ["q/client -> q/server:80/TCP"]
    named = Probes(targets=(Endpoint.parse("kube-system/dns"),))
    assert [str(c) for c in cells(world, named, ALL)] == ["q/client -> kube-system/dns:80/TCP"]


def test_services_are_asked_at_their_own_ports() -> None:
    asked = ask("demo", Probes(vias=(Via.SERVICE_IP, Via.SERVICE_NAME)))
    assert {str(c.target) for c in asked} == {"svc:np-demo/nginx"}
    assert len(asked) == 2 * 4  # four clients
    assert ask("demo", Probes(vias=(Via.SERVICE_NAME,)), frozenset({"ipv4"})) == []


def test_a_headless_service_has_a_name_and_no_address() -> None:
    world = worlds.world_of(
        pods=[Pod("q", "a", {"app": "a"})],
        services=[Service("q", "a", {"app": "a"}, (ServicePort(80, 80),), headless=True)],
    )
    both = Probes(vias=(Via.SERVICE_IP, Via.SERVICE_NAME))
    assert [c.via for c in cells(presume(world), both, ALL)] == [Via.SERVICE_NAME]


def test_nodes_and_outside_hosts_are_asked_where_they_are_named() -> None:
    nodes = Probes(sources=(Endpoint.parse("node:*"),))
    asked = ask("pair", nodes)
    assert len(asked) == 3 * 2
    assert {c.source.kind for c in asked} == {EndpointKind.NODE}
    assert ask("pair", nodes, ALL - {"node-client"}) == []
    out = ask("pair", Probes(vias=(Via.EXTERNAL_IP,)))
    assert [str(c) for c in out] == [
        "x/a -> external:outside:80/TCP",
        "x/b -> external:outside:80/TCP",
    ]
    node_ip = Probes(ports=((9100, Protocol.TCP),), vias=(Via.NODE_IP,))
    assert len(ask("pair", node_ip)) == 6


def test_node_ports_and_host_ports() -> None:
    pod = Pod("q", "a", {"app": "a"}, ports=(ContainerPort(80, host_port=8080),), node="worker")
    service = Service(
        "q", "a", {"app": "a"}, (ServicePort(80, 80, node_port=30080),), type="NodePort"
    )
    world = presume(worlds.world_of(pods=[pod, Pod("q", "b")], services=[service]))
    sources = (Endpoint.parse("external:outside"),)
    asked = cells(world, Probes(vias=(Via.NODE_PORT,), sources=sources), ALL)
    assert sorted(f"{c.target}:{c.port}" for c in asked) == [
        "node:control-plane:30080",
        "node:worker2:30080",
        "node:worker:30080",
        "node:worker:8080",
    ]


def test_extra_cells_may_be_patterns() -> None:
    asked = ask("pair", Probes(vias=(), extra=(parse_cell("node:* -> x/*:81/UDP"),)))
    assert len(asked) == 6


def test_a_pattern_means_those_who_listen_and_not_the_system() -> None:
    world = worlds.world_of(
        pods=[
            Pod("q", "a", ports=(ContainerPort(80),)),
            Pod("q", "b", ports=(ContainerPort(81),)),
            Pod("kube-system", "dns", ports=(ContainerPort(80),)),
        ]
    )
    every = Probes(vias=(), extra=(parse_cell("*/* -> */*:80"),))
    assert [str(c) for c in cells(presume(world), every, ALL)] == ["q/b -> q/a:80/TCP"]
    literal = Probes(vias=(), extra=(parse_cell("q/b -> kube-system/dns:80"),))
    assert len(cells(presume(world), literal, ALL)) == 1


def test_every_label_has_a_line_and_unknown_ones_a_hint() -> None:
    assert all(FEATURES.values())
    assert unknown(["ingress", "named-port"]) is None
    assert "named-port" in (unknown(["name-port"]) or "")
    assert "known:" in (unknown(["zzzzzz"]) or "")


def test_labels_imply_what_the_lab_must_have() -> None:
    scenario = Scenario(
        "i", "t", "w", worlds.world("pair"), (Step("s"),),
        features=frozenset({"udp", "dual-stack", "ingress"}), requires=frozenset({"own"}),
    )  # fmt: skip
    assert needs(scenario) == {"udp", "ipv4", "ipv6", "own"}
    assert needs(replace(scenario, features=frozenset({"tcp"}))) == {"own"}


@pytest.mark.parametrize("name", worlds.names())
def test_named_worlds_stand(name: str) -> None:
    world = worlds.world(name)
    assert world.pods
    for namespace, _ in (*world.pods, *world.services):
        assert namespace in world.namespaces
    resolved = presume(world)
    ips = [ip for pod in resolved.pods.values() for ip in pod.ips]
    assert len(set(ips)) == len(ips) == 2 * len(world.pods)
    assert presume(resolved) == resolved


def test_a_pattern_finds_neither_the_lab_s_own_pods_nor_a_pod_itself() -> None:
    dns = Pod("kube-system", "coredns-0", ips=("10.244.0.2",))
    base = presume(worlds.world("two-by-two"))
    there = base.with_(
        namespaces={**base.namespaces, "kube-system": Namespace("kube-system")},
        pods={**base.pods, dns.key: dns},
    )
    nobody = (Endpoint.parse("x/a"),)
    asked = cells(
        there,
        Probes(sources=nobody, targets=nobody, extra=(parse_cell("x/b -> */*:80"),)),
        ALL,
    )
    assert {str(cell.target) for cell in asked} == {"x/a", "y/a", "y/b"}
