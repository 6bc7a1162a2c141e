"""Truth tables written by hand: the rules of NetworkPolicy v1, the concept page's examples, and
well-known recipes, in our own words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.fast import Reach
from harness.model.flow import Cell, Endpoint, Verdict, Via
from harness.model.oracle import UnknownEndpointError, decide, expected, listens
from harness.model.policy import Direction, Protocol
from harness.model.world import ContainerPort, Phase, Pod, Service, ServicePort, Workload
from tests.unit.model_worlds import (
    ask,
    cell,
    sources_that_reach,
    three_by_three,
    verdict,
    with_policies,
)

EVERYBODY = "x/a x/b x/c y/a y/b y/c z/a z/b z/c"


def policy(spec: str, name: str = "p", namespace: str = "x") -> str:
    """A NetworkPolicy whose spec is one line of flow YAML."""
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: '{namespace}'}}
spec: {spec}
---
"""


def everybody_but(*names: str) -> str:
    return " ".join(name for name in EVERYBODY.split() if name not in names)


# -- whom policies select, and what an empty thing means -------------------------------------------

WHO_REACHES_X_A = {
    "no policy at all": ("", everybody_but("x/a")),
    "default deny": (policy("{podSelector: {}}"), ""),
    "default deny, as the demo writes it": (policy("{podSelector: }"), ""),
    "default deny of another namespace": (
        policy("{podSelector: {}}", namespace="y"),
        everybody_but("x/a"),
    ),
    "a policy for another pod": (
        policy("{podSelector: {matchLabels: {pod: b}}}"),
        everybody_but("x/a"),
    ),
    "ingress is null": (policy("{podSelector: {}, ingress: }"), ""),
    "ingress is empty": (policy("{podSelector: {}, ingress: []}"), ""),
    "an empty rule": (policy("{podSelector: {}, ingress: [{}]}"), everybody_but("x/a")),
    "a rule that is null": (policy("{podSelector: {}, ingress: [null]}"), everybody_but("x/a")),
    "from is empty": (policy("{podSelector: {}, ingress: [{from: []}]}"), everybody_but("x/a")),
    "ports is empty": (policy("{podSelector: {}, ingress: [{ports: []}]}"), everybody_but("x/a")),
    "egress policy only": (
        policy("{podSelector: {}, policyTypes: [Egress]}", namespace="x"),
        "y/a y/b y/c z/a z/b z/c",
    ),
    "ingress rules without the type do nothing": (
        policy("{podSelector: {}, policyTypes: [Egress], ingress: [], egress: [{}]}"),
        everybody_but("x/a"),
    ),
    "all pods of the own namespace": (
        policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
        "x/b x/c",
    ),
    "some pods of the own namespace": (
        policy("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"),
        "x/b",
    ),
    "all namespaces": (
        policy("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
        everybody_but("x/a"),
    ),
    "a namespace by its own label": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"
        ),
        "y/a y/b y/c",
    ),
    "a namespace by the label that each has": (
        policy(
            "{podSelector: {}, ingress: [{from: "
            "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}"
        ),
        "z/a z/b z/c",
    ),
    "both selectors in one item: AND": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}, "
            "podSelector: {matchLabels: {pod: b}}}]}]}"
        ),
        "y/b",
    ),
    "two items: OR": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}, "
            "{podSelector: {matchLabels: {pod: b}}}]}]}"
        ),
        "x/b y/a y/b y/c",
    ),
    "In": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: "
            "[{key: ns, operator: In, values: [x, z]}]}}]}]}"
        ),
        "x/b x/c z/a z/b z/c",
    ),
    "NotIn": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: "
            "[{key: ns, operator: NotIn, values: [x, z]}]}}]}]}"
        ),
        "y/a y/b y/c",
    ),
    "NotIn matches who lacks the key": (
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: "
            "[{key: nobody-has-it, operator: NotIn, values: [v]}]}}]}]}"
        ),
        "x/b x/c",
    ),
    "Exists": (
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: "
            "[{key: pod, operator: Exists}]}}]}]}"
        ),
        "x/b x/c",
    ),
    "DoesNotExist": (
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: "
            "[{key: pod, operator: DoesNotExist}]}}]}]}"
        ),
        "",
    ),
    "an empty value is not a missing key": (
        policy("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {other: ''}}}]}]}"),
        "",
    ),
    "labels and expressions are ANDed": (
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}, "
            "matchExpressions: [{key: pod, operator: NotIn, values: [b]}]}}]}]}"
        ),
        "",
    ),
    "policies only add up": (
        policy("{podSelector: {}}", "deny")
        + policy(
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: "
            "{matchLabels: {pod: b}}}]}]}",
            "b",
        )
        + policy(
            "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: "
            "{matchLabels: {pod: c}}}]}]}",
            "c",
        ),
        "x/b x/c",
    ),
    "everything is allowed beside a denial": (
        policy("{podSelector: {}}", "deny") + policy("{podSelector: {}, ingress: [{}]}", "open"),
        everybody_but("x/a"),
    ),
    "an outside address lets no pod in": (
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}"),
        "",
    ),
    "an ipBlock over a pod's address is left open": (
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}"),
        "y/a? y/b? y/c?",
    ),
    "and it does not matter where another peer allows it": (
        policy(
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}, "
            "{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}"
        ),
        "y/a y/b y/c",
    ),
    "an ipBlock of the other family never matches": (
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}"),
        "",
    ),
}


