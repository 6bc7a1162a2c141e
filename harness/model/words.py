"""Selectors, peers, ports and rules in words that a beginner understands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from harness.model.cluster_policy import ClusterPeer, ClusterPort, ClusterRule, Subject
from harness.model.policy import (
    Direction,
    LabelSelector,
    Operator,
    Peer,
    PolicyPort,
    Requirement,
    Rule,
)


def listed(items: Sequence[object], limit: int = 3, conjunction: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 4 more``."""
    texts = [str(item) for item in items]
    if len(texts) > limit + 1:
        texts = [*texts[:limit], f"{len(texts) - limit} more"]
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {conjunction} {texts[-1]}"


def requirement(item: Requirement) -> str:
    values = ", ".join(item.values)
    match item.operator:
        case Operator.IN:
            return f"{item.key} in ({values})"
        case Operator.NOT_IN:
            return f"{item.key} not in ({values})"
        case Operator.EXISTS:
            return f"a label {item.key}"
        case Operator.DOES_NOT_EXIST:
            return f"no label {item.key}"


@lru_cache(maxsize=65536)
def selector(item: LabelSelector) -> str:
    """What a selector asks for; empty text for the selector that asks for nothing."""
    asked = [f"{key}={value}" if value else f'{key}=""' for key, value in item.match_labels]
    asked += [requirement(one) for one in item.match_expressions]
    return " and ".join(asked)


def things(noun: str, item: LabelSelector) -> str:
    """``all pods`` or ``pods with app=web``."""
    asked = selector(item)
    return f"{noun} with {asked}" if asked else f"all {noun}"


@lru_cache(maxsize=65536)
def peer(item: Peer, namespace: str) -> str:
    """One peer of a policy that lives in ``namespace``."""
    if item.ip_block is not None:
        but = f" except {listed(item.ip_block.except_)}" if item.ip_block.except_ else ""
        return f"addresses in {item.ip_block.cidr}{but}"
    pods = "all pods" if item.pod_selector is None else things("pods", item.pod_selector)
    if item.namespace_selector is None:
        return f"{pods} of namespace {namespace}"
    return f"{pods} of {things('namespaces', item.namespace_selector)}"


def port(item: PolicyPort) -> str:
    if item.port is None:
        return f"every {item.protocol} port"
    if isinstance(item.port, str):
        return f"the {item.protocol} port named {item.port}"
    if item.end_port is not None:
        return f"{item.protocol} ports {item.port} to {item.end_port}"
    return f"{item.protocol} port {item.port}"


@lru_cache(maxsize=65536)
def rule(item: Rule, direction: Direction, namespace: str) -> str:
    """``from pods with app=web of namespace demo, on TCP port 80``."""
    word = "from" if direction is Direction.INGRESS else "to"
    peers = listed([peer(one, namespace) for one in item.peers], conjunction="or") or "everybody"
    ports = listed([port(one) for one in item.ports], conjunction="or") or "every port"
    return f"{word} {peers}, on {ports}"


# -- cluster policies ------------------------------------------------------------------------------


def subject(item: Subject) -> str:
    """``pods with app=web of all namespaces``."""
    pods = "all pods" if item.pod_selector is None else things("pods", item.pod_selector)
    return f"{pods} of {things('namespaces', item.namespace_selector)}"


def cluster_peer(item: ClusterPeer) -> str:
    if item.namespaces is not None:
        return subject(Subject(item.namespaces))
    if item.pods is not None:
        return subject(item.pods)
    if item.nodes is not None:
        return things("nodes", item.nodes)
    if item.networks is not None:
        return f"addresses in {listed(item.networks, conjunction='or')}"
    if item.domain_names is not None:
        return f"the domain {listed(item.domain_names, conjunction='or')}"
    return "a peer of an unknown kind"


def cluster_port(item: ClusterPort) -> str:
    if item.name is not None:
        return f"the port named {item.name}"
    if item.protocol is None:
        return "a protocol of an unknown kind"
    return port(PolicyPort(item.protocol, item.port, item.end_port))


@lru_cache(maxsize=65536)
def cluster_rule(item: ClusterRule, direction: Direction) -> str:
    word = "from" if direction is Direction.INGRESS else "to"
    peers = listed([cluster_peer(one) for one in item.peers], conjunction="or")
    ports = listed([cluster_port(one) for one in item.ports], conjunction="or") or "every port"
    return f"{word} {peers or 'nobody'}, on {ports}"
