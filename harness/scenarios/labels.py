"""Which feature labels a scenario earns by what is in it.

Generated and derived scenarios are labelled by this; written ones are held against it, for a label
that nothing bears out would claim coverage that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.flow import EndpointKind, Via
from harness.model.policy import (
    EVERYTHING,
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Rule,
)
from harness.model.transition import step
from harness.model.world import NAMESPACE_NAME_LABEL, Namespace, Pod, World
from harness.scenarios.scenario import Probes, Scenario

#: The labels that can be told from a scenario's content.
TOLD = frozenset(
    {
        "create-policy", "update-policy", "delete-policy", "create-pod", "delete-pod",
        "set-pod-labels", "finish-pod", "create-namespace", "delete-namespace",
        "set-namespace-labels", "target-namespace", "target-pod-selector", "ingress", "egress",
        "policy-stack", "deny-all", "allow-all", "any-peer", "any-port-protocol", "multi-peer",
        "multi-port-protocol", "all-pods", "pods-by-label", "all-namespaces",
        "namespaces-by-label", "policy-namespace", "namespaces-by-default-label",
        "match-expressions", "ip-block", "ip-block-except", "any-port", "numbered-port",
        "named-port", "end-port", "tcp", "udp", "sctp", "service-ip", "service-name", "node-port",
        "external", "cluster-network-policy",
    }
)  # fmt: skip

_VIAS = {
    Via.SERVICE_IP: "service-ip",
    Via.SERVICE_NAME: "service-name",
    Via.NODE_PORT: "node-port",
    Via.EXTERNAL_IP: "external",
}


def labels_of(scenario: Scenario) -> frozenset[str]:
    """The labels out of :data:`TOLD` that the scenario's worlds, changes and probes bear out."""
    found: set[str] = set()
    world = scenario.world
    found.update(_world_labels(world))
    for one in scenario.steps:
        for action in one.actions:
            found.update(_action_labels(world, action))
            world = step(world, action)
            found.update(_world_labels(world))
        found.update(_probe_labels(one.probes or scenario.probes))
    return frozenset(found)


def _action_labels(world: World, action: Action) -> Iterator[str]:
    match action:
        case Apply(object=NetworkPolicy() as policy):
            yield "update-policy" if policy.key in world.policies else "create-policy"
        case Apply(object=ClusterNetworkPolicy() as policy):
            yield "update-policy" if policy.name in world.cluster_policies else "create-policy"
        case Apply(object=Pod() as pod) if pod.key not in world.pods:
            yield "create-pod"
        case Apply(object=Namespace() as namespace) if namespace.name not in world.namespaces:
            yield "create-namespace"
        case Delete(kind="NetworkPolicy" | "ClusterNetworkPolicy"):
            yield "delete-policy"
        case Delete(kind="Pod"):
            yield "delete-pod"
        case Delete(kind="Namespace"):
            yield "delete-namespace"
        case Relabel(kind="Pod"):
            yield "set-pod-labels"
        case Relabel(kind="Namespace"):
            yield "set-namespace-labels"
        case Finish():
            yield "finish-pod"


def _world_labels(world: World) -> Iterator[str]:
    if world.cluster_policies:
        yield "cluster-network-policy"
        if len(world.cluster_policies) + len(world.policies) > 1:
            yield "policy-stack"
        for cluster_policy in world.cluster_policies.values():
            yield from (d for d in ("ingress", "egress") if getattr(cluster_policy, d))
            for selector in _cluster_selectors(cluster_policy):
                yield from _expressions(selector)
    namespaces = [namespace for namespace, _ in world.policies]
    if len(namespaces) > len(set(namespaces)):
        yield "policy-stack"
    for policy in world.policies.values():
        yield from _policy_labels(policy)


def _cluster_selectors(policy: ClusterNetworkPolicy) -> Iterator[LabelSelector]:
    subjects = [policy.subject]
    for rule in (*policy.ingress, *policy.egress):
        for peer in rule.peers:
            yield from (one for one in (peer.namespaces, peer.nodes) if one is not None)
            subjects += [peer.pods] if peer.pods else []
    for subject in subjects:
        yield subject.namespace_selector
        yield subject.pod_selector or EVERYTHING


def _policy_labels(policy: NetworkPolicy) -> Iterator[str]:
    yield "target-namespace" if policy.pod_selector == EVERYTHING else "target-pod-selector"
    yield from _expressions(policy.pod_selector)
    types = set(policy.policy_types) or {
        Direction.INGRESS,
        *([Direction.EGRESS] if policy.egress else []),
    }
    for direction, rules in (
        (Direction.INGRESS, policy.ingress),
        (Direction.EGRESS, policy.egress),
    ):
        if direction in types:
            yield str(direction).lower()
            if not rules:
                yield "deny-all"
            for rule in rules:
                yield from _rule_labels(rule)


def _rule_labels(rule: Rule) -> Iterator[str]:
    if rule == Rule():
        yield "allow-all"
    if not rule.peers:
        yield "any-peer"
    if not rule.ports:
        yield "any-port-protocol"
    if len(rule.peers) > 1:
        yield "multi-peer"
    if len(rule.ports) > 1:
        yield "multi-port-protocol"
    for peer in rule.peers:
        yield from _peer_labels(peer)
    for port in rule.ports:
        yield _port_label(port)


def _peer_labels(peer: Peer) -> Iterator[str]:
    if peer.ip_block is not None:
        yield "ip-block"
        if peer.ip_block.except_:
            yield "ip-block-except"
        return
    if peer.namespace_selector is None:
        yield "policy-namespace"
    elif peer.namespace_selector == EVERYTHING:
        yield "all-namespaces"
    else:
        yield "namespaces-by-label"
        yield from _expressions(peer.namespace_selector)
        keys = {key for key, _ in peer.namespace_selector.match_labels}
        keys |= {one.key for one in peer.namespace_selector.match_expressions}
        if NAMESPACE_NAME_LABEL in keys:
            yield "namespaces-by-default-label"
    if peer.pod_selector is None or peer.pod_selector == EVERYTHING:
        yield "all-pods"
    else:
        yield "pods-by-label"
        yield from _expressions(peer.pod_selector)


def _expressions(selector: LabelSelector) -> Iterable[str]:
    return ("match-expressions",) if selector.match_expressions else ()


def _port_label(port: PolicyPort) -> str:
    if port.port is None:
        return "any-port"
    if port.end_port is not None:
        return "end-port"
    return "numbered-port" if isinstance(port.port, int) else "named-port"


def _probe_labels(probes: Probes) -> Iterator[str]:
    asked = {protocol for _, protocol in probes.ports} if probes.vias else set()
    vias = {*probes.vias, *(cell.via for cell in probes.extra)}
    asked |= {cell.protocol for cell in probes.extra}
    yield from (str(protocol).lower() for protocol in asked)
    yield from (_VIAS[via] for via in vias if via in _VIAS)
    ends = [*(probes.sources or ()), *(probes.targets or ())]
    ends += [end for cell in probes.extra for end in (cell.source, cell.target)]
    if any(end.kind is EndpointKind.EXTERNAL for end in ends):
        yield "external"
