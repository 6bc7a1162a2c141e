"""ClusterNetworkPolicy v1alpha2: truth tables for tiers, priorities, actions, peers and ports.

The claims are those of the API's own comments, in our own words.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.cluster_policy import ClusterPeer, ClusterPort, RuleAction
from harness.model.flow import Verdict
from harness.model.world import Pod, World
from tests.unit.model_worlds import ask, three_by_three, verdict, with_policies

ALL = "{namespaces: {}}"
X = "{namespaces: {matchLabels: {ns: x}}}"
Y = "{namespaces: {matchLabels: {ns: 'y'}}}"


def cnp(
    name: str = "cnp",
    tier: str = "Admin",
    priority: int = 10,
    subject: str = X,
    ingress: str = "",
    egress: str = "",
) -> str:
    """A ClusterNetworkPolicy; rules are flow YAML, separated by commas."""
    text = f"""
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: {tier}
  priority: {priority}
  subject: {subject}
"""
    if ingress:
        text += f"  ingress: [{ingress}]\n"
    if egress:
        text += f"  egress: [{egress}]\n"
    return text + "---\n"


def rule(action: str, peer: str = ALL, protocols: str = "", direction: str = "from") -> str:
    ports = f", protocols: [{protocols}]" if protocols else ""
    return f"{{action: {action}, {direction}: [{peer}]{ports}}}"


def to(action: str, peer: str = ALL, protocols: str = "") -> str:
    return rule(action, peer, protocols, "to")


def np(spec: str, namespace: str = "x") -> str:
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: np, namespace: '{namespace}'}}
spec: {spec}
---
"""


DENY_ALL = "{podSelector: {}}"
ALLOW_ALL = "{podSelector: {}, ingress: [{}]}"

TIERS = {
    "nothing": ("", "allow"),
    "no rules isolate nothing": (cnp(), "allow"),
    "admin deny": (cnp(ingress=rule("Deny")), "deny"),
    "admin deny of others": (cnp(ingress=rule("Deny", X)), "allow"),
    "admin deny for other subjects": (cnp(subject=Y, ingress=rule("Deny")), "allow"),
    "admin deny beats a NetworkPolicy": (cnp(ingress=rule("Deny")) + np(ALLOW_ALL), "deny"),
    "admin accept beats a NetworkPolicy": (cnp(ingress=rule("Accept")) + np(DENY_ALL), "allow"),
    "admin pass leaves it to NetworkPolicy": (cnp(ingress=rule("Pass")) + np(DENY_ALL), "deny"),
    "admin pass skips the rest of the tier": (
        cnp("a", priority=1, ingress=rule("Pass")) + cnp("b", priority=2, ingress=rule("Deny")),
        "allow",
    ),
    "admin pass goes on to baseline": (
        cnp("a", ingress=rule("Pass")) + cnp("b", "Baseline", ingress=rule("Deny")),
        "deny",
    ),
    "baseline deny": (cnp(tier="Baseline", ingress=rule("Deny")), "deny"),
    "NetworkPolicy overrides baseline": (
        cnp(tier="Baseline", ingress=rule("Deny")) + np(ALLOW_ALL),
        "allow",
    ),
    "NetworkPolicy is final even where it allows nothing": (
        cnp(tier="Baseline", ingress=rule("Accept")) + np(DENY_ALL),
        "deny",
    ),
    "NetworkPolicy of the other direction does not count": (
        cnp(tier="Baseline", ingress=rule("Deny"))
        + np("{podSelector: {}, policyTypes: [Egress], egress: [{}]}"),
        "deny",
    ),
    "the lower number comes first": (
        cnp("a", priority=20, ingress=rule("Deny")) + cnp("b", priority=10, ingress=rule("Accept")),
        "allow",
    ),
    "baseline has priorities as well": (
        cnp("a", "Baseline", 1, ingress=rule("Deny"))
        + cnp("b", "Baseline", 0, ingress=rule("Accept")),
        "allow",
    ),
    "the first matching rule wins": (cnp(ingress=f"{rule('Deny', Y)}, {rule('Accept')}"), "deny"),
    "a rule that does not match is passed by": (
        cnp(ingress=f"{rule('Deny', X)}, {rule('Accept')}") + np(DENY_ALL),
        "allow",
    ),
    "equal priorities that agree": (
        cnp("a", ingress=rule("Deny")) + cnp("b", ingress=rule("Deny", Y)),
        "deny",
    ),
    "equal priorities that disagree": (
        cnp("a", ingress=rule("Deny")) + cnp("b", ingress=rule("Accept")),
        "undefined(equal-priority)",
    ),
    "equal priorities of which one does not match": (
        cnp("a", ingress=rule("Deny", X)) + cnp("b", ingress=rule("Accept")),
        "allow",
    ),
    "equal priorities, one passes and it comes to the same": (
        cnp("a", ingress=rule("Deny")) + cnp("b", ingress=rule("Pass")) + np(DENY_ALL),
        "deny",
    ),
    "equal priorities, one passes and it does not": (
        cnp("a", ingress=rule("Deny")) + cnp("b", ingress=rule("Pass")),
        "undefined(equal-priority)",
    ),
    "equal priorities in other tiers do not meet": (
        cnp("a", ingress=rule("Accept")) + cnp("b", "Baseline", ingress=rule("Deny")),
        "allow",
    ),
    "a later doubt does not matter": (
        cnp("c", priority=1, ingress=rule("Deny"))
        + cnp("a", ingress=rule("Deny"))
        + cnp("b", ingress=rule("Accept")),
        "deny",
    ),
    "pods as subject and as peer": (
        cnp(
            subject="{pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}}",
            ingress=rule(
                "Deny",
                "{pods: {namespaceSelector: {matchLabels: {ns: 'y'}}, podSelector: {}}}",
            ),
        ),
        "deny",
    ),
    "pods as subject: another pod": (
        cnp(
            subject="{pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: c}}}}",
            ingress=rule("Deny"),
        ),
        "allow",
    ),
    "port that matches": (
        cnp(ingress=rule("Deny", protocols="{tcp: {destinationPort: {number: 80}}}")),
        "deny",
    ),
    "port that does not": (
        cnp(ingress=rule("Deny", protocols="{tcp: {destinationPort: {number: 81}}}")),
        "allow",
    ),
    "protocol that does not": (
        cnp(ingress=rule("Deny", protocols="{udp: {destinationPort: {number: 80}}}")),
        "allow",
    ),
    "range": (
        cnp(
            ingress=rule(
                "Deny", protocols="{tcp: {destinationPort: {range: {start: 79, end: 80}}}}"
            )
        ),
        "deny",
    ),
    "named port": (cnp(ingress=rule("Deny", protocols="{destinationNamedPort: http}")), "deny"),
    "named port of another number": (
        cnp(ingress=rule("Deny", protocols="{destinationNamedPort: admin}")),
        "allow",
    ),
    "one of several": (
        cnp(
            ingress=rule(
                "Deny",
                f"{X}, {Y}",
                "{destinationNamedPort: admin}, {tcp: {destinationPort: {number: 80}}}",
            )
        ),
        "deny",
    ),
}


