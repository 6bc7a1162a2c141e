"""Pods that no policy can tell apart.

A world of five thousand pods is read by its groups: two pods are in one group iff every selector
that any policy of the world uses says the same of both. So one member speaks for all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.model import cidr, words
from harness.model.cluster_policy import ClusterNetworkPolicy, ClusterPeer, Subject
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import EVERYTHING, IPBlock, LabelSelector
from harness.model.routing import absent
from harness.model.selectors import selects
from harness.model.world import Pod, World


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that are alike for all policies; ``members`` is never empty, and sorted."""

    name: str
    members: tuple[Endpoint, ...]

    @property
    def one(self) -> Endpoint:
        """The member that speaks for all."""
        return self.members[0]

    @property
    def outside(self) -> bool:
        return self.one.kind is EndpointKind.EXTERNAL

    def __str__(self) -> str:
        return self.name if len(self.members) == 1 else f"{self.name} ({len(self.members)})"


@dataclass(frozen=True, slots=True)
class Question:
    """What policies ask of pods: of one namespace, or of namespaces by a selector."""

    namespace: str | None
    pods: LabelSelector
    namespaces: LabelSelector | None = None


def pod_groups(*worlds: World) -> list[Group]:
    """The live pods that are in all of the worlds, grouped by what every world's policies say."""
    first = worlds[0]
    answers = [_Answers(world) for world in worlds]
    found: dict[object, list[Pod]] = defaultdict(list)
    for key, pod in sorted(first.pods.items()):
        others = [world.pods.get(key) for world in worlds]
        if all(other is not None and not absent(other, _family(other)) for other in others):
            signature = tuple(a.of(o) for a, o in zip(answers, others, strict=True) if o)
            found[signature].append(pod)
    return [
        Group(_name(pods), tuple(Endpoint(EndpointKind.POD, *pod.key) for pod in pods))
        for pods in found.values()
    ]


def _family(pod: Pod) -> int:
    return cidr.family(pod.ips[0]) if pod.ips else 4


class _Answers:
    """What all policies of one world can see of a pod."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.local: dict[tuple[str, str, str], list[tuple[int, Question]]] = defaultdict(list)
        self.general: list[tuple[int, Question]] = []
        for number, asked in enumerate(dict.fromkeys(_questions(world))):
            labels = asked.pods.match_labels
            if asked.namespace is not None:
                self.local[asked.namespace, *(labels[0] if labels else ("", ""))].append(
                    (number, asked)
                )
            else:
                self.general.append((number, asked))
        self.blocks = sorted(set(ip_blocks(world)), key=repr)
        self.names = port_names(world)
        self.of_labels: dict[object, frozenset[int]] = {}
        self.of_namespace: dict[tuple[str, LabelSelector], bool] = {}

    def of(self, pod: Pod) -> object:
        """Hashable; equal for pods that no policy of this world can tell apart."""
        shape = (pod.namespace, tuple(sorted(pod.labels.items())))
        if shape not in self.of_labels:
            self.of_labels[shape] = frozenset(self._matching(pod))
        return (
            self.of_labels[shape],
            pod.host_network,
            frozenset(
                (port.name, port.port, port.protocol)
                for port in pod.ports
                if port.name in self.names
            ),
            tuple((cidr.family(ip), position(self.blocks, ip)) for ip in pod.ips),
        )

    def _matching(self, pod: Pod) -> Iterator[int]:
        keys = [("", ""), *pod.labels.items()]
        for label in keys:
            for number, asked in self.local.get((pod.namespace, *label), ()):
                if selects(asked.pods, pod.labels):
                    yield number
        for number, asked in self.general:
            if asked.namespaces is not None and not self._namespace(
                pod.namespace, asked.namespaces
            ):
                continue
            if selects(asked.pods, pod.labels):
                yield number

    def _namespace(self, name: str, selector: LabelSelector) -> bool:
        key = (name, selector)
        if key not in self.of_namespace:
            self.of_namespace[key] = selects(selector, self.world.namespace_labels(name))
        return self.of_namespace[key]


def _questions(world: World) -> Iterator[Question]:
    for policy in world.policies.values():
        yield Question(policy.namespace, policy.pod_selector)
        for rule in (*policy.ingress, *policy.egress):
            for peer in rule.peers:
                if peer.namespace_selector is not None:
                    yield Question(None, peer.pod_selector or EVERYTHING, peer.namespace_selector)
                elif peer.pod_selector is not None:
                    yield Question(policy.namespace, peer.pod_selector)
    for cluster_policy in world.cluster_policies.values():
        yield _subject(cluster_policy.subject)
        for other in _cluster_peers(cluster_policy):
            if other.namespaces is not None:
                yield Question(None, EVERYTHING, other.namespaces)
            if other.pods is not None:
                yield _subject(other.pods)


def _subject(subject: Subject) -> Question:
    return Question(None, subject.pod_selector or EVERYTHING, subject.namespace_selector)


def _cluster_peers(policy: ClusterNetworkPolicy) -> Iterator[ClusterPeer]:
    for rule in (*policy.ingress, *policy.egress):
        yield from rule.peers


def ip_blocks(world: World) -> Iterator[IPBlock]:
    """Every address range that a policy of the world names."""
    for policy in world.policies.values():
        for rule in (*policy.ingress, *policy.egress):
            yield from (peer.ip_block for peer in rule.peers if peer.ip_block is not None)
    for cluster_policy in world.cluster_policies.values():
        for peer in _cluster_peers(cluster_policy):
            yield from (IPBlock(network) for network in peer.networks or ())


def position(blocks: Iterable[IPBlock], ip: str) -> tuple[bool, ...]:
    """Which of the ranges hold the address."""
    return tuple(
        cidr.contains(block.cidr, ip) and not any(cidr.contains(e, ip) for e in block.except_)
        for block in blocks
    )


def port_names(world: World) -> frozenset[str]:
    """Every port name that a policy uses."""
    names = {
        port.port
        for policy in world.policies.values()
        for rule in (*policy.ingress, *policy.egress)
        for port in rule.ports
        if isinstance(port.port, str)
    }
    names |= {
        port.name
        for policy in world.cluster_policies.values()
        for rule in (*policy.ingress, *policy.egress)
        for port in rule.ports
        if port.name
    }
    return frozenset(names)


# -- names -----------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"(-[0-9a-f]{6,10})?-([0-9]+|[0-9bcdfghjklmnpqrstvwxz]{5})$")


def _name(pods: Sequence[Pod]) -> str:
    """What people call these pods: the one pod's name, or the workloads' that they belong to."""
    if len(pods) == 1:
        return str(pods[0])
    stems = dict.fromkeys(f"{pod.namespace}/{_NUMBERED.sub('-*', pod.name)}" for pod in pods)
    return words.listed(list(stems), limit=2)
