"""What the specification leaves to the implementation: reason codes, and readings to pin them.

Source of the list: the concept page "Network Policies" ("What you can't do", "NetworkPolicy and
hostNetwork pods") and the API reference's note on ipBlock.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Reason code of an undefined verdict -> words that end the sentence "it is left open, because …".
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "ipblock-pod": "it rests on an ipBlock that holds a pod's address: ipBlock is meant for "
        "addresses outside of the cluster, and implementations differ",
        "ipblock-service": "it rests on an ipBlock that holds the Service's own address: whether "
        "policies see it before or after it is translated to a pod's is left open",
        "unknown-address": "it rests on an address that nobody has given out yet",
        "host-network-subject": "what policies do to a pod on the host's network is left to the "
        "implementation",
        "host-network-peer": "a pod on the host's network cannot be told from its node, so "
        "whether a rule matches it is left to the implementation",
        "pod-to-own-node": "the concept page allows traffic from a pod to its own node whatever "
        "the policies say, these policies would deny it, and implementations differ",
        "pod-to-node": "a restricted pod that connects to another node is not specified",
        "node-to-pod": "another node that connects to a restricted pod is not specified",
        "snat": "on this way the client's address, or the target's, may be replaced by a node's "
        "before policies see it",
        "hairpin": "a pod that reaches itself through its Service is left to the implementation",
        "self": "a pod cannot be kept from its own address",
        "mixed-backends": "the Service may pick a pod that is allowed or one that is denied",
        "no-backends": "no ready pod is behind this port of the Service",
        "no-such-port": "the target has no such port, so nothing says where it leads",
        "no-address": "one end has no address of that family",
        "not-running": "a finished pod has no address and matches no selector",
        "terminating": "the pod is being deleted",
        "no-cluster-dns": "only pods resolve the names of Services",
        "outside-service": "a ClusterIP means nothing outside of the cluster",
        "equal-priority": "cluster policies of equal priority disagree, and which of them comes "
        "first is left to the implementation",
        "domain-names": "it rests on the addresses that a domain name has at that moment",
    }
)

#: Reason code -> the readings that a profile can pin it to. Without a pin it stays undefined.
READINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ipblock-pod": ("match", "no-match"),
        "ipblock-service": ("match", "no-match"),
        "host-network-subject": ("open", "policy"),  # policies leave it alone; or they apply
        "host-network-peer": ("address", "pod"),  # it is its address alone; or a pod as others
        "pod-to-own-node": ("allow", "address"),  # always; or what ipBlocks say of the address
        "pod-to-node": ("allow", "address"),
        "node-to-pod": ("allow", "address"),
        "hairpin": ("allow", "deny"),
        # What is no new connection, and so no cell: suites/test_left_open.py looks at it.
        "established": ("kept", "cut"),  # those that were open before they were denied
        "icmp": ("open", "policy"),  # policies leave it alone; or only rules without ports allow it
    }
)

Profile = Mapping[str, str]
NO_PROFILE: Profile = MappingProxyType({})


def check_profile(profile: Profile) -> None:
    """Raise ValueError for a reason or a reading that does not exist."""
    for reason, reading in profile.items():
        if reading not in READINGS.get(reason, ()):
            known = "; ".join(f"{name}: {' or '.join(of)}" for name, of in READINGS.items())
            raise ValueError(f"a profile cannot have {reason}: {reading}; it can have {known}")