@pytest.mark.parametrize("name", WHO_REACHES_X_A)
def test_who_reaches_a_pod(name: str) -> None:
    text, reach = WHO_REACHES_X_A[name]
    assert sources_that_reach(with_policies(text), "x/a:80") == reach


# -- egress ----------------------------------------------------------------------------------------


def test_a_policy_with_egress_rules_and_no_types_isolates_both_directions() -> None:
    world = with_policies(policy("{podSelector: {}, egress: [{}]}"))
    assert verdict(world, "x/a -> y/a:80") == "allow"
    assert verdict(world, "y/a -> x/a:80") == "deny"


def test_a_policy_with_an_empty_egress_list_and_no_types_leaves_egress_open() -> None:
    world = with_policies(policy("{podSelector: {}, egress: []}"))
    assert verdict(world, "x/a -> y/a:80") == "allow"


def test_egress_and_ingress_must_both_allow() -> None:
    world = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: "
            "{matchLabels: {ns: 'y'}}}]}]}"
        )
        + policy("{podSelector: {matchLabels: {pod: b}}}", namespace="y")
    )
    assert verdict(world, "x/a -> y/a:80") == "allow"
    assert verdict(world, "x/a -> y/b:80") == "deny"
    assert verdict(world, "x/a -> z/a:80") == "deny"
    denied = ask(world, "x/a -> z/a:80")
    assert [b.direction for b in denied.because if b.verdict is Verdict.DENY] == [Direction.EGRESS]


def test_egress_to_the_outside() -> None:
    world = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: "
            "{cidr: 203.0.113.0/24, except: [203.0.113.8/30]}}]}]}"
        )
    )
    assert verdict(world, "x/a -> external:world:443") == "deny"
    stacked = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], "
            "egress: [{to: [{ipBlock: {cidr: 203.0.113.9/32}}]}]}",
            "other",
        ),
        world,
    )
    assert verdict(stacked, "x/a -> external:world:443") == "allow"
    selectors = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}"
        )
    )
    assert verdict(selectors, "x/a -> external:world:443") == "deny"


def test_a_range_with_host_bits_means_its_network() -> None:
    world = with_policies(
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.77/24}}]}]}")
    )
    assert verdict(world, "external:world -> x/a:80") == "allow"


# -- ports -----------------------------------------------------------------------------------------

PORTS = {
    "{port: 80}": "80/TCP",
    "{port: 80, protocol: UDP}": "80/UDP",
    "{protocol: UDP}": "53/UDP 80/UDP",
    "{protocol: TCP}": "80/TCP 81/TCP",
    "{protocol: SCTP}": "",
    "{port: 80, endPort: 81}": "80/TCP 81/TCP",
    "{port: 79, endPort: 80}": "80/TCP",
    "{port: 82, endPort: 90}": "",
    "{port: http}": "80/TCP",
    "{port: http, protocol: UDP}": "",
    "{port: admin}": "81/TCP",
    "{port: nobody-has-it}": "",
    "{port: 81}, {port: dns, protocol: UDP}": "53/UDP 81/TCP",
    "null": "80/TCP 81/TCP",
}


