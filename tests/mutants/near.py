"""What is tried first against a mutant: scenarios with these labels, or of these ids; tests.

Only the order: whatever this says, every scenario has its turn before a mutant counts as missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Mutant -> words, the most telling first: feature labels, beginnings of ids (with a slash), or a
#: file of tests in Python, which then comes before all else.
NEAR: Mapping[str, str] = MappingProxyType(
    {
        "endport-ignored": "end-port",
        "protocol-only-aborts-the-sync": "any-port",
        "protocol-only-gives-no-rule": "any-port",
        "empty-port-item-ignored": "ports/empty-item",
        "single-port-overrides-all-ports": "ports/two/tcp",
        "empty-port-over-allows": "any-port udp",
        "one-number-for-a-name": "ports/named-differs",
        "named-port-any-protocol": "ports/named-wrong",
        "unknown-name-opens-all": "ports/named-nowhere",
        "sidecar-ports-unknown": "sidecar",
        "block-and-port-any-source": "ipblock/with-port",
        "ports-swapped": "numbered-port",
        "except-denies-other-peers": "ipblock/except-then-other-peers",
        "except-beats-another-policy": "ipblock/except-is-no-deny",
        "except-skips-the-rest": "ipblock/except-then",
        "except-ignored": "ip-block-except",
        "all-ports-lost": "ipblock/same-range",
        "only-the-first-except": "ipblock/nested ip-block-except",
        "host-bits-never-match": "ipblock/host-bits",
        "block-misses-pods": "ipblock/of-pods",
        "block-only-is-wildcard": "ipblock/only",
        "except-spares-nodes": "test_engine.py ip-block-except",
        "ipv6-block-aborts-the-sync": "families/ipv6-ipblock ip-block",
        "match-labels-ored": "targets/labels selectors/labels",
        "match-expressions-ignored": "match-expressions",
        "not-in-needs-the-key": "selectors/expression-not-in",
        "empty-value-matches-missing": "selectors/empty-value targets/empty-value",
        "empty-namespace-selector-is-own": "all-namespaces",
        "empty-namespace-selector-is-anything": "selectors/all-namespaces",
        "pod-selector-lost-beside-namespaces": "selectors/both",
        "and-taken-for-or": "selectors/both",
        "pod-selector-crosses-namespaces": "selectors/pods-stay",
        "empty-pod-selector-selects-none": "all-pods",
        "restart-misses-pods": "all-namespaces",
        "egress-always-isolated": "rules/types",
        "ingress-not-isolated-beside-egress": "rules/",
        "egress-rules-not-defaulted": "rules/types",
        "accept-ends-it-all": "conflict/both-ends conflict",
        "first-policy-only": "policy-stack",
        "own-node-escapes-egress": "paths/pod-to-node node",
        "empty-from-matches-nothing": "rules/empty allow-all",
        "no-ports-is-no-port": "any-port-protocol",
        "unlisted-direction-enforced": "rules/egress-rules-without rules/ingress-rules-without",
        "pod-relabel-ignored": "set-pod-labels",
        "namespace-relabel-ignored": "set-namespace-labels",
        "new-pod-unknown-to-peers": "actions/create-pod",
        "finished-pods-still-match": "finish-pod",
        "address-never-given-back": "address-reuse",
        "old-rules-not-flushed": "stale/ update-policy",
        "policy-deletion-ignored": "delete-policy",
        "update-to-no-rules-keeps-old": "stale/update-to-no-rules",
        "policy-update-ignored": "update-policy",
        "ambiguous-names": "selectors/policy-names selectors/same-names",
        "ninth-namespace-lost": "selectors/nine-namespaces",
        "long-name-not-enforced": "selectors/names-of-full-length",
        "pod-runs-before-its-policy": "test_first_instant.py startup-order",
        "host-network-pod-enforced": "host-network",
        "node-shut-out": "paths/node-to-its-pod",
        "neighbour-discovery-blocked": "ipv6",
        "established-not-accepted": "deny-all egress",
        "enforces-nothing": "deny-all",
    }
)


def tests(mutant: str) -> list[str]:
    """The files of tests that come before all else."""
    return [word for word in NEAR.get(mutant, "").split() if word.endswith(".py")]


def score(mutant: str, scenario_id: str, features: frozenset[str]) -> int:
    """How much a scenario has to do with a mutant: 0 nothing, the first word counts most."""
    words = NEAR.get(mutant, "").split()
    found = 0
    for weight, word in enumerate(reversed(words), 1):
        hit = scenario_id.startswith(word) if "/" in word else word in features
        found += hit * 4**weight
    return found
