"""The three rules of a pod network, on every fabric: nobody's address is rewritten on the way."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.labs.netns.fabric import FABRICS, Fabric
from harness.labs.netns.lab import NetnsLab
from harness.labs.server import NODE_SERVER_PORT
from harness.model.actions import Apply, Delete
from harness.model.flow import Endpoint
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort
from tests.netns.asking import address, ask, ask_udp

PORTS = (
    ContainerPort(80),
    ContainerPort(8080),
    ContainerPort(8080, Protocol.UDP),
    ContainerPort(9090, container="sidecar"),
)
PODS = {"one": "worker", "two": "worker", "far": "worker2", "master": "control-plane"}
CLIENTS = [*(f"net/{name}" for name in PODS), "node:worker", "node:worker2", "external:outside"]


@pytest.fixture(scope="module")
def lab(dual_lab: NetnsLab) -> Iterator[NetnsLab]:
    pods = [Apply(Pod("net", name, node=node, ports=PORTS)) for name, node in PODS.items()]
    dual_lab.apply([Apply(Namespace("net")), *pods])
    yield dual_lab
    dual_lab.apply([Delete("Namespace", "", "net")])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_pod_is_reached_as_itself_and_sees_its_client_as_itself(
    lab: NetnsLab, client: str, family: int
) -> None:
    for target in ("net/one", "net/far"):
        reply = ask(lab, client, address(lab, target, family))
        assert (reply.name, reply.server, reply.client) == (
            target,
            address(lab, target, family),
            address(lab, client, family),
        ), reply


@pytest.mark.parametrize("family", [4, 6])
def test_pods_reach_nodes_and_outside_hosts_as_themselves(lab: NetnsLab, family: int) -> None:
    for target in ("node:worker", "node:worker2"):
        reply = ask(lab, "net/one", address(lab, target, family), NODE_SERVER_PORT)
        assert (reply.name, reply.client) == (target, address(lab, "net/one", family)), reply
    reply = ask(lab, "net/one", address(lab, "external:outside", family))
    assert (reply.name, reply.client) == ("external:outside", address(lab, "net/one", family))


@pytest.mark.parametrize("family", [4, 6])
def test_udp_is_answered_by_the_pod_that_was_asked(lab: NetnsLab, family: int) -> None:
    for target in ("net/two", "net/far"):
        reply = ask_udp(lab, "net/one", address(lab, target, family), 8080)
        assert (reply.name, reply.port, reply.client) == (
            target,
            8080,
            address(lab, "net/one", family),
        ), reply


def test_every_declared_port_listens_and_no_other(lab: NetnsLab) -> None:
    far = address(lab, "net/far")
    assert [ask(lab, "net/one", far, port).port for port in (80, 8080, 9090)] == [80, 8080, 9090]
    assert "refused" in ask(lab, "net/one", far, 81).error


def test_an_address_used_again_leads_to_its_new_pod_at_once(lab: NetnsLab) -> None:
    """Nobody sends to where the address was before: neighbour tables are warm, on purpose."""
    lab.apply([Apply(Pod("net", "old", node="worker"))])
    ips = lab.world.pods["net", "old"].ips
    for n in range(3):
        for client in CLIENTS:
            for ip in ips:
                assert ask(lab, client, ip).name == ("net/old" if n == 0 else f"net/new{n - 1}")
        gone = Delete("Pod", "net", "old" if n == 0 else f"new{n - 1}")
        lab.apply([gone, Apply(Pod("net", f"new{n}", node="worker", ips=ips))])
    lab.apply([Delete("Pod", "net", "new2")])


def test_pods_echo(lab: NetnsLab) -> None:
    for family in (4, 6):
        argv = ["busybox", "ping", f"-{family}", "-c1", "-W2", address(lab, "net/far", family)]
        done = lab.exec(Endpoint.parse("net/one"), argv)
        assert done.code == 0


def test_addresses_come_out_of_the_nodes_pod_cidr(lab: NetnsLab) -> None:
    for name, node in PODS.items():
        cidrs = [ipaddress.ip_network(c) for c in lab.world.nodes[node].pod_cidrs]
        ips = [ipaddress.ip_address(a) for a in lab.world.pods["net", name].ips]
        assert len(ips) == 2
        assert all(address in cidr for address, cidr in zip(ips, cidrs, strict=True))


@pytest.mark.parametrize("fabric", ["routed", "overlay", "bridged"])
def test_a_lab_of_ipv6_alone(make_lab: Any, fabric: str) -> None:
    lab = make_lab(fabric=fabric, families=(6,))
    pods = [Apply(Pod("six", name, {"a": "b"}, node=node)) for name, node in PODS.items()]
    service = Service("six", "s", {"a": "b"}, (ServicePort(80, 80),))
    lab.apply([Apply(Namespace("six")), *pods, Apply(service)])
    for client in ("six/one", "node:worker", "external:outside"):
        for name in PODS:
            reply = ask(lab, client, address(lab, f"six/{name}", 6))
            assert (reply.name, reply.client) == (f"six/{name}", address(lab, client, 6)), reply
    assert ask(lab, "six/one", "s").ok
    assert "4" not in str(lab.exec(Endpoint.parse("six/one"), ["ip", "-4", "route"]).out)


def test_interfaces_can_be_named_as_an_engine_wants_them(make_lab: Any) -> None:
    fabric = FABRICS["bridged"].named(bridge="weave", uplink="vethwe-bridge", prefix="vethwepl")
    lab = make_lab(fabric=fabric)
    lab.apply([Apply(Namespace("n")), Apply(Pod("n", "p", node="worker"))])
    links = lab.exec(Endpoint.parse("node:worker"), ["ip", "-o", "link"]).out
    for name in ("weave:", "vethwe-bridge@", "vethwepl"):
        assert name in links
    assert ask(lab, "node:worker2", address(lab, "n/p")).name == "n/p"
    routed = FABRICS["routed"]
    # sha1("default.web") begins with these digits.
    assert routed.link("default", "web") == "cali" + hashlib.sha1(b"default.web").hexdigest()[:11]


def test_nodes_of_any_number(make_lab: Any) -> None:
    for names in (("only",), tuple(f"n{i}" for i in range(6))):
        lab = make_lab(nodes=names, fabric="overlay")
        lab.apply([Apply(Namespace("n")), *(Apply(Pod("n", f"on-{x}", node=x)) for x in names)])
        for x in names:
            assert ask(lab, f"node:{names[0]}", address(lab, f"n/on-{x}")).name == f"n/on-{x}"


def test_a_cni_plugin_in_the_path_is_not_taken_for_iproute2(
    make_lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "bridge"
    plugin.write_text("#!/bin/sh\necho CNI bridge plugin v1.9.1 >&2\n")
    plugin.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab = make_lab(fabric="overlay")
    lab.apply([Apply(Namespace("n")), Apply(Pod("n", "p", node="worker"))])
    assert ask(lab, "node:worker2", address(lab, "n/p")).name == "n/p"


def test_routed_pods_over_vxlan(make_lab: Any) -> None:
    """As Canal has it: Calico's links on Flannel's overlay."""
    canal = Fabric("canal", pods="veth", nodes="vxlan")
    lab = make_lab(fabric=canal, families=(4, 6))
    pods = [Apply(Pod("c", name, node=node)) for name, node in PODS.items()]
    lab.apply([Apply(Namespace("c")), *pods])
    links = lab.exec(Endpoint.parse("node:worker"), ["ip", "-o", "link"]).out
    assert "flannel.1" in links
    assert canal.link("c", "one") in links
    for client in ("c/one", "node:worker", "external:outside"):
        for target in ("c/two", "c/far"):
            for family in (4, 6):
                reply = ask(lab, client, address(lab, target, family))
                assert (reply.name, reply.client) == (target, address(lab, client, family)), reply