@pytest.mark.parametrize("ports", PORTS)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_ports(ports: str, direction: str) -> None:
    spec = f"{{podSelector: {{}}, policyTypes: [{direction.title()}], {direction}: "
    world = with_policies(policy(spec + f"[{{ports: [{ports}]}}]}}"))
    ends = "y/b -> x/a" if direction == "ingress" else "x/a -> y/b"
    asked = ["53/UDP", "80/TCP", "80/UDP", "81/TCP"]
    allowed = [port for port in asked if verdict(world, f"{ends}:{port}") == "allow"]
    assert " ".join(allowed) == PORTS[ports]


def test_peers_and_ports_of_one_rule_belong_together() -> None:
    world = with_policies(
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], "
            "ports: [{port: 80}]}, {from: [{podSelector: {matchLabels: {pod: c}}}], "
            "ports: [{port: 81}]}]}"
        )
    )
    assert [verdict(world, f"x/b -> x/a:{port}") for port in (80, 81)] == ["allow", "deny"]
    assert [verdict(world, f"x/c -> x/a:{port}") for port in (80, 81)] == ["deny", "allow"]


def test_a_port_name_is_each_destination_pods_own() -> None:
    world = three_by_three()
    pods = dict(world.pods)
    pods["y", "b"] = replace(pods["y", "b"], ports=(ContainerPort(81, name="http"),))
    pods["y", "c"] = replace(pods["y", "c"], ports=())
    world = with_policies(
        policy("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"),
        world.with_(pods=pods),
    )
    reached = [
        f"{pod}:{port}"
        for pod in ("y/a", "y/b", "y/c")
        for port in (80, 81)
        if verdict(world, f"x/a -> {pod}:{port}") == "allow"
    ]
    assert reached == ["y/a:80", "y/b:81"]
    assert verdict(world, "x/a -> external:world:80") == "deny"


def test_a_sidecars_port_name_counts() -> None:
    world = three_by_three()
    pods = dict(world.pods)
    sidecar = ContainerPort(9090, name="metrics", container="proxy")
    pods["x", "a"] = replace(pods["x", "a"], ports=(*pods["x", "a"].ports, sidecar))
    world = with_policies(
        policy("{podSelector: {}, ingress: [{ports: [{port: metrics}]}]}"), world.with_(pods=pods)
    )
    assert verdict(world, "y/a -> x/a:9090") == "allow"
    assert verdict(world, "y/a -> x/a:80") == "deny"


# -- Services --------------------------------------------------------------------------------------


def test_policies_see_the_target_port_and_not_the_services() -> None:
    world = with_policies(policy("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"))
    assert verdict(world, "y/b -> ip:svc:x/svc:8080") == "allow"
    world = with_policies(policy("{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}"))
    assert verdict(world, "y/b -> ip:svc:x/svc:8080") == "deny"


def test_a_service_port_that_is_not_there() -> None:
    assert verdict(three_by_three(), "y/b -> ip:svc:x/svc:80") == "undefined(no-such-port)"


def test_a_service_without_ready_pods() -> None:
    world = three_by_three()
    pods = {**world.pods, ("x", "a"): replace(world.pods["x", "a"], ready=False)}
    assert verdict(world.with_(pods=pods), "y/b -> ip:svc:x/svc:8080") == "undefined(no-backends)"


def several_backends(spec: str) -> str:
    world = with_policies(policy(spec))
    service = Service("x", "all", {}, (ServicePort(80, 80),))
    pods = {
        key: replace(pod, labels={**pod.labels, "app": "w"}) if key[0] == "x" else pod
        for key, pod in world.pods.items()
    }
    service = replace(service, selector={"app": "w"})
    world = world.with_(services={("x", "all"): service}, pods=pods)
    return verdict(world, "y/b -> ip:svc:x/all:80")


def test_several_backends() -> None:
    assert several_backends("{podSelector: {matchLabels: {app: none}}}") == "allow"
    assert several_backends("{podSelector: {}}") == "deny"
    mixed = several_backends("{podSelector: {matchLabels: {pod: b}}}")
    assert mixed == "undefined(mixed-backends)"


