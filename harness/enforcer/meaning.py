"""What a policy means: every rule of the specification that the in-house enforcer knows.

Pure functions over the AST, one rule each, so that a rule can be read, tested and (in the tests
of the suites) replaced by a wrong one on its own. They are called as ``meaning.NAME`` everywhere.
The oracle has its own reading of the same rules; nothing is shared between the two but the AST.

Pinned where the specification leaves it open: host-network pods are neither subject nor peer; an
ipBlock matches pod addresses as any other; a pod's egress rules hold towards its own node as well,
while the node may always open connections to its pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.enforcer import ranges
from harness.enforcer.compiled import ANY, Anything, Blocks, PodQuery, Ports, PortSpan
from harness.model.policy import (
    Direction,
    IPBlock,
    Labels,
    LabelSelector,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
    Requirement,
    Rule,
)
from harness.model.world import Pod

MAX_PORT = 65535


class UnclearError(ValueError):
    """A part of an object that has no meaning; the text says which part and why."""


# Selectors


def requirement_holds(requirement: Requirement, labels: Labels) -> bool:
    """One ``matchExpressions`` item. ``NotIn`` holds for an object that lacks the key."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case Operator.IN:
            return value is not None and value in requirement.values
        case Operator.NOT_IN:
            return value is None or value not in requirement.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None


def selects(selector: LabelSelector, labels: Labels) -> bool:
    """Everything a selector asks for must hold; an empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        requirement_holds(requirement, labels) for requirement in selector.match_expressions
    )


def anchor(selector: LabelSelector) -> tuple[str, str] | None:
    """A label that every object selected must carry (an index is kept by it), if there is one."""
    return selector.match_labels[0] if selector.match_labels else None


# Pods


def subject(pod: Pod) -> bool:
    """May policies isolate this pod?"""
    return pod.live and not pod.host_network


def peer(pod: Pod) -> bool:
    """May selectors find this pod?"""
    return pod.live and not pod.host_network


def named_ports(pod: Pod) -> Iterator[tuple[Protocol, str, int]]:
    """The names that a pod gives to its ports, those of sidecars too."""
    for port in pod.ports:
        if port.name:
            yield port.protocol, port.name, port.port


# Policies


def directions(policy: NetworkPolicy) -> tuple[Direction, ...]:
    """The directions that a policy isolates."""
    if policy.policy_types:
        return policy.policy_types
    if policy.egress:
        return Direction.INGRESS, Direction.EGRESS
    return (Direction.INGRESS,)


def rules(policy: NetworkPolicy, direction: Direction) -> tuple[Rule, ...]:
    """The rules of one direction, as written."""
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def target(policy: NetworkPolicy) -> PodQuery:
    """The pods that a policy selects."""
    return PodQuery(policy.namespace, policy.pod_selector)


# Peers


def queries(peers: Iterable[Peer], namespace: str) -> frozenset[PodQuery]:
    """The pods that a rule's peers speak of; ``namespace`` is the policy's own."""
    return frozenset(
        pods_of_peer(peer, namespace) for peer in peers if peer.ip_block is None and _says(peer)
    )


def _says(peer: Peer) -> bool:
    if peer.pod_selector is None and peer.namespace_selector is None:
        raise UnclearError("a peer names neither pods nor namespaces nor an ipBlock")
    return True


def pods_of_peer(peer: Peer, namespace: str) -> PodQuery:
    """The pods of a peer that is written with selectors."""
    return PodQuery(
        namespace if peer.namespace_selector is None else peer.namespace_selector,
        LabelSelector() if peer.pod_selector is None else peer.pod_selector,
    )


def blocks(peers: Iterable[Peer]) -> Blocks:
    """The union of a rule's ipBlocks, both families, each less its own exceptions."""
    found: dict[int, list[ranges.Range]] = {4: [], 6: []}
    for peer in peers:
        if peer.ip_block is not None:
            family, left = block(peer.ip_block)
            found[family].extend(left)
    return Blocks(ranges.union(found[4]), ranges.union(found[6]))


def block(ip_block: IPBlock) -> tuple[int, tuple[ranges.Range, ...]]:
    """``(family, ranges)`` of one ipBlock: the prefix less its exceptions."""
    try:
        family, whole = ranges.of_network(ip_block.cidr)
        holes = [ranges.of_network(cidr) for cidr in ip_block.except_]
    except ValueError as error:
        raise UnclearError(f"ipBlock: {error}") from error
    return family, ranges.minus(whole, (hole for version, hole in holes if version == family))


# Ports


def ports(written: Iterable[PolicyPort]) -> Ports | Anything:
    """A rule's ports; nothing written is every port of every protocol."""
    numbers: list[PortSpan] = []
    names: set[tuple[Protocol, str]] = set()
    count = 0
    for port in written:
        count += 1
        if isinstance(port.port, str):
            names.add((port.protocol, port.port))
        else:
            numbers.append(span(port))
    if not count:
        return ANY
    return Ports(join_spans(numbers), tuple(sorted(names)))


def span(port: PolicyPort) -> PortSpan:
    """The numbers that one item without a name allows."""
    if port.port is None:
        if port.end_port is not None:
            raise UnclearError("endPort without port")
        return PortSpan(port.protocol, 0, MAX_PORT)
    assert isinstance(port.port, int)
    last = port.port if port.end_port is None else port.end_port
    if not 0 < port.port <= last <= MAX_PORT:
        raise UnclearError(f"ports {port.port} to {last} are no range of ports")
    return PortSpan(port.protocol, port.port, last)


def join_spans(spans: Iterable[PortSpan]) -> tuple[PortSpan, ...]:
    """Spans sorted, with those of one protocol that overlap or touch joined."""
    by_protocol: dict[Protocol, list[ranges.Range]] = {}
    for one in spans:
        by_protocol.setdefault(one.protocol, []).append((one.first, one.last))
    return tuple(
        PortSpan(protocol, first, last)
        for protocol in sorted(by_protocol)
        for first, last in ranges.union(by_protocol[protocol])
    )