@pytest.mark.parametrize("name", TIERS)
def test_from_y_b_to_x_a_at_80(name: str) -> None:
    text, expected = TIERS[name]
    assert verdict(with_policies(text), "y/b -> x/a:80") == expected


EGRESS = {
    "networks match pods": (to("Deny", "{networks: [10.0.1.0/24]}"), "y/b:80", "deny"),
    "networks match the outside": (
        to("Deny", "{networks: [203.0.113.0/24]}"),
        "external:world:443",
        "deny",
    ),
    "networks of the other family": (to("Deny", "{networks: ['::/0']}"), "y/b:80", "allow"),
    "networks match nodes": (to("Deny", "{networks: [192.168.0.0/24]}"), "node:n2:80", "deny"),
    "a Service's own address is left open": (
        to("Deny", "{networks: [10.96.0.0/16]}"),
        "ip:svc:y/svc:8080",
        "undefined(ipblock-service)",
    ),
    "networks see the pod behind a Service": (
        to("Deny", "{networks: [10.0.1.0/24]}"),
        "ip:svc:y/svc:8080",
        "deny",
    ),
    "all nodes": (to("Deny", "{nodes: {}}"), "node:n2:80", "deny"),
    "nodes by label": (to("Deny", "{nodes: {matchLabels: {zone: west}}}"), "node:n2:80", "deny"),
    "other nodes": (to("Deny", "{nodes: {matchLabels: {zone: east}}}"), "node:n2:80", "allow"),
    "nodes are no pods": (to("Deny", "{nodes: {}}"), "y/b:80", "allow"),
    "the own node is left open": (
        to("Deny", "{nodes: {}}"),
        "node:n1:80",
        "undefined(pod-to-own-node)",
    ),
    "namespaces are not the outside": (to("Deny"), "external:world:443", "allow"),
    "namespaces are not nodes": (to("Deny"), "node:n2:80", "allow"),
    "domain names may be anything outside": (
        f"{to('Accept', '{domainNames: [example.com]}')}, {to('Deny', '{networks: [0.0.0.0/0]}')}",
        "external:world:443",
        "undefined(domain-names)",
    ),
    "a domain name that makes no difference": (
        to("Accept", "{domainNames: [example.com]}"),
        "external:world:443",
        "allow",
    ),
    "domain names are not pods": (
        f"{to('Accept', '{domainNames: [example.com]}')}, {to('Deny')}",
        "y/b:80",
        "deny",
    ),
    "pass before networks": (
        f"{to('Pass')}, {to('Deny', '{networks: [0.0.0.0/0]}')}",
        "y/b:80",
        "allow",
    ),
    "and the outside is denied": (
        f"{to('Pass')}, {to('Deny', '{networks: [0.0.0.0/0]}')}",
        "external:world:443",
        "deny",
    ),
    "a named port is the destination's": (
        to("Deny", protocols="{destinationNamedPort: http}"),
        "ip:svc:y/svc:8080",
        "deny",
    ),
}


