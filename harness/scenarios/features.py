"""The closed list of feature labels: what a scenario can be about.

Each label becomes a pytest mark of the same name (``pytest suites/ -m "egress and named-port"``),
a column of the coverage page and a row of the comparison of CNIs. A scenario with a label that is
not in here is refused when it is loaded: a typing error would make it invisible to ``-m``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from harness.scenarios.scenario import Scenario

_GROUPS: Mapping[str, Mapping[str, str]] = {
    "action": {
        "create-policy": "a policy is created between two looks",
        "update-policy": "a policy is replaced by another of the same name",
        "delete-policy": "a policy is deleted",
        "policy-order": "the same policies, applied in another order",
        "create-pod": "a pod is created while policies are in force",
        "delete-pod": "a pod is deleted while policies are in force",
        "set-pod-labels": "a pod is relabelled",
        "finish-pod": "a pod's containers end; the API object stays",
        "address-reuse": "a new pod takes the address of one that is gone",
        "startup-order": "what exists first: the pod or the policy for it",
        "create-namespace": "a namespace is created while policies are in force",
        "delete-namespace": "a namespace is deleted with all that is in it",
        "set-namespace-labels": "a namespace is relabelled",
    },
    "target": {
        "target-namespace": "a policy's subject is every pod of its namespace",
        "target-pod-selector": "a policy's subject is picked by podSelector",
    },
    "direction": {
        "ingress": "traffic to the subject is restricted",
        "egress": "traffic from the subject is restricted",
    },
    "stack": {
        "no-policy": "nothing is restricted: the positive control",
        "policy-stack": "several policies select one pod: their union counts",
        "conflict": "one policy allows what another does not",
    },
    "rule": {
        "deny-all": "no rule: nothing is allowed",
        "allow-all": "an empty rule: everything is allowed",
        "any-peer": "a rule without peers: everybody",
        "any-port-protocol": "a rule without ports: every port of every protocol",
        "multi-peer": "several peers in one rule: any of them",
        "multi-port-protocol": "several ports or protocols in one rule: any of them",
    },
    "peer": {
        "all-pods": "podSelector {}: every pod of the policy's namespace",
        "pods-by-label": "podSelector with labels",
        "all-namespaces": "namespaceSelector {}",
        "namespaces-by-label": "namespaceSelector with labels",
        "policy-namespace": "no namespaceSelector: the policy's own namespace",
        "namespaces-by-default-label": "namespaceSelector on kubernetes.io/metadata.name",
        "match-expressions": "In, NotIn, Exists, DoesNotExist",
        "ip-block": "an ipBlock peer",
        "ip-block-except": "an ipBlock peer with exceptions",
    },
    "port": {
        "any-port": "no port number: every port of the protocol",
        "numbered-port": "a port by number",
        "named-port": "a port by name, looked up on the destination pod",
        "end-port": "a range of ports",
        "sidecar": "ports of a second container of the pod",
    },
    "protocol": {
        "tcp": "TCP on the wire",
        "udp": "UDP on the wire",
        "sctp": "SCTP on the wire",
        "icmp": "echo requests: left open by the API, recorded",
    },
    "family": {
        "ipv6": "IPv6 on the wire",
        "dual-stack": "both families side by side",
    },
    "path": {
        "service-ip": "through a Service's ClusterIP",
        "service-name": "through a Service's name: resolving and connecting",
        "headless": "through the name of a Service without an address",
        "node-port": "through a NodePort",
        "host-port": "through a hostPort",
        "same-node": "client and server on one node",
        "cross-node": "client and server on two nodes",
        "node": "a node is client or target",
        "external": "a host outside of the cluster is client or target",
        "host-network": "a pod on its node's own network",
        "hairpin": "a pod to itself through its Service",
        "established": "connections that were open before the change",
    },
    "kind": {
        "pathological": "legal, but odd",
        "example": "taken from what people write: the documentation, recipes",
        "upstream-e2e": "a claim of the Kubernetes end-to-end suite",
        "demo": "the demo, word for word",
        "tenants": "tenants kept apart by namespaces",
        "three-rules": "the three rules of a pod network",
        "data-plane": "looks into the data plane, not only at packets",
        "profile": "records what the API leaves to the implementation",
        "generated": "made by a generator from a seed",
        "manifests": "derived from the user's own manifests",
        "cluster-network-policy": "ClusterNetworkPolicy",
    },
}

#: Every label, with a line of what it means.
FEATURES: Mapping[str, str] = MappingProxyType(
    {label: text for group in _GROUPS.values() for label, text in group.items()}
)
#: The labels in groups, for the coverage page.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(group) for name, group in _GROUPS.items()}
)

# Labels that cannot be tested in a lab without these features of it.
_IMPLIED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "udp": frozenset({"udp"}),
        "sctp": frozenset({"sctp"}),
        "icmp": frozenset({"icmp"}),
        "ipv6": frozenset({"ipv6"}),
        "dual-stack": frozenset({"ipv4", "ipv6"}),
        "service-name": frozenset({"dns"}),
        "headless": frozenset({"dns"}),
        "demo": frozenset({"dns"}),
        "node": frozenset({"node-client"}),
        "node-port": frozenset({"node-port"}),
        "host-port": frozenset({"host-port"}),
        "external": frozenset({"external"}),
        "host-network": frozenset({"host-network"}),
        "finish-pod": frozenset({"finish-pod"}),
        "address-reuse": frozenset({"address-reuse"}),
        "cluster-network-policy": frozenset({"cluster-network-policy"}),
    }
)


def needs(scenario: Scenario) -> frozenset[str]:
    """The lab features without which a scenario is skipped: its ``requires``, and what its labels
    imply."""
    return scenario.requires.union(*(_IMPLIED.get(f, frozenset()) for f in scenario.features))


def unknown(labels: Iterable[str]) -> str | None:
    """None, or what is wrong: the first label that is no feature, and what it may have meant."""
    for label in sorted(labels):
        if label not in FEATURES:
            near = get_close_matches(label, FEATURES, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(FEATURES)}"
            return f"{label!r} is no feature label; {hint}"
    return None