def test_a_name_is_two_flows() -> None:
    no_egress = policy("{podSelector: {}, policyTypes: [Egress]}")
    to_y = policy(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: "
        "{matchLabels: {ns: 'y'}}}]}]}",
        "to-y",
    )
    dns = policy(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: "
        "{kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: "
        "{k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}]}",
        "dns",
    )
    assert verdict(with_policies(no_egress + to_y), "x/b -> ip:svc:y/svc:8080") == "allow"
    by_name = ask(with_policies(no_egress + to_y), "x/b -> svc:y/svc:8080")
    assert by_name.verdict is Verdict.DENY
    assert [b.flow for b in by_name.because if b.verdict is Verdict.DENY] == ["dns"]
    assert by_name.text.startswith("looking up the name: ")
    assert verdict(with_policies(no_egress + to_y + dns), "x/b -> svc:y/svc:8080") == "allow"
    assert verdict(with_policies(no_egress + dns), "x/b -> svc:y/svc:8080") == "deny"


def test_tcp_does_not_make_up_for_udp_in_a_lookup() -> None:
    spec = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: TCP}]}]}"
    assert verdict(with_policies(policy(spec)), "x/b -> svc:y/svc:8080") == "deny"


def test_policies_of_the_dns_servers_count_as_well() -> None:
    world = three_by_three()
    dns_port = ContainerPort(1053, Protocol.UDP, "dns")
    server = Pod("kube-system", "dns-1", {"k8s-app": "kube-dns"}, "n1", ("10.0.9.1",), (dns_port,))
    service = Service(
        "kube-system", "kube-dns", {"k8s-app": "kube-dns"}, (ServicePort(53, "dns", Protocol.UDP),)
    )
    world = world.with_(
        pods={**world.pods, server.key: server},
        services={**world.services, service.key: service},
    )
    assert verdict(world, "x/b -> svc:y/svc:8080") == "allow"
    closed = with_policies(policy("{podSelector: {}}", namespace="kube-system"), world)
    assert verdict(closed, "x/b -> svc:y/svc:8080") == "deny"
    after_translation = policy(
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 1053, protocol: UDP}, "
        "{port: 80}]}]}"
    )
    assert verdict(with_policies(after_translation, world), "x/b -> svc:y/svc:8080") == "allow"


def test_an_ip_block_over_the_services_own_address_is_left_open() -> None:
    world = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], "
            "egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}"
        )
    )
    asked = "x/b -> ip:svc:y/svc:8080"
    assert verdict(world, asked) == "undefined(ipblock-service)"
    assert verdict(world, asked, {"ipblock-service": "no-match"}) == "deny"
    assert verdict(world, asked, {"ipblock-service": "match"}) == "allow"


def test_a_pod_behind_its_own_service() -> None:
    assert verdict(three_by_three(), "x/a -> ip:svc:x/svc:8080") == "undefined(hairpin)"
    assert verdict(three_by_three(), "x/a -> ip:svc:x/svc:8080", {"hairpin": "allow"}) == "allow"


def test_a_headless_service_leads_to_the_pods_own_ports() -> None:
    world = three_by_three()
    service = replace(world.services["x", "svc"], headless=True, cluster_ips=())
    world = world.with_(services={("x", "svc"): service})
    assert verdict(world, "y/b -> svc:x/svc:80") == "allow"
    assert verdict(world, "y/b -> ip:svc:x/svc:80") == "undefined(no-address)"


def test_node_ports() -> None:
    world = three_by_three()
    service = Service(
        "x", "np", {"pod": "a"}, (ServicePort(80, 80, node_port=30080),), type="NodePort"
    )
    world = world.with_(services={service.key: service})

    def by_node_port(world_now: object, source: str, node: str = "n1") -> str:
        end = Endpoint.parse(f"node:{node}")
        asked = Cell(Endpoint.parse(source), end, 30080, via=Via.NODE_PORT)
        decision = decide(world_now, asked)  # type: ignore[arg-type]
        return decision.reason or decision.verdict

    assert by_node_port(world, "external:world") == "allow"
    closed = with_policies(policy("{podSelector: {}}"), world)
    assert by_node_port(closed, "external:world") == "snat"
    local = {service.key: replace(service, external_traffic_policy="Local")}
    assert by_node_port(closed.with_(services=local), "external:world") == "deny"
    assert by_node_port(closed.with_(services=local), "external:world", "n2") == "no-backends"
    outside = with_policies(
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}"), world
    )
    assert by_node_port(outside.with_(services=local), "external:world") == "allow"


