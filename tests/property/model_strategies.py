"""Hypothesis strategies for worlds that are small enough to collide and odd enough to matter."""

from __future__ import annotations

from hypothesis import strategies as st

from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
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
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Node,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)

NAMESPACES = ("x", "y")
NAMES = ("a", "b", "c")
NODES = ("n1", "n2")
KEYS = ("app", "example.com/tier")
VALUES = ("web", "db", "")
PORTS = (80, 81, 443)
PORT_NAMES = ("http", "web", "dns")


def mostly(usual: object, unusual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """The usual in four of five cases, so that worlds are odd in some places and not in all."""
    return st.integers(0, 4).flatmap(lambda n: st.just(usual) if n else unusual)


labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(Operator))
    values: tuple[str, ...] = ()
    if operator in (Operator.IN, Operator.NOT_IN):
        values = tuple(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2)))
    return Requirement(draw(st.sampled_from(KEYS)), operator, values)


selectors = st.one_of(
    st.just(LabelSelector()),
    st.sampled_from(VALUES[:2]).map(lambda value: LabelSelector((("app", value),))),
    requirements().map(lambda item: LabelSelector((), (item,))),
    st.builds(
        LabelSelector,
        labels.map(lambda d: tuple(sorted(d.items()))),
        st.lists(requirements(), max_size=1).map(tuple),
    ),
)
namespace_selectors = st.one_of(
    selectors,
    st.sampled_from(NAMESPACES).map(lambda n: LabelSelector((("kubernetes.io/metadata.name", n),))),
)
CIDRS = ("10.0.0.0/8", "10.0.0.0/30", "10.0.0.4/30", "203.0.113.0/24", "0.0.0.0/0", "fd00::/8")
EXCEPTS = {
    "10.0.0.0/8": ("10.0.0.0/30", "10.0.0.6/31"),
    "10.0.0.0/30": ("10.0.0.1/32",),
    "0.0.0.0/0": ("10.0.0.0/8", "203.0.113.9/32"),
}


@st.composite
def ip_blocks(draw: st.DrawFn) -> IPBlock:
    cidr = draw(st.sampled_from(CIDRS))
    but = EXCEPTS.get(cidr, ())
    return IPBlock(cidr, tuple(draw(st.lists(st.sampled_from(but), unique=True))) if but else ())


peers = st.one_of(
    st.builds(Peer, selectors),
    st.builds(Peer, st.none(), namespace_selectors),
    st.builds(Peer, selectors, namespace_selectors),
    st.builds(Peer, st.none(), st.none(), ip_blocks()),
)


@st.composite
def policy_ports(draw: st.DrawFn) -> PolicyPort:
    protocol = draw(mostly(Protocol.TCP, st.sampled_from(Protocol)))
    port = draw(st.one_of(st.none(), st.sampled_from(PORTS), st.sampled_from(PORT_NAMES)))
    end = None
    if isinstance(port, int) and draw(st.booleans()):
        end = draw(st.integers(port, 500))
    return PolicyPort(protocol, port, end)


rules = st.builds(
    Rule, st.lists(peers, max_size=2).map(tuple), st.lists(policy_ports(), max_size=2).map(tuple)
)


def policies(
    direction_types: st.SearchStrategy[tuple[Direction, ...]] | None = None,
) -> st.SearchStrategy[NetworkPolicy]:
    types = direction_types or st.lists(st.sampled_from(Direction), unique=True).map(tuple)
    return st.builds(
        NetworkPolicy,
        st.sampled_from(NAMESPACES),
        st.sampled_from(("p", "q", "r", "s")),
        selectors,
        types,
        st.lists(rules, max_size=2).map(tuple),
        st.lists(rules, max_size=2).map(tuple),
        labels,
    )


container_ports = st.builds(
    ContainerPort,
    st.sampled_from(PORTS),
    mostly(Protocol.TCP, st.sampled_from(Protocol)),
    st.one_of(st.none(), st.sampled_from(PORT_NAMES)),
    st.sampled_from(("server", "sidecar")),
)


