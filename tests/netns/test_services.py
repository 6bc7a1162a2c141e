"""Services and names of the embedded lab, on every fabric: as kube-proxy and CoreDNS have them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from harness.labs.netns import services
from harness.labs.netns.lab import NetnsLab
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply, Delete, Relabel
from harness.model.flow import Endpoint
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort
from tests.netns.asking import address, ask, ask_udp

WEB = {"app": "web"}
A = Pod(
    "svc",
    "a",
    WEB,
    node="worker",
    ports=(
        ContainerPort(80, name="http"),
        ContainerPort(8080, host_port=18080),
        ContainerPort(5353, Protocol.UDP),
    ),
)
B = Pod(
    "svc",
    "b",
    WEB,
    node="worker2",
    ports=(ContainerPort(81, name="http"), ContainerPort(5353, Protocol.UDP)),
)
CLIENT = Pod("svc", "client", node="worker")
PORTS = (ServicePort(80, "http"), ServicePort(53, 5353, Protocol.UDP, "udp"))
NODE_PORT = 30080
LOCAL_PORT = 30081
SERVICES = (
    Service("svc", "web", WEB, PORTS),
    Service("svc", "direct", WEB, (ServicePort(80, 80),), headless=True),
    Service("svc", "nobody", {"app": "none"}, PORTS),
    Service("svc", "np", WEB, (ServicePort(80, "http", node_port=NODE_PORT),), type="NodePort"),
    Service(
        "svc",
        "local",
        WEB,
        (ServicePort(80, "http", node_port=LOCAL_PORT),),
        type="NodePort",
        external_traffic_policy="Local",
    ),
)


@pytest.fixture(scope="module")
def lab(dual_lab: NetnsLab) -> Iterator[NetnsLab]:
    things = [Namespace("svc"), A, B, CLIENT, *SERVICES]
    dual_lab.apply([Apply(thing) for thing in things])
    yield dual_lab
    dual_lab.apply([Delete("Namespace", "", "svc")])


def answering(lab: NetnsLab, client: str, host: str, port: int = 80, tries: int = 16) -> set[str]:
    return {ask(lab, client, host, port).name for _ in range(tries)}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("client", ["svc/client", "svc/a", "node:worker", "node:control-plane"])
def test_a_cluster_ip_leads_to_every_ready_pod(lab: NetnsLab, client: str, family: int) -> None:
    # Sixteen tries: both of two backends are met but for one run in 32,768; a pod reaches itself.
    found = answering(lab, client, address(lab, "svc:svc/web", family))
    assert found <= {"svc/a", "svc/b"}
    assert len(found) == 2, found


@pytest.mark.parametrize("family", [4, 6])
def test_the_clients_own_address_is_kept(lab: NetnsLab, family: int) -> None:
    reply = ask(lab, "svc/client", address(lab, "svc:svc/web", family))
    assert reply.client == address(lab, "svc/client", family)


@pytest.mark.parametrize("family", [4, 6])
def test_udp_through_a_service(lab: NetnsLab, family: int) -> None:
    reply = ask_udp(lab, "svc/client", address(lab, "svc:svc/web", family), 53)
    assert (reply.name in {"svc/a", "svc/b"}, reply.port) == (True, 5353), reply


@pytest.mark.parametrize("family", [4, 6])
def test_a_service_without_backends_refuses(lab: NetnsLab, family: int) -> None:
    reply = ask(lab, "svc/client", address(lab, "svc:svc/nobody", family), seconds=5)
    assert "refused" in reply.error


@pytest.mark.parametrize("name", ["web", "web.svc", "web.svc.svc.cluster.local"])
def test_names_are_resolved_along_the_search_path(lab: NetnsLab, name: str) -> None:
    assert ask(lab, "svc/client", name).ok


def test_a_headless_name_gives_the_pods_themselves(lab: NetnsLab) -> None:
    done = lab.exec(
        Endpoint.parse("svc/client"),
        ["busybox", "nslookup", "direct.svc.svc.cluster.local"],
    )
    for pod in ("a", "b"):
        for family in (4, 6):
            assert address(lab, f"svc/{pod}", family) in done.out


def test_a_name_that_nobody_has_does_not_exist(lab: NetnsLab) -> None:
    for name in ("missing", "missing.svc", "example.com"):
        assert "bad address" in ask(lab, "svc/client", name).error


def test_the_dns_server_is_part_of_the_world(lab: NetnsLab) -> None:
    world = lab.resolve(lab.world)
    service = world.services["kube-system", "kube-dns"]
    (server,) = world.backends(service)
    assert server.labels["k8s-app"] == "kube-dns"
    assert address(lab, f"svc:{service}") == "10.96.0.10"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("client", ["external:outside", "svc/client", "node:worker2"])
def test_a_node_port_answers_on_every_node(lab: NetnsLab, client: str, family: int) -> None:
    for node in lab.node_names:
        host = address(lab, f"node:{node}", family)
        reply = ask(lab, client, host, NODE_PORT)
        assert reply.name in {"svc/a", "svc/b"}, (node, reply)


@pytest.mark.parametrize("family", [4, 6])
def test_a_local_node_port_keeps_the_source_and_the_node(lab: NetnsLab, family: int) -> None:
    own = address(lab, "external:outside", family)
    for node, pod in (("worker", "svc/a"), ("worker2", "svc/b")):
        for _ in range(3):
            reply = ask(lab, "external:outside", address(lab, f"node:{node}", family), LOCAL_PORT)
            assert (reply.name, reply.client) == (pod, own)
    nowhere = address(lab, "node:control-plane", family)
    silent = ask(lab, "external:outside", nowhere, LOCAL_PORT, seconds=0.7)
    assert "exit" in silent.error  # dropped, not refused
    # From the node's own pods every backend can be had.
    host = address(lab, "node:worker", family)
    assert answering(lab, "svc/client", host, LOCAL_PORT) == {"svc/a", "svc/b"}


@pytest.mark.parametrize("family", [4, 6])
def test_a_host_port_is_its_own_nodes(lab: NetnsLab, family: int) -> None:
    for client in ("external:outside", "svc/b"):
        reply = ask(lab, client, address(lab, "node:worker", family), 18080)
        assert (reply.name, reply.port, reply.client) == (
            "svc/a",
            8080,
            address(lab, client, family),
        )
    assert "refused" in ask(lab, "svc/b", address(lab, "node:worker2", family), 18080).error


def test_backends_follow_labels_readiness_and_lives(lab: NetnsLab) -> None:
    host = address(lab, "svc:svc/web")
    try:
        lab.apply([Relabel("Pod", "svc", "a", {"app": None})])
        assert answering(lab, "svc/client", host, tries=8) == {"svc/b"}
        assert ask(lab, "svc/client", "direct").name == ""  # b does not listen on 80
        lab.apply([Delete("Pod", "svc", "b"), Relabel("Pod", "svc", "a", {"app": "web"})])
        assert answering(lab, "svc/client", host, tries=8) == {"svc/a"}
        assert ask(lab, "svc/client", "direct").name == "svc/a"
    finally:
        lab.apply([Apply(A), Apply(B)])
    assert answering(lab, "svc/client", host) == {"svc/a", "svc/b"}


def test_rules_changed_step_by_step_are_as_if_made_at_once(lab: NetnsLab) -> None:
    """Random worlds, one after the other, in a node; each time the table as a new one would be."""
    dice = random.Random(20170701)
    lab.holder.make([{"name": name, "hostname": name} for name in ("steps", "fresh")])
    before: services.Rules | None = None
    try:
        for _ in range(12):
            after = services.rules(_random_world(lab, dice), "worker", (4, 6))
            for piece in services.commands(before, after):
                lab.topology.run("steps", ["nft", "-f", "-"], piece)
            lab.topology.run("fresh", ["nft", "flush", "ruleset"])
            for piece in services.commands(None, after):
                lab.topology.run("fresh", ["nft", "-f", "-"], piece)
            assert _table(lab, "steps") == _table(lab, "fresh")
            before = after
    finally:
        lab.holder.request("drop", boxes=["steps", "fresh"])


def _random_world(lab: NetnsLab, dice: random.Random) -> object:
    pods = {
        ("r", f"p{n}"): Pod(
            "r",
            f"p{n}",
            {"app": dice.choice("xyz")},
            node=dice.choice(lab.node_names),
            ips=(f"10.244.1.{n + 9}", f"fd00:10:244:1::{n + 9}")[: dice.choice((1, 2))],
            ports=(
                ContainerPort(80, name="http"),
                ContainerPort(99, host_port=dice.choice((None, 9000 + n))),
            ),
            ready=dice.random() < 0.8,
        )
        for n in range(dice.randrange(6))
    }
    found = {
        ("r", f"s{n}"): Service(
            "r",
            f"s{n}",
            {"app": dice.choice("xyzw")},
            (ServicePort(80, dice.choice(("http", 80)), node_port=dice.choice((None, 31000 + n))),),
            (f"10.96.7.{n}", f"fd00:10:96::7:{n}"),
            external_traffic_policy=dice.choice(("Cluster", "Local")),
        )
        for n in range(dice.randrange(5))
    }
    return lab.world.with_(pods=pods, services=found)


def _table(lab: NetnsLab, box: str) -> list[str]:
    text = lab.topology.run(box, ["nft", "list", "ruleset"]).out
    chains = re.split(r"\n(?=\t(?:chain|map|set) )", text)
    # Elements of hashed sets are listed in the order of a seed of the kernel's.
    return sorted("".join(sorted(re.sub(r"elements = ", "", c).split())) for c in chains)


def test_no_piece_is_larger_than_a_socket_buffer_of_an_ordinary_user() -> None:
    many = services.Rules(
        {f"svc/{n}": (f'ip saddr 10.0.0.1 counter comment "{"x" * 90}"',) for n in range(3000)},
        {
            ("services4", f"10.96.{n >> 8}.{n & 255} . tcp . 80"): f"goto svc/{n}"
            for n in range(3000)
        },
    )
    pieces = list(services.commands(services.Rules(), many))
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= services.PIECE


def test_thousands_of_services_fit(lab: NetnsLab) -> None:
    items = {
        ("svc", f"s{n}"): Service(
            "svc", f"s{n}", WEB, (ServicePort(80, 80),), (f"10.96.{100 + (n >> 8)}.{n & 255}",)
        )
        for n in range(1500)
    }
    world = lab.world.with_(services=items)
    lab.holder.make([{"name": "many", "hostname": "many"}])
    try:
        rules = services.rules(world, "worker", (4,))
        assert sum(1 for e in rules.elements if e[0] == "services4") == 1500
        for piece in services.commands(None, rules):
            lab.topology.run("many", ["nft", "-f", "-"], piece)
        listed = lab.topology.run(
            "many", ["nft", "list", "map", *services.TABLE.split(), "services4"]
        )
        assert listed.out.count("goto") == 1500
    finally:
        lab.holder.request("drop", boxes=["many"])


def test_engines_tables_are_left_alone(lab: NetnsLab) -> None:
    box = node_box("worker")
    lab.topology.run(box, ["nft", "add", "table", "inet", "somebody"])
    lab.apply([Apply(Service("svc", "more", WEB, PORTS)), Delete("Service", "svc", "more")])
    tables = lab.topology.run(box, ["nft", "list", "tables"]).out
    lab.topology.run(box, ["nft", "delete", "table", "inet", "somebody"])
    assert "table inet somebody" in tables