# -- nodes, host network, pods that are not there --------------------------------------------------


def test_a_pods_own_node_always_reaches_it() -> None:
    world = with_policies(policy("{podSelector: {}}"))
    assert verdict(world, "node:n1 -> x/a:80") == "allow"
    assert verdict(world, "node:n2 -> x/a:80") == "undefined(node-to-pod)"
    assert verdict(world, "node:n2 -> x/a:80", {"node-to-pod": "address"}) == "deny"


def test_a_pod_to_nodes() -> None:
    closed = with_policies(policy("{podSelector: {}, policyTypes: [Egress]}"))
    assert verdict(closed, "x/a -> node:n1:80") == "undefined(pod-to-own-node)"
    assert verdict(closed, "x/a -> node:n2:80") == "undefined(pod-to-node)"
    by_address = with_policies(
        policy(
            "{podSelector: {}, policyTypes: [Egress], "
            "egress: [{to: [{ipBlock: {cidr: 192.168.0.0/24}}]}]}"
        )
    )
    assert verdict(by_address, "x/a -> node:n1:80") == "allow"
    assert verdict(three_by_three(), "x/a -> node:n2:80") == "allow"


def test_what_concerns_no_pod_is_allowed() -> None:
    world = with_policies(policy("{podSelector: {}, policyTypes: [Ingress, Egress]}"))
    assert verdict(world, "node:n1 -> external:world:80") == "allow"


def on_host(name: str = "a") -> object:
    world = three_by_three()
    pod = replace(world.pods["x", name], host_network=True, ips=("192.168.0.1",))
    return world.with_(pods={**world.pods, pod.key: pod})


def test_a_pod_on_the_hosts_network() -> None:
    world = on_host()
    assert verdict(world, "y/b -> x/a:80") == "allow"  # type: ignore[arg-type]
    subject = with_policies(policy("{podSelector: {}}"), world)  # type: ignore[arg-type]
    assert verdict(subject, "y/b -> x/a:80") == "undefined(host-network-subject)"
    assert verdict(subject, "y/b -> x/a:80", {"host-network-subject": "open"}) == "allow"
    assert verdict(subject, "y/b -> x/a:80", {"host-network-subject": "policy"}) == "deny"
    peer = with_policies(
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}",
            namespace="y",
        ),
        world,  # type: ignore[arg-type]
    )
    assert verdict(peer, "x/a -> y/b:80") == "undefined(host-network-peer)"
    assert verdict(peer, "x/a -> y/b:80", {"host-network-peer": "pod"}) == "allow"
    by_address = {"host-network-peer": "address"}
    assert verdict(peer, "x/a -> y/c:80", by_address) == "deny"
    assert verdict(peer, "x/a -> y/b:80", by_address) == "allow"  # the address of its own node
    because = ask(peer, "x/a -> y/b:80", by_address).because  # type: ignore[arg-type]
    assert [one.code for one in because] == ["open", "own-node"]
    fast = Reach(peer, 4, by_address)  # type: ignore[arg-type]
    assert [
        fast.verdict(Endpoint.parse("x/a"), Endpoint.parse(f"y/{name}"), 80, Protocol.TCP)
        for name in "bc"
    ] == [Verdict.ALLOW, Verdict.DENY]


def test_a_pod_to_itself() -> None:
    world = with_policies(policy("{podSelector: {}, policyTypes: [Ingress, Egress]}"))
    assert verdict(world, "x/a -> x/a:80") == "undefined(self)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phase": Phase.SUCCEEDED}, "not-running"),
        ({"phase": Phase.FAILED}, "not-running"),
        ({"phase": Phase.PENDING, "ips": ()}, "no-address"),
        ({"terminating": True}, "terminating"),
        ({"ips": ("fd00::1",)}, "no-address"),
    ],
)
@pytest.mark.parametrize("asked", ["x/a -> y/b:80", "y/b -> x/a:80"])
def test_pods_that_are_not_there(changes: dict[str, object], reason: str, asked: str) -> None:
    world = three_by_three()
    pod = replace(world.pods["x", "a"], **changes)  # type: ignore[arg-type]
    world = world.with_(pods={**world.pods, pod.key: pod})
    assert verdict(world, asked) == f"undefined({reason})"


