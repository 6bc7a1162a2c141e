"""What ``netpol lint`` looks for in policies. Each check is a function from a world to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from harness.desk.findings import Finding, Rule, Severity
from harness.desk.redundant import redundant
from harness.model import cidr, words
from harness.model.flow import Cell, Decision, Endpoint, EndpointKind, Verdict
from harness.model.oracle import Oracle
from harness.model.policy import (
    EVERYTHING,
    Direction,
    NetworkPolicy,
    Peer,
    Protocol,
)
from harness.model.policy import Rule as PolicyRule
from harness.model.routing import DNS_NAMESPACE, absent
from harness.model.selectors import selects
from harness.model.sides import isolated_directions, rules_of
from harness.model.world import ContainerPort, Namespace, Pod, World


@dataclass(frozen=True)
class Subject:
    """A world, and what the checks ask of it again and again."""

    world: World

    @cached_property
    def pods(self) -> list[Pod]:
        """Pods that can be an end of a connection."""
        return [pod for _, pod in sorted(self.world.pods.items()) if not absent(pod, 4) or pod.ips]

    @cached_property
    def by_namespace(self) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            found.setdefault(pod.namespace, []).append(pod)
        return found

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.world)

    @cached_property
    def policies(self) -> list[NetworkPolicy]:
        return [policy for _, policy in sorted(self.world.policies.items())]

    def selected(self, policy: NetworkPolicy) -> list[Pod]:
        pods = self.by_namespace.get(policy.namespace, [])
        return [pod for pod in pods if selects(policy.pod_selector, pod.labels)]

    def peers(self, peer: Peer, policy: NetworkPolicy) -> list[Pod]:
        """The pods that a peer with selectors matches."""
        if peer.namespace_selector is None:
            pods = self.by_namespace.get(policy.namespace, [])
        else:
            pods = [
                pod
                for name, members in self.by_namespace.items()
                if selects(peer.namespace_selector, self.world.namespace_labels(name))
                for pod in members
            ]
        return [pod for pod in pods if selects(peer.pod_selector or EVERYTHING, pod.labels)]


Check = Callable[[Subject], Iterator[Finding]]
_CHECKS: list[tuple[Rule, Callable[[Rule, Subject], Iterator[Finding]]]] = []


def _check(
    code: str, name: str, severity: Severity, text: str
) -> Callable[[Callable[[Rule, Subject], Iterator[Finding]]], None]:
    def register(function: Callable[[Rule, Subject], Iterator[Finding]]) -> None:
        _CHECKS.append((Rule(code, name, severity, text), function))

    return register


def rules() -> list[Rule]:
    """Every rule in here, by code."""
    return [rule for rule, _ in _CHECKS]


def findings(world: World) -> Iterator[Finding]:
    """What all checks have to say of a world."""
    subject = Subject(world)
    for rule, check in _CHECKS:
        yield from check(rule, subject)


def _rules(policy: NetworkPolicy) -> Iterator[tuple[Direction, int, PolicyRule]]:
    for direction in Direction:
        for index, rule in enumerate(rules_of(policy, direction)):
            yield direction, index, rule


def _named(policy: NetworkPolicy, direction: Direction, index: int) -> str:
    return f"{policy}, {direction.lower()} rule {index + 1}"


@_check(
    "NP101",
    "policy-selects-nothing",
    Severity.WARNING,
    "The policy's podSelector matches no pod, so the policy does nothing.",
)
def _selects_nothing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy in subject.policies:
        if not subject.selected(policy):
            pods = words.things("pods", policy.pod_selector)
            text = f"{policy} selects {pods} of namespace {policy.namespace}, and there is none"
            yield Finding(rule, policy.source, text, _other_namespace(subject, policy))


def _other_namespace(subject: Subject, policy: NetworkPolicy) -> str:
    """A hint where another namespace has the pods that the policy looks for."""
    if policy.pod_selector == EVERYTHING:
        return ""
    where = sorted(
        {pod.namespace for pod in subject.pods if selects(policy.pod_selector, pod.labels)}
    )
    return f"a policy selects in its own namespace; such pods are in {words.listed(where)}" * bool(
        where
    )


@_check(
    "NP102",
    "peer-matches-nothing",
    Severity.WARNING,
    "A peer of a rule matches no pod, so the rule allows less than it says.",
)
def _peer_matches_nothing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy in subject.policies:
        for direction, index, policy_rule in _rules(policy):
            for peer in policy_rule.peers:
                if peer.ip_block is None and not subject.peers(peer, policy):
                    who = words.peer(peer, policy.namespace)
                    text = f"{_named(policy, direction, index)} speaks of {who}; there is none"
                    hint = ""
                    if peer.namespace_selector is None and subject.peers(
                        Peer(peer.pod_selector, EVERYTHING), policy
                    ):
                        hint = (
                            "other namespaces have such pods: add a namespaceSelector to the same "
                            "item, without a dash of its own"
                        )
                    yield Finding(rule, policy_rule.source or policy.source, text, hint)


@_check(
    "NP103",
    "policy-is-redundant",
    Severity.INFO,
    "Another policy selects the same pods and allows the same, whatever pods there are.",
)
def _redundant(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy, by in redundant(subject.policies):
        text = f"{policy} changes nothing: {by} selects the same pods and allows as much"
        yield Finding(rule, policy.source, text)


@_check(
    "NP104",
    "egress-forgets-dns",
    Severity.WARNING,
    "Pods may connect to something, but may not look its name up.",
)
def _forgets_dns(rule: Rule, subject: Subject) -> Iterator[Finding]:
    world, server = _with_dns(subject.world)
    oracle = Oracle(world)
    told: set[str] = set()
    for pod in subject.pods:
        policies = oracle.isolating(pod, Direction.EGRESS)
        allowing = [policy for policy in policies if policy.egress]
        if not allowing or pod.key == server.key:
            continue
        name = str(allowing[0])
        if name in told or _may(oracle, pod, server):
            continue
        told.add(name)
        text = f"{name} lets {pod} connect to some, but no policy lets it ask the cluster's DNS"
        hint = "allow UDP and TCP port 53 to pods with k8s-app=kube-dns of namespace kube-system"
        yield Finding(rule, allowing[0].source, text, hint)


def _with_dns(world: World) -> tuple[World, Pod]:
    """The world with a DNS server as every cluster has one, and that server."""
    for pod in world.pods.values():
        if pod.namespace == DNS_NAMESPACE and pod.labels.get("k8s-app") == "kube-dns":
            return world, pod
    ports = (ContainerPort(53, Protocol.UDP, "dns"), ContainerPort(53, Protocol.TCP, "dns-tcp"))
    server = Pod(DNS_NAMESPACE, "kube-dns", {"k8s-app": "kube-dns"}, ports=ports)
    spaces = {DNS_NAMESPACE: Namespace(DNS_NAMESPACE), **world.namespaces}
    return world.with_(pods={**world.pods, server.key: server}, namespaces=spaces), server


def _may(oracle: Oracle, pod: Pod, server: Pod) -> bool:
    """Whether the pod's own policies let it ask, or may let it."""
    ends = (Endpoint(EndpointKind.POD, *pod.key), Endpoint(EndpointKind.POD, *server.key))
    decision: Decision = oracle.decide(Cell(*ends, 53, Protocol.UDP))
    return not any(
        b.direction is Direction.EGRESS and b.verdict is Verdict.DENY for b in decision.because
    )


