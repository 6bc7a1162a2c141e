"""Why a selector, a peer or a port does not match, in words that a beginner understands.

The verdicts are the oracle's (:mod:`harness.model.sides`, :mod:`harness.model.tiers`); this only
says what made the difference. Each reason has a stable code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.model import cidr, words
from harness.model.cluster_policy import ClusterPeer, ClusterPort, Subject
from harness.model.policy import IPBlock, Labels, LabelSelector, Operator, Peer, PolicyPort
from harness.model.profile import REASONS
from harness.model.selectors import satisfies, selects
from harness.model.sides import NO, YES, Arrival, Seen, holds
from harness.model.world import World


@dataclass(frozen=True, slots=True)
class Why:
    """One reason. ``code`` is stable: ``label``, ``no-label``, ``namespace``, ``namespace-label``,
    ``outside``, ``range``, ``except``, ``family``, ``port``, ``protocol``, ``port-name``, …"""

    code: str
    text: str


def selector(item: LabelSelector, labels: Labels, who: str) -> Iterator[Why]:
    """What of the selector does not hold for these labels; nothing if all of it does."""
    for key, value in item.match_labels:
        have = labels.get(key)
        if have is None:
            yield Why("no-label", f"{who} has no label {key} (asked for: {key}={value})")
        elif have != value:
            yield Why("label", f"{who} has {key}={_shown(have)}, not {key}={_shown(value)}")
    for requirement in item.match_expressions:
        if satisfies(requirement, labels):
            continue
        have = labels.get(requirement.key)
        asked = words.requirement(requirement)
        if have is None:
            yield Why("no-label", f"{who} has no label {requirement.key} (asked for: {asked})")
        elif requirement.operator is Operator.DOES_NOT_EXIST:
            yield Why("label", f"{who} has a label {requirement.key}, and must have none")
        else:
            yield Why("label", f"{who} has {requirement.key}={have} (asked for: {asked})")


def _shown(value: str) -> str:
    return value or '""'


def peer(item: Peer, namespace: str, seen: Seen, world: World) -> Iterator[Why]:
    """Why one peer of a NetworkPolicy of ``namespace`` does not match the other end."""
    if item.ip_block is not None:
        yield from block(item.ip_block, seen)
        return
    pod = seen.pod
    if pod is None:
        yield _no_pod(seen)
        return
    if item.namespace_selector is None:
        if pod.namespace != namespace:
            yield Why(
                "namespace",
                f"{seen.who} is in namespace {pod.namespace}, and a podSelector alone means pods "
                f"of the policy's own namespace, {namespace}",
            )
    else:
        yield from _namespace(item.namespace_selector, pod.namespace, world)
    if item.pod_selector is not None:
        yield from selector(item.pod_selector, pod.labels, seen.who)


def _no_pod(seen: Seen) -> Why:
    if seen.unclear:
        return Why(seen.unclear, f"{seen.who}: {REASONS[seen.unclear]}")
    return Why("outside", f"{seen.who} is no pod, and selectors only match pods")


def _namespace(item: LabelSelector, name: str, world: World) -> Iterator[Why]:
    for why in selector(item, world.namespace_labels(name), f"namespace {name}"):
        yield Why(f"namespace-{why.code}", why.text)


def block(item: IPBlock, seen: Seen) -> Iterator[Why]:
    """Why an address range does not match, or why that is open."""
    if not seen.addresses:
        yield _no_pod(seen)
    for ip, kind in seen.addresses:
        held = holds(item, ip, seen.family)
        if held == YES and kind:
            yield Why(kind, f"{ip or seen.who} is in {item.cidr}, but {REASONS[kind]}")
        elif held not in (YES, NO):
            yield Why(held, f"the address of {seen.who} is not known yet")
        elif held == NO:
            yield _not_held(item, ip, seen)


def _not_held(item: IPBlock, ip: str | None, seen: Seen) -> Why:
    if cidr.family(item.cidr) != seen.family:
        return Why("family", f"{item.cidr} is not IPv{seen.family}")
    if ip is not None and cidr.contains(item.cidr, ip):
        but = next(b for b in item.except_ if cidr.contains(b, ip))
        return Why("except", f"{ip} is in the exception {but} of {item.cidr}")
    return Why("range", f"{ip or seen.who} is not in {item.cidr}")


def port(item: PolicyPort, to: Arrival) -> Why:
    """Why one item of ``ports`` does not match."""
    asked = f"{to.port}/{to.protocol}"
    if isinstance(item.port, str):
        return _port_name(item.port, to)
    if item.protocol is not to.protocol:
        return Why("protocol", f"{words.port(item)} is not {asked}: another protocol")
    return Why("port", f"{asked} is not {words.port(item)}")


def cluster_port(item: ClusterPort, to: Arrival) -> Why:
    if item.name is not None:
        return _port_name(item.name, to)
    if item.protocol is None:
        return Why("unknown", words.cluster_port(item))
    return port(PolicyPort(item.protocol, item.port, item.end_port), to)


def _port_name(name: str, to: Arrival) -> Why:
    if to.pod is None:
        return Why("port-name", f"the destination is no pod, so it has no port named {name}")
    have = [f"{own.port}/{own.protocol}" for own in to.pod.ports if own.name == name]
    if have:
        text = f"the port named {name} of {to.pod} is {words.listed(have)}"
        return Why("port-name", f"{text}, not {to.port}/{to.protocol}")
    names = [own.name for own in to.pod.ports if own.name]
    has = f"it has {words.listed(names)}" if names else "its ports have no names"
    return Why("port-name", f"{to.pod} has no port named {name}: {has}")


def cluster_peer(item: ClusterPeer, seen: Seen, world: World) -> Iterator[Why]:
    """Why one peer of a ClusterNetworkPolicy does not match the other end."""
    if item.networks is not None:
        for network in item.networks:
            yield from block(IPBlock(network), seen)
    elif item.nodes is not None:
        node = world.nodes.get(seen.node)
        if node is None:
            yield Why("node", f"{seen.who} is no node")
        else:
            yield from selector(item.nodes, node.labels, f"node {node.name}")
    elif item.domain_names is not None:
        yield Why("domain-names", REASONS["domain-names"])
    elif seen.pod is None:
        yield _no_pod(seen)
    elif seen.pod.host_network:
        yield Why("host-network", f"{seen.who} is on its node's network, so it is no peer")
    else:
        subject = item.pods or Subject(item.namespaces or LabelSelector())
        yield from in_subject(subject, seen.pod.namespace, seen.pod.labels, seen.who, world)


def in_subject(
    item: Subject, namespace: str, labels: Labels, who: str, world: World
) -> Iterator[Why]:
    """Why a pod is not among a subject's."""
    if not selects(item.namespace_selector, world.namespace_labels(namespace)):
        yield from _namespace(item.namespace_selector, namespace, world)
    if item.pod_selector is not None:
        yield from selector(item.pod_selector, labels, who)