@pytest.mark.parametrize("name", EGRESS)
def test_from_x_a(name: str) -> None:
    rules, target, expected = EGRESS[name]
    assert verdict(with_policies(cnp(egress=rules)), f"x/a -> {target}") == expected


def test_a_name_is_looked_up_through_all_tiers() -> None:
    closed = with_policies(
        cnp(egress=to("Deny", protocols="{udp: {destinationPort: {number: 53}}}"))
    )
    assert verdict(closed, "x/b -> ip:svc:y/svc:8080") == "allow"
    assert verdict(closed, "x/b -> svc:y/svc:8080") == "deny"


def on_host(world: World) -> World:
    pod = replace(world.pods["x", "a"], host_network=True, ips=("192.168.0.1",))
    return world.with_(pods={**world.pods, pod.key: pod})


def test_pods_on_the_hosts_network_are_neither_subject_nor_peer() -> None:
    world = on_host(three_by_three())
    subject = with_policies(cnp(ingress=rule("Deny"), egress=to("Deny")), world)
    assert verdict(subject, "y/b -> x/a:80") == "allow"
    assert verdict(subject, "x/a -> y/b:80") == "allow"
    peer = with_policies(cnp(subject=Y, ingress=rule("Deny"), egress=to("Deny")), world)
    assert verdict(peer, "x/a -> y/b:80") == "allow"
    assert verdict(peer, "y/b -> x/a:80") == "allow"
    as_node = with_policies(cnp(subject=Y, egress=to("Deny", "{nodes: {}}")), world)
    assert verdict(as_node, "y/c -> x/a:80") == "deny"


def test_the_own_nodes_probes_get_through() -> None:
    world = with_policies(cnp(ingress=rule("Deny")))
    assert verdict(world, "node:n1 -> x/a:80") == "allow"
    policies = {
        name: replace(p, ingress=(replace(p.ingress[0], peers=(ClusterPeer(),)),))
        for name, p in world.cluster_policies.items()
    }
    closed = world.with_(cluster_policies=policies)
    assert verdict(closed, "node:n1 -> x/a:80") == "allow"
    assert verdict(closed, "external:world -> x/a:80") == "deny"


@pytest.mark.parametrize(
    ("action", "expected"),
    [(RuleAction.ACCEPT, "deny"), (RuleAction.DENY, "deny"), (RuleAction.PASS, "deny")],
)
@pytest.mark.parametrize("unknown", ["peer", "protocol"])
def test_what_this_reader_does_not_know_fails_closed(
    action: RuleAction, expected: str, unknown: str
) -> None:
    """Accept matches nothing (and a later Deny counts), Deny and Pass deny everything."""
    world = with_policies(
        cnp(ingress=rule("Accept", protocols="{tcp: {destinationPort: {number: 80}}}"))
        + cnp("later", "Baseline", ingress=rule("Deny"))
    )
    policy = world.cluster_policies["cnp"]
    change = (
        {"peers": (*policy.ingress[0].peers, ClusterPeer())}
        if unknown == "peer"
        else {"ports": (*policy.ingress[0].ports, ClusterPort())}
    )
    broken = replace(policy, ingress=(replace(policy.ingress[0], action=action, **change),))
    world = world.with_(cluster_policies={**world.cluster_policies, "cnp": broken})
    assert verdict(world, "y/b -> x/a:80") == expected
    without_baseline = world.with_(cluster_policies={"cnp": broken})
    open_otherwise = "allow" if action is RuleAction.ACCEPT else "deny"
    assert verdict(without_baseline, "y/b -> x/a:80") == open_otherwise
    assert verdict(without_baseline, "y/b -> x/a:81") == open_otherwise


def test_reasons_name_tier_policy_and_rule() -> None:
    world = with_policies(cnp(ingress=f"{rule('Accept', X)}, {rule('Deny', Y)}"))
    because = ask(world, "y/b -> x/a:80").because[-1]
    assert because.verdict is Verdict.DENY
    assert (because.code, because.policies, because.rule) == ("admin-deny", ("cnp",), 1)
    assert because.text == (
        "cnp, Admin tier, ingress rule 2, says Deny: from all pods of namespaces with ns=y, "
        "on every port"
    )
    assert because.source is not None
    assert because.source.file == "policies.yaml"


def test_pods_of_one_kind_are_told_apart_by_their_own_labels() -> None:
    world = three_by_three()
    extra = Pod("x", "d", {"pod": "d"}, "n1", ("10.0.0.9",), world.pods["x", "a"].ports)
    world = with_policies(
        cnp(
            subject="{pods: {namespaceSelector: {}, podSelector: {matchExpressions: "
            "[{key: pod, operator: NotIn, values: [d]}]}}}",
            ingress=rule("Deny"),
        ),
        world.with_(pods={**world.pods, extra.key: extra}),
    )
    assert verdict(world, "y/b -> x/d:80") == "allow"
    assert verdict(world, "y/b -> x/a:80") == "deny"
