"""Pods for policies that come alone: one for each set of labels that they speak of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.labs.server import DEFAULT_PORT
from harness.model.cluster_policy import ClusterNetworkPolicy, Subject
from harness.model.policy import LabelSelector, NetworkPolicy, Operator, Protocol
from harness.model.world import (
    NAMESPACE_NAME_LABEL,
    ContainerPort,
    Namespace,
    Pod,
    World,
)
from harness.scenarios.cells import SYSTEM_NAMESPACE

#: A namespace that no policy speaks of, and a pod without labels, as there is one everywhere.
ELSEWHERE, STRANGER = "elsewhere", "stranger"
#: Named ports get numbers from here on.
_FIRST_NAMED = 8001


@dataclass(slots=True)
class _Cast:
    """Labels of namespaces by name, and pods by namespace and labels."""

    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: dict[tuple[str, tuple[tuple[str, str], ...]], str] = field(default_factory=dict)

    def namespace(self, selector: LabelSelector) -> str:
        """One that it selects: a known one, or a new one named after its labels."""
        wanted = _labels(selector)
        name = wanted.pop(NAMESPACE_NAME_LABEL, "") or _name(wanted) or ELSEWHERE
        self.namespaces.setdefault(name, {}).update(wanted)
        return name

    def pod(self, namespace: str, selector: LabelSelector) -> None:
        """One that it selects. The system's own namespace is furnished by the lab."""
        if namespace == SYSTEM_NAMESPACE:
            return
        self.namespaces.setdefault(namespace, {})
        labels = _labels(selector)
        self.pods.setdefault((namespace, tuple(sorted(labels.items()))), _name(labels) or STRANGER)


def cast(world: World) -> World:
    """The same world with pods and namespaces for what its policies select: in each namespace a
    pod without labels as well, and one in a namespace that nobody speaks of. They serve every
    port that a policy names, and one that none does."""
    found = _Cast()
    for policy in world.policies.values():
        _of_policy(found, policy)
    for cluster_policy in world.cluster_policies.values():
        _of_cluster_policy(found, cluster_policy)
    for name in (*world.namespaces, *found.namespaces, ELSEWHERE):
        found.pod(name, LabelSelector())
    ports = tuple(_ports(world))
    namespaces = dict(world.namespaces)
    for name, labels in found.namespaces.items():
        own = namespaces[name].labels if name in namespaces else {}
        namespaces[name] = Namespace(name, {**labels, **own})
    pods: dict[tuple[str, str], Pod] = {}
    for (namespace, pairs), wanted in found.pods.items():
        name = next(n for n in _numbered(wanted) if (namespace, n) not in pods)
        pods[namespace, name] = Pod(namespace, name, dict(pairs), ports=ports)
    return world.with_(namespaces=namespaces, pods=pods)


def _of_policy(found: _Cast, policy: NetworkPolicy) -> None:
    found.pod(policy.namespace, policy.pod_selector)
    for rule in (*policy.ingress, *policy.egress):
        for peer in rule.peers:
            if peer.ip_block is not None:
                continue
            namespace = policy.namespace
            if peer.namespace_selector is not None:
                namespace = found.namespace(peer.namespace_selector)
            found.pod(namespace, peer.pod_selector or LabelSelector())


def _of_cluster_policy(found: _Cast, policy: ClusterNetworkPolicy) -> None:
    subjects = [policy.subject]
    for rule in (*policy.ingress, *policy.egress):
        for peer in rule.peers:
            if peer.namespaces is not None:
                subjects.append(Subject(peer.namespaces))
            if peer.pods is not None:
                subjects.append(peer.pods)
    for one in subjects:
        namespace = found.namespace(one.namespace_selector)
        found.pod(namespace, one.pod_selector or LabelSelector())


def _labels(selector: LabelSelector) -> dict[str, str]:
    """Labels that the selector matches."""
    labels = dict(selector.match_labels)
    for one in selector.match_expressions:
        if one.operator is Operator.IN and one.values:
            labels.setdefault(one.key, one.values[0])
        elif one.operator is Operator.EXISTS:
            labels.setdefault(one.key, "any")
    return labels


def _name(labels: dict[str, str]) -> str:
    """``app=web, tier=front`` -> ``web-front``."""
    words = "-".join(value for _, value in sorted(labels.items()) if value)
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in words.lower())
    return kept[:40].strip("-")


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{n}" for n in range(2, 1000))


def _ports(world: World) -> Iterator[ContainerPort]:
    """What rules name, each once; a range by its first port; and one that no rule names."""
    numbers: dict[tuple[int, Protocol], None] = {}
    names: dict[tuple[str, Protocol], None] = {}
    for policy in world.policies.values():
        for rule in (*policy.ingress, *policy.egress):
            for port in rule.ports:
                if isinstance(port.port, int):
                    numbers[port.port, port.protocol] = None
                elif port.port is not None:
                    names[port.port, port.protocol] = None
    for cluster_policy in world.cluster_policies.values():
        for own in (*cluster_policy.ingress, *cluster_policy.egress):
            for one in own.ports:
                if one.port is not None and one.protocol is not None:
                    numbers[one.port, one.protocol] = None
                elif one.name is not None:
                    names[one.name, one.protocol or Protocol.TCP] = None
    taken = {number for number, _ in numbers}
    other = DEFAULT_PORT
    while other in taken:
        other += 1
    numbers[other, Protocol.TCP] = None
    yield from (ContainerPort(number, protocol) for number, protocol in sorted(numbers))
    free = (n for n in range(_FIRST_NAMED, 65536) if n not in taken)
    yield from (ContainerPort(next(free), protocol, name) for name, protocol in sorted(names))