@_check(
    "NP105",
    "no-default-deny",
    Severity.INFO,
    "A namespace has policies, but a new pod in it would be open.",
)
def _no_default_deny(rule: Rule, subject: Subject) -> Iterator[Finding]:
    by_namespace: dict[str, list[NetworkPolicy]] = {}
    for policy in subject.policies:
        by_namespace.setdefault(policy.namespace, []).append(policy)
    for name, policies in by_namespace.items():
        if not any(
            policy.pod_selector == EVERYTHING and Direction.INGRESS in isolated_directions(policy)
            for policy in policies
        ):
            text = f"no policy of namespace {name} selects all of its pods for ingress"
            hint = "add a policy with an empty podSelector and no ingress rule"
            yield Finding(rule, policies[0].source, text, hint)


@_check(
    "NP106",
    "pods-left-open",
    Severity.INFO,
    "No policy selects these pods, so they take connections from everybody.",
)
def _left_open(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for name, pods in subject.by_namespace.items():
        left = [pod for pod in pods if not subject.oracle.isolating(pod, Direction.INGRESS)]
        if left and name != DNS_NAMESPACE:
            count = "1 pod" if len(left) == 1 else f"{len(left)} pods"
            who = words.listed([pod.name for pod in left])
            text = f"{count} of namespace {name} may be reached by everybody: {who}"
            yield Finding(rule, left[0].source, text)


@_check(
    "NP107",
    "peer-split-in-two",
    Severity.WARNING,
    "Two items beside each other, where one item with both selectors is likely meant: two items "
    "are OR, two selectors in one item are AND.",
)
def _split_peer(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy in subject.policies:
        for direction, index, policy_rule in _rules(policy):
            for one, two in zip(policy_rule.peers, policy_rule.peers[1:], strict=False):
                namespaces, pods = sorted((one, two), key=lambda p: p.namespace_selector is None)
                if (
                    namespaces.namespace_selector not in (None, EVERYTHING)
                    and namespaces.pod_selector is None
                    and pods.namespace_selector is None
                    and pods.pod_selector not in (None, EVERYTHING)
                ):
                    a = words.peer(namespaces, policy.namespace)
                    b = words.peer(pods, policy.namespace)
                    text = f"{_named(policy, direction, index)} means {a}, and also {b}"
                    hint = (
                        "for pods with these labels in those namespaces, take the second dash away"
                    )
                    yield Finding(rule, policy_rule.source or policy.source, text, hint)


@_check(
    "NP108",
    "ipblock-over-pods",
    Severity.WARNING,
    "An ipBlock holds pods' addresses: it is meant for addresses outside of the cluster, and "
    "network plugins differ on whether it matches pods.",
)
def _block_over_pods(rule: Rule, subject: Subject) -> Iterator[Finding]:
    ranges = {
        (cidr.network(text), f"the pods of node {node.name} ({text})")
        for node in subject.world.nodes.values()
        for text in node.pod_cidrs
    }
    ranges |= {
        (cidr.network(f"{ip}/{128 if ':' in ip else 32}"), f"{pod} ({ip})")
        for pod in subject.pods
        for ip in pod.ips
        if not pod.host_network
    }
    for policy in subject.policies:
        for direction, index, policy_rule in _rules(policy):
            for peer in policy_rule.peers:
                if peer.ip_block is None or cidr.network(peer.ip_block.cidr).prefixlen == 0:
                    continue  # 0.0.0.0/0 says "everywhere outside" and is not about pods
                held = _held(peer.ip_block.cidr, peer.ip_block.except_, ranges)
                if held:
                    text = (
                        f"{_named(policy, direction, index)}: {peer.ip_block.cidr} holds "
                        f"{words.listed(held)}"
                    )
                    hint = "select pods by labels"
                    yield Finding(rule, policy_rule.source or policy.source, text, hint)


def _held(
    block: str, except_: Iterable[str], ranges: Iterable[tuple[cidr.Network, str]]
) -> list[str]:
    network, holes = cidr.network(block), [cidr.network(text) for text in except_]
    return sorted(
        name
        for other, name in ranges
        if network.overlaps(other) and not any(_within(other, hole) for hole in holes)
    )


def _within(one: cidr.Network, other: cidr.Network) -> bool:
    return (
        one.version == other.version and one.overlaps(other) and (one.prefixlen >= other.prefixlen)
    )


@_check(
    "NP109",
    "named-port-unknown",
    Severity.WARNING,
    "A rule names a port that no pod it is about has; such a port matches nothing.",
)
def _unknown_port(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy in subject.policies:
        for direction, index, policy_rule in _rules(policy):
            if direction is Direction.INGRESS:
                targets = subject.selected(policy)
            elif policy_rule.peers:
                targets = [
                    pod
                    for peer in policy_rule.peers
                    if peer.ip_block is None
                    for pod in subject.peers(peer, policy)
                ]
            else:
                targets = subject.pods
            known = {(own.name, own.protocol) for pod in targets for own in pod.ports}
            for port in policy_rule.ports:
                if (
                    isinstance(port.port, str)
                    and targets
                    and ((port.port, port.protocol) not in known)
                ):
                    names = sorted({str(name) for name, _ in known if name})
                    text = (
                        f"{_named(policy, direction, index)}: no pod that it leads to has "
                        f"{words.port(port)}"
                    )
                    hint = f"they have: {words.listed(names)}" if names else "they name no port"
                    yield Finding(rule, policy_rule.source or policy.source, text, hint)


@_check(
    "NP110",
    "direction-not-listed",
    Severity.WARNING,
    "Rules for a direction that policyTypes does not list do nothing.",
)
def _not_listed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for policy in subject.policies:
        for direction in Direction:
            found = rules_of(policy, direction)
            if found and direction not in isolated_directions(policy):
                text = f"{policy} has {direction.lower()} rules, but policyTypes lacks {direction}"
                yield Finding(
                    rule, found[0].source or policy.source, text, f"add {direction} to policyTypes"
                )