def test_a_running_pod_whose_address_nobody_told_is_judged_all_the_same() -> None:
    world = three_by_three()
    pods = {key: replace(pod, ips=()) for key, pod in world.pods.items()}
    world = with_policies(
        policy(
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, "
            "{ipBlock: {cidr: 10.9.0.0/16}}]}]}"
        ),
        world.with_(pods=pods),
    )
    assert verdict(world, "x/b -> x/a:80") == "allow"
    assert verdict(world, "x/c -> x/a:80") == "undefined(unknown-address)"
    assert verdict(world, "x/c -> x/a:80", {"ipblock-pod": "no-match"}) == "deny"


def test_ipv6() -> None:
    world = with_policies(
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 2001:db8::/32}}]}]}")
    )
    assert verdict(world, "external:world -> x/a:80", family=6) == "allow"
    assert verdict(world, "external:world -> x/a:80", family=4) == "deny"


# -- profiles, reasons, errors ---------------------------------------------------------------------


def test_a_profile_settles_ip_blocks_over_pods() -> None:
    world = with_policies(
        policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}")
    )
    assert verdict(world, "y/b -> x/a:80", {"ipblock-pod": "match"}) == "allow"
    assert verdict(world, "y/b -> x/a:80", {"ipblock-pod": "no-match"}) == "deny"


def test_a_profile_that_says_nothing_that_exists() -> None:
    with pytest.raises(ValueError, match="ipblock-pod: match or no-match"):
        verdict(three_by_three(), "y/b -> x/a:80", {"ipblock-pod": "maybe"})


def test_a_denial_is_sure_whatever_the_other_side_leaves_open() -> None:
    world = with_policies(
        policy("{podSelector: {}, policyTypes: [Egress]}", namespace="y")
        + policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}")
    )
    assert verdict(world, "y/b -> x/a:80") == "deny"


def test_reasons_name_policy_rule_and_line() -> None:
    world = with_policies(
        """
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: access, namespace: x}
        spec:
          podSelector: {}
          ingress:
          - ports: [{port: 443}]
          - from:
            - podSelector: {matchLabels: {pod: b}}
        """
    )
    allowed = ask(world, "x/b -> x/a:80")
    ingress = allowed.because[-1]
    assert (ingress.code, ingress.policies, ingress.rule) == ("rule", ("x/access",), 1)
    assert str(ingress.source) == "policies.yaml:9"
    assert ingress.text == (
        "x/access, ingress rule 2, allows it: from pods with pod=b of namespace x, on every port"
    )
    denied = ask(world, "x/c -> x/a:80").because[-1]
    assert (denied.code, denied.policies, denied.rule) == ("no-rule", ("x/access",), None)
    isolated = ask(with_policies(policy("{podSelector: {}}")), "x/b -> x/a:80").because[-1]
    assert isolated.code == "isolated"
    assert ask(three_by_three(), "x/b -> x/a:80").because[-1].code == "open"


def test_somebody_who_is_not_there() -> None:
    with pytest.raises(UnknownEndpointError, match="x/nobody"):
        ask(three_by_three(), "x/nobody -> x/a:80")
    with pytest.raises(UnknownEndpointError, match="svc:x/nothing"):
        ask(three_by_three(), "x/b -> svc:x/nothing:80")


def test_expected_keeps_the_order_of_the_cells() -> None:
    asked = [cell("y/b -> x/a:80"), cell("x/a -> y/b:80"), cell("z/c -> x/a:80")]
    assert list(expected(three_by_three(), asked)) == asked


def test_who_listens() -> None:
    world = three_by_three()
    assert listens(world, cell("y/b -> x/a:80")) is True
    assert listens(world, cell("y/b -> x/a:443")) is False
    assert listens(world, cell("y/b -> svc:x/svc:8080")) is True
    assert listens(world, cell("y/b -> external:world:80")) is None
    client = replace(world.pods["x", "a"], workload=Workload.CLIENT)
    silent = world.with_(pods={**world.pods, client.key: client})
    assert listens(silent, cell("y/b -> x/a:80")) is False
    unsaid = replace(world.pods["x", "a"], ports=())
    assert listens(world.with_(pods={**world.pods, unsaid.key: unsaid}), cell("y/b -> x/a:80")) is (
        None
    )