@st.composite
def ports_of_pod(draw: st.DrawFn) -> tuple[ContainerPort, ...]:
    """Container by container, names unique within one, as the API server wants them."""
    ports = draw(
        st.lists(container_ports, max_size=3, unique_by=lambda p: (p.container, p.name, p.port))
    )
    seen: set[tuple[str, str]] = set()
    kept = []
    for port in sorted(ports, key=lambda p: p.container):
        if port.name is None or (port.container, port.name) not in seen:
            seen.add((port.container, port.name or f"#{port.port}"))
            kept.append(port)
    return tuple(kept)


@st.composite
def pods(
    draw: st.DrawFn,
    *,
    number: int = 1,
    host_network: bool = True,
    ordinary: bool = False,
    unknown_addresses: bool = True,
) -> Pod:
    """``number`` gives the pod its addresses. ``ordinary``: running, known and on pod network.
    ``unknown_addresses``: it may run and have none, as pods in files do."""
    ips = (f"10.0.0.{number}", f"fd00::{number}")
    odd = (ips[:1], ()) if unknown_addresses else (ips[:1],)
    return Pod(
        draw(st.sampled_from(NAMESPACES)),
        f"{draw(st.sampled_from(NAMES))}-{number}",
        draw(labels),
        draw(st.sampled_from(NODES)),
        ips if ordinary else draw(mostly(ips, st.sampled_from(odd))),
        draw(ports_of_pod()),
        not ordinary and host_network and draw(mostly(False, st.booleans())),
        Phase.RUNNING if ordinary else draw(mostly(Phase.RUNNING, st.sampled_from(Phase))),
        True if ordinary else draw(mostly(True, st.booleans())),
        False if ordinary else draw(mostly(False, st.booleans())),
        draw(st.sampled_from(Workload)),
        draw(st.one_of(st.none(), st.just("<p>hello</p>\n"))),
        draw(st.sampled_from(("", "0f0e"))),
    )


services = st.builds(
    Service,
    st.sampled_from(NAMESPACES),
    st.sampled_from(("svc", "other")),
    st.sampled_from(({"app": "web"}, {"app": "db"}, {})),
    st.lists(
        st.builds(
            ServicePort,
            st.sampled_from((80, 8080)),
            st.one_of(st.sampled_from(PORTS), st.sampled_from(PORT_NAMES)),
            mostly(Protocol.TCP, st.sampled_from(Protocol)),
            st.one_of(st.none(), st.just("main")),
            st.one_of(st.none(), st.just(30080)),
        ),
        max_size=2,
        unique_by=lambda p: (p.port, p.protocol),
    ).map(tuple),
    st.sampled_from(((), ("10.96.0.1",), ("10.96.0.1", "fd00:96::1"))),
    st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer")),
    st.just(False),
    st.sampled_from(("Cluster", "Local")),
)
namespaces = st.builds(Namespace, st.sampled_from(NAMESPACES), labels)
nodes = st.builds(
    Node,
    st.sampled_from(NODES),
    st.sampled_from(((), ("192.168.0.1",), ("192.168.0.1", "fd01::1"))),
    st.sampled_from(((), ("10.0.0.0/24",))),
    labels,
)

# -- ClusterNetworkPolicy --------------------------------------------------------------------------

subjects = st.one_of(
    st.just(Subject(LabelSelector())),
    st.builds(Subject, namespace_selectors, st.one_of(st.none(), selectors)),
)
pods_peers = st.builds(Subject, namespace_selectors, selectors)
ingress_peers = st.one_of(
    st.builds(ClusterPeer, namespace_selectors), st.builds(ClusterPeer, st.none(), pods_peers)
)
networks = st.lists(st.sampled_from(CIDRS), min_size=1, max_size=2, unique=True).map(tuple)
egress_peers = st.one_of(
    ingress_peers,
    st.builds(ClusterPeer, st.none(), st.none(), networks),
    st.builds(ClusterPeer, st.none(), st.none(), st.none(), selectors),
)
numbered_ports = st.one_of(
    st.builds(ClusterPort, st.sampled_from(Protocol), st.sampled_from(PORTS)),
    st.builds(ClusterPort, st.sampled_from(Protocol), st.just(80), st.sampled_from((81, 443))),
)
any_ports = st.one_of(
    numbered_ports,
    st.sampled_from(PORT_NAMES).map(lambda n: ClusterPort(name=n)),
)


