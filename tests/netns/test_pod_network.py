"""The three rules of a pod network, on every fabric: nobody's address is rewritten on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.labs.netns.lab import NetnsLab
from harness.labs.server import NODE_SERVER_PORT
from harness.model.actions import Apply, Delete
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Namespace, Pod
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


def test_pods_echo(lab: NetnsLab) -> None:
    from harness.model.flow import Endpoint

    for family in (4, 6):
        argv = ["busybox", "ping", f"-{family}", "-c1", "-W2", address(lab, "net/far", family)]
        assert lab.exec(Endpoint.parse("net/one"), argv).code == 0


def test_addresses_come_out_of_the_nodes_pod_cidr(lab: NetnsLab) -> None:
    import ipaddress

    for name, node in PODS.items():
        cidrs = [ipaddress.ip_network(c) for c in lab.world.nodes[node].pod_cidrs]
        ips = [ipaddress.ip_address(a) for a in lab.world.pods["net", name].ips]
        assert len(ips) == 2
        assert all(address in cidr for address, cidr in zip(ips, cidrs, strict=True))
