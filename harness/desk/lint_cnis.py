"""What CNIs of the catalogue are known to treat differently from the specification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from harness.cnis import catalogue
from harness.desk.findings import Finding, Rule, Severity
from harness.model import cidr
from harness.model.policy import NetworkPolicy, Operator, Peer, PolicyPort, Protocol
from harness.model.world import World

RULE = Rule(
    "NP120",
    "cni-differs",
    Severity.WARNING,
    "A CNI is known to depart from the specification in something that the policy uses.",
)

#: Features of the catalogue that a policy's text shows, in words.
FEATURES: Mapping[str, str] = {
    "named-port": "a port by name",
    "end-port": "a range of ports (endPort)",
    "ip-block": "an ipBlock",
    "ip-block-except": "an ipBlock with exceptions",
    "match-expressions": "matchExpressions",
    "egress": "egress rules",
    "sctp": "SCTP",
    "udp": "UDP",
    "ipv6": "an IPv6 range",
}


def features(policy: NetworkPolicy) -> frozenset[str]:
    """Which of ``FEATURES`` a policy uses."""
    rules = (*policy.ingress, *policy.egress)
    found = {feature for rule in rules for port in rule.ports for feature in _of_port(port)}
    found |= {feature for rule in rules for peer in rule.peers for feature in _of_peer(peer)}
    if policy.egress:
        found.add("egress")
    if policy.pod_selector.match_expressions:
        found.add("match-expressions")
    return frozenset(found)


def _of_port(port: PolicyPort) -> Iterator[str]:
    if isinstance(port.port, str):
        yield "named-port"
    if port.end_port is not None:
        yield "end-port"
    if port.protocol is not Protocol.TCP:
        yield port.protocol.lower()


def _of_peer(peer: Peer) -> Iterator[str]:
    if peer.ip_block is not None:
        yield "ip-block"
        if peer.ip_block.except_:
            yield "ip-block-except"
        if cidr.family(peer.ip_block.cidr) == 6:
            yield "ipv6"
    for selector in (peer.pod_selector, peer.namespace_selector):
        if selector is not None and any(
            isinstance(requirement.operator, Operator) for requirement in selector.match_expressions
        ):
            yield "match-expressions"


def findings(world: World, names: Iterable[str]) -> Iterator[Finding]:
    """For each policy and each CNI named: what it is known to do otherwise, and why.

    ``all`` names every CNI of the catalogue that enforces something.
    """
    names = list(names)
    if "all" in names:
        names = [name for name in catalogue.names() if catalogue.get(name).enforces]
    for name in names:
        for _, policy in sorted(world.policies.items()):
            if not catalogue.get(name).enforces:
                text = f"{name} enforces no policy at all, so {policy} does nothing there"
                yield Finding(RULE, policy.source, text)
            for feature, reason in _departures(name):
                if feature <= features(policy):
                    what = " and ".join(sorted(FEATURES[one] for one in feature))
                    text = f"{policy} uses {what}; {name}: {reason}"
                    yield Finding(RULE, policy.source, text)


@lru_cache
def _departures(name: str) -> tuple[tuple[frozenset[str], str], ...]:
    """``(features, reason)`` out of a catalogue entry, for what a policy's text can show."""
    cni = catalogue.get(name)
    found = [(frozenset({lack}), reason) for lack, reason in cni.lacks.items()]
    found += [
        (deviation.features, f"{deviation.reason} ({deviation.link})")
        for deviation in cni.deviations
        if deviation.scenario == "*" and deviation.features
    ]
    return tuple((needs, reason) for needs, reason in found if needs <= FEATURES.keys())
