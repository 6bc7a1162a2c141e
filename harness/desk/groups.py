"""Groups of pods that no policy can tell apart, with names that people know them by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.model import cidr, words
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import IPBlock
from harness.model.world import World

# What a controller adds to a workload's name: -0, or -5d9c7b8f6d-x2k4q.
_NUMBERED = re.compile(r"(-[0-9a-f]{6,10})?-([0-9]+|[0-9bcdfghjklmnpqrstvwxz]{5})$")


def workload_of(pod: str, instead: str = "") -> str:
    """A pod's name with ``instead`` of what a controller has added to its workload's."""
    return _NUMBERED.sub(instead, pod)


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that are alike for all policies; ``members`` is never empty, and sorted."""

    name: str
    members: tuple[Endpoint, ...]

    @classmethod
    def of(cls, members: Sequence[Endpoint]) -> Group:
        """Named by the one member, or by the workloads that the members belong to."""
        names = [m.name if m.kind is EndpointKind.EXTERNAL else str(m) for m in members]
        if len(names) > 1:
            names = list(dict.fromkeys(workload_of(name, "-*") for name in names))
        name = words.listed(names, limit=2)
        return cls(name, tuple(members))

    @property
    def outside(self) -> bool:
        return self.members[0].kind is EndpointKind.EXTERNAL

    def __str__(self) -> str:
        return self.name if len(self.members) == 1 else f"{self.name} ({len(self.members)})"


def a_pair(source: Group, target: Group) -> tuple[Endpoint, Endpoint] | None:
    """Two different ends that speak for the groups; None where there are none to speak of: a pod
    always reaches itself, and between outside hosts no policy stands."""
    if source.outside and target.outside:
        return None
    return next(((a, b) for a in source.members for b in target.members if a != b), None)


def main_family(*worlds: World) -> int:
    """4, unless all addresses of pods are IPv6 ones."""
    families = {
        cidr.family(ip) for world in worlds for pod in world.pods.values() for ip in pod.ips
    }
    return 6 if families == {6} else 4


def ip_blocks(world: World) -> Iterator[IPBlock]:
    """Every address range that a policy of the world names."""
    for policy in world.policies.values():
        for rule in (*policy.ingress, *policy.egress):
            yield from (peer.ip_block for peer in rule.peers if peer.ip_block is not None)
    for cluster_policy in world.cluster_policies.values():
        for own in (*cluster_policy.ingress, *cluster_policy.egress):
            for other in own.peers:
                yield from (IPBlock(network) for network in other.networks or ())