def cluster_rules(
    peer: st.SearchStrategy[ClusterPeer], port: st.SearchStrategy[ClusterPort]
) -> st.SearchStrategy[ClusterRule]:
    return st.builds(
        ClusterRule,
        st.sampled_from(RuleAction),
        st.lists(peer, min_size=1, max_size=2).map(tuple),
        mostly((), st.lists(port, max_size=2).map(tuple)),
        st.sampled_from(("", "a rule")),
    )


cluster_policies = st.builds(
    ClusterNetworkPolicy,
    st.sampled_from(("cp1", "cp2", "cp3")),
    st.sampled_from(Tier),
    st.integers(0, 2),
    subjects,
    st.lists(cluster_rules(ingress_peers, any_ports), max_size=2).map(tuple),
    st.lists(
        st.one_of(
            cluster_rules(ingress_peers, any_ports), cluster_rules(egress_peers, numbered_ports)
        ),
        max_size=2,
    ).map(tuple),
)

# -- worlds ----------------------------------------------------------------------------------------

WORLD_SIZE = 4


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    ordinary: bool = False,
    max_policies: int = 4,
    with_cluster_policies: bool = False,
    unknown_addresses: bool = False,
) -> World:
    some = [
        draw(pods(number=i, ordinary=ordinary, unknown_addresses=unknown_addresses))
        for i in range(1, WORLD_SIZE + 1)
    ]
    found = draw(st.lists(policies(), min_size=min(2, max_policies), max_size=max_policies))
    cluster = []
    if with_cluster_policies and draw(st.booleans()):
        cluster = draw(st.lists(cluster_policies, min_size=1, max_size=3))
    return World(
        namespaces={name: Namespace(name, draw(labels)) for name in NAMESPACES},
        pods={pod.key: pod for pod in some},
        services={s.key: s for s in draw(st.lists(services, max_size=1))},
        nodes={
            "n1": Node("n1", ("192.168.0.1", "fd01::1"), labels=draw(labels)),
            "n2": Node("n2", ("192.168.0.2", "fd01::2"), labels=draw(labels)),
        },
        externals={"e": External("e", ("203.0.113.9", "2001:db8::9"))},
        policies={p.key: p for p in found},
        cluster_policies={p.name: p for p in cluster},
    )


def cells_of(world: World, *, family: int = 4) -> list[Cell]:
    """Every pod, node and outside host to every pod, node, outside host and Service."""
    ends = [Endpoint(EndpointKind.POD, *key) for key in world.pods]
    ends += [Endpoint(EndpointKind.NODE, "", name) for name in world.nodes]
    ends += [Endpoint(EndpointKind.EXTERNAL, "", name) for name in world.externals]
    vias = {EndpointKind.NODE: Via.NODE_IP, EndpointKind.EXTERNAL: Via.EXTERNAL_IP}
    found = [
        Cell(source, target, port, protocol, vias.get(target.kind, Via.POD_IP), family)
        for source in ends
        for target in ends
        for port in PORTS[:2]
        for protocol in (Protocol.TCP, Protocol.UDP)
        if source != target
    ]
    for key, service in world.services.items():
        target = Endpoint(EndpointKind.SERVICE, *key)
        found += [
            Cell(source, target, port.port, port.protocol, via, family)
            for source in ends
            for port in service.ports
            for via in (Via.SERVICE_IP, Via.SERVICE_NAME)
        ]
    return found
