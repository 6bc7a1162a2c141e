"""What a ClusterNetworkPolicy means (``policy.networking.k8s.io/v1alpha2``).

As :mod:`harness.enforcer.meaning`: pure functions, one rule of the specification each, called as
``cluster_meaning.NAME`` everywhere.

Not enforced: ``domainNames``. Such a peer matches nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.enforcer import meaning, ranges
from harness.enforcer.compiled import ANY, Anything, Blocks, Peers, PodQuery, Ports, PortSpan
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    RuleAction,
)
from harness.model.policy import EVERYTHING, Direction, Protocol
from harness.model.world import Node


def subject(policy: ClusterNetworkPolicy) -> PodQuery:
    """The pods that a policy speaks of."""
    chosen = policy.subject
    pods = EVERYTHING if chosen.pod_selector is None else chosen.pod_selector
    return PodQuery(chosen.namespace_selector, pods)


def directions(policy: ClusterNetworkPolicy) -> tuple[Direction, ...]:
    """Those that it has rules for: a policy without rules does nothing."""
    return tuple(direction for direction in Direction if rules(policy, direction))


def rules(policy: ClusterNetworkPolicy, direction: Direction) -> tuple[ClusterRule, ...]:
    """The rules of one direction, the first that matches first."""
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def is_known(rule: ClusterRule) -> bool:
    """Is every peer and port of a kind that this reader knows?"""
    return all(map(knows_peer, rule.peers)) and all(map(knows_port, rule.ports))


def knows_peer(peer: ClusterPeer) -> bool:
    """A peer without any field has one that came after this reader."""
    fields = peer.namespaces, peer.pods, peer.networks, peer.nodes, peer.domain_names
    return any(field is not None for field in fields)


def knows_port(port: ClusterPort) -> bool:
    """The same of a port."""
    return port.protocol is not None or port.name is not None


def when_unknown(action: RuleAction) -> RuleAction | None:
    """A rule that cannot be read fails closed: it denies everything, or (Accept) does nothing."""
    return None if action is RuleAction.ACCEPT else RuleAction.DENY


def peers(rule: ClusterRule, nodes: Iterable[Node]) -> Peers:
    """Who may be at the other end."""
    known = tuple(nodes)
    return Peers(
        frozenset(query for peer in rule.peers for query in queries(peer)),
        blocks(span for peer in rule.peers for span in spans_of(peer, known)),
    )


def queries(peer: ClusterPeer) -> Iterator[PodQuery]:
    """The pods that a peer speaks of."""
    if peer.namespaces is not None:
        yield PodQuery(peer.namespaces, EVERYTHING)
    if peer.pods is not None:
        pods = EVERYTHING if peer.pods.pod_selector is None else peer.pods.pod_selector
        yield PodQuery(peer.pods.namespace_selector, pods)


def spans_of(peer: ClusterPeer, nodes: Iterable[Node]) -> Iterator[tuple[int, ranges.Range]]:
    """``(family, range)`` of the networks of a peer, and of the addresses of its nodes."""
    for cidr in peer.networks or ():
        try:
            yield ranges.of_network(cidr)
        except ValueError as error:
            raise meaning.UnclearError(f"networks: {error}") from error
    if peer.nodes is not None:
        for node in nodes:
            if meaning.selects(peer.nodes, node.labels):
                yield from (ranges.of_network(ip) for ip in node.ips)


def blocks(spans: Iterable[tuple[int, ranges.Range]]) -> Blocks:
    """Ranges by family."""
    found: dict[int, list[ranges.Range]] = {4: [], 6: []}
    for family, span in spans:
        found[family].append(span)
    return Blocks(ranges.union(found[4]), ranges.union(found[6]))


def ports(rule: ClusterRule) -> Ports | Anything:
    """A rule's ports; nothing written is every port. A name has no protocol of its own: it means
    the pod's port of that name, whatever its protocol."""
    if not rule.ports:
        return ANY
    numbers = [span(port) for port in rule.ports if port.protocol is not None]
    names = {
        (protocol, port.name)
        for port in rule.ports
        if port.protocol is None and port.name
        for protocol in Protocol
    }
    return Ports(meaning.join_spans(numbers), tuple(sorted(names)))


def span(port: ClusterPort) -> PortSpan:
    """The numbers that one item allows."""
    assert port.protocol is not None
    if port.port is None:
        return PortSpan(port.protocol, 0, meaning.MAX_PORT)
    return PortSpan(port.protocol, port.port, port.end_port or port.port)


def unenforced(rule: ClusterRule) -> str:
    """What of a rule is not enforced, in words; empty where all is."""
    if any(peer.domain_names is not None for peer in rule.peers):
        return "domainNames are not enforced: they match nothing"
    return ""
