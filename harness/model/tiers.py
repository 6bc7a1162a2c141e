"""ClusterNetworkPolicy (``policy.networking.k8s.io/v1alpha2``) around NetworkPolicy.

Admin tier, then NetworkPolicy, then Baseline tier, then everything is allowed. In a tier the policy
with the lowest priority number comes first; in a policy the first rule that matches. ``Accept`` and
``Deny`` end it for that direction, ``Pass`` leaves the tier. Source: the comments of
``sigs.k8s.io/network-policy-api`` v0.2.0, ``apis/v1alpha2``, and NPEP-126 (nodes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from harness.model import words
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.flow import Because, Verdict
from harness.model.policy import Direction, IPBlock
from harness.model.selectors import selects
from harness.model.sides import NO, YES, Arrival, Seen, Sides, always, any_of, doubt
from harness.model.world import Pod, World


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a tier may end. ``rule`` is the index of the rule that ends it, None where none does;
    ``doubt`` is the reason code for which it may also end otherwise ("": it cannot)."""

    action: RuleAction | None
    policy: ClusterNetworkPolicy | None = None
    rule: int | None = None
    doubt: str = ""


class Tiers:
    """Reads the cluster policies of one world around its NetworkPolicies."""

    def __init__(self, world: World, sides: Sides) -> None:
        self.world = world
        self.sides = sides
        self._tiers = {
            tier: sorted(
                (p for p in world.cluster_policies.values() if p.tier is tier),
                key=lambda p: (p.priority, p.name),
            )
            for tier in Tier
        }
        self._subjects: dict[tuple[str, str, str], bool] = {}

    def because(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        """What all tiers together say of one direction of one pod."""
        if pod.host_network or not self.world.cluster_policies:
            return self.sides.because(pod, direction, seen, to)  # never a subject of the others
        found = self._walk(pod, direction, seen, to)
        verdicts = {because.verdict for because, _ in found}
        if seen.always == "own-node" and verdicts != {Verdict.ALLOW}:
            return always(pod, direction, "own-node")  # kubelet's probes get through
        if verdicts == {Verdict.DENY} and seen.unclear == "pod-to-own-node":
            return doubt(direction, "pod-to-own-node", str(pod), found[-1][0].policies)
        if len(verdicts) == 1:
            return found[-1][0]  # the last way is the one that rests on no doubt
        reason = next(
            (r for _, r in found if r),
            next((b.code for b, _ in found if b.verdict is Verdict.UNDEFINED), ""),
        )
        names = tuple(dict.fromkeys(name for because, _ in found for name in because.policies))
        return doubt(direction, reason, words.listed(names) or str(pod), names)

    def _walk(
        self, pod: Pod, direction: Direction, seen: Seen, to: Arrival
    ) -> list[tuple[Because, str]]:
        """All ways in which it may end, each with the doubt that it rests on."""
        ways = []
        goes_on = ""
        reaches = False
        for outcome in self.outcomes(Tier.ADMIN, pod, direction, seen, to):
            if outcome.action in (RuleAction.ACCEPT, RuleAction.DENY):
                ways.append((_by_rule(outcome, direction), outcome.doubt))
            else:
                reaches, goes_on = True, goes_on or outcome.doubt
        if not reaches:
            return ways
        because = self.sides.because(pod, direction, seen, to)
        if self.sides.isolating(pod, direction):
            return [*ways, (because, goes_on)]
        if any(
            self.is_subject(policy, pod) and cluster_rules_of(policy, direction)
            for policy in self.world.cluster_policies.values()
        ):
            because = replace(because, text=_unmatched_text(pod, direction))
        for outcome in self.outcomes(Tier.BASELINE, pod, direction, seen, to):
            if outcome.action in (RuleAction.ACCEPT, RuleAction.DENY):
                ways.append((_by_rule(outcome, direction), outcome.doubt or goes_on))
            else:
                ways.append((because, outcome.doubt or goes_on))
        return ways

    # -- one tier ------------------------------------------------------------------------------

    def outcomes(
        self, tier: Tier, pod: Pod, direction: Direction, seen: Seen, to: Arrival
    ) -> list[Outcome]:
        """How the tier may end for this flow; one outcome, unless something is left open. An
        action of None is that no rule matches."""
        found: list[Outcome] = []
        for _, group in groupby(self._tiers[tier], key=lambda p: p.priority):
            policies = [p for p in group if self.is_subject(p, pod)]
            ends, may_go_on = self._rank(policies, direction, seen, to)
            found += ends
            if not may_go_on:
                return found
        return [*found, Outcome(None)]

    def _rank(
        self,
        policies: Sequence[ClusterNetworkPolicy],
        direction: Direction,
        seen: Seen,
        to: Arrival,
    ) -> tuple[list[Outcome], bool]:
        """Policies of one priority: any of those that match may be the one that is applied."""
        ends: list[Outcome] = []
        may_go_on = True
        for policy in policies:
            outcomes = self._policy(policy, direction, seen, to)
            ends += [o for o in outcomes if o.action is not None]
            may_go_on = may_go_on and outcomes[-1].action is None
        if len({o.action for o in ends}) > 1 and len({id(o.policy) for o in ends}) > 1:
            ends = [Outcome(o.action, o.policy, o.rule, o.doubt or "equal-priority") for o in ends]
        return ends, may_go_on

    def _policy(
        self, policy: ClusterNetworkPolicy, direction: Direction, seen: Seen, to: Arrival
    ) -> list[Outcome]:
        found: list[Outcome] = []
        for index, rule in enumerate(cluster_rules_of(policy, direction)):
            action, match = self.rule_matches(rule, seen, to)
            if match == YES:
                return [*found, Outcome(action, policy, index)]
            if match != NO:
                found.append(Outcome(action, policy, index, match))
        return [*found, Outcome(None)]

    def is_subject(self, policy: ClusterNetworkPolicy, pod: Pod) -> bool:
        key = (policy.name, *pod.key)
        if key not in self._subjects:
            self._subjects[key] = self._selects(policy.subject, pod)
        return self._subjects[key]

    # -- one rule ------------------------------------------------------------------------------

    def rule_matches(self, rule: ClusterRule, seen: Seen, to: Arrival) -> tuple[RuleAction, str]:
        """What the rule does and whether it matches. A peer or a protocol that this reader does
        not know makes it fail closed: Accept matches nothing, Deny and Pass deny everything."""
        if fails_closed(rule):
            return RuleAction.DENY, NO if rule.action is RuleAction.ACCEPT else YES
        if rule.ports and not any(cluster_port_matches(port, to) for port in rule.ports):
            return rule.action, NO
        return rule.action, any_of(self.peer_matches(peer, seen) for peer in rule.peers)

    def peer_matches(self, peer: ClusterPeer, seen: Seen) -> str:
        """YES, NO, or the reason code of a doubt."""
        if seen.hidden:
            return seen.unclear
        if peer.networks is not None:
            return any_of(self._network_matches(network, seen) for network in peer.networks)
        if peer.nodes is not None:
            return YES if self._is_node(peer, seen) else NO
        if peer.domain_names is not None:
            # Names are meant for what is outside; which addresses they have is not ours to know.
            inside = seen.pod is not None or seen.node
            return NO if inside else "domain-names"
        pod = seen.pod
        if pod is None or pod.host_network:
            return NO
        subject = peer.pods
        if subject is None:
            assert peer.namespaces is not None
            subject = Subject(peer.namespaces)
        return YES if self._selects(subject, pod) else NO

    def _network_matches(self, network: str, seen: Seen) -> str:
        """Pods' addresses match as any other; a Service's own address leaves a doubt."""
        plain = tuple(
            (ip, kind if kind == "ipblock-service" else "") for ip, kind in seen.addresses
        )
        return self.sides.block_matches(IPBlock(network), Seen(seen.family, addresses=plain))

    def _is_node(self, peer: ClusterPeer, seen: Seen) -> bool:
        """Whether the other end is a selected node, or on its network, or has its address."""
        assert peer.nodes is not None
        ips = {ip for ip, kind in seen.addresses if ip is not None and kind != "ipblock-service"}
        return any(
            (node.name == seen.node or not ips.isdisjoint(node.ips))
            and selects(peer.nodes, node.labels)
            for node in self.world.nodes.values()
        )

    def _selects(self, subject: Subject, pod: Pod) -> bool:
        return selects(subject.namespace_selector, self.world.namespace_labels(pod.namespace)) and (
            subject.pod_selector is None or selects(subject.pod_selector, pod.labels)
        )


def cluster_rules_of(policy: ClusterNetworkPolicy, direction: Direction) -> tuple[ClusterRule, ...]:
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def fails_closed(rule: ClusterRule) -> bool:
    """Whether the rule holds a peer or a protocol of a version that this reader does not know."""
    return (
        not rule.peers
        or any(peer == ClusterPeer() for peer in rule.peers)
        or any(port == ClusterPort() for port in rule.ports)
    )


def cluster_port_matches(wanted: ClusterPort, to: Arrival) -> bool:
    """A name is the destination pod's own, of whatever protocol it is there."""
    if wanted.name is not None:
        return to.pod is not None and any(
            own.name == wanted.name and own.protocol is to.protocol and own.port == to.port
            for own in to.pod.ports
        )
    if wanted.protocol is not to.protocol:
        return False
    return wanted.port is None or wanted.port <= to.port <= (wanted.end_port or wanted.port)


def _unmatched_text(pod: Pod, direction: Direction) -> str:
    return (
        f"no NetworkPolicy selects {pod} for {direction.lower()}, and no cluster policy's rule "
        f"decides it, so it is allowed"
    )


def _by_rule(outcome: Outcome, direction: Direction) -> Because:
    policy, index = outcome.policy, outcome.rule
    assert policy is not None
    assert index is not None
    rule = cluster_rules_of(policy, direction)[index]
    verdict = Verdict.ALLOW if outcome.action is RuleAction.ACCEPT else Verdict.DENY
    name = f" ({rule.name})" if rule.name else ""
    text = (
        f"{policy}, {policy.tier} tier, {direction.lower()} rule {index + 1}{name}, says "
        f"{rule.action}: {words.cluster_rule(rule, direction)}"
    )
    if fails_closed(rule):
        text += "; it holds a peer of an unknown kind, so it denies everything"
    code = f"{policy.tier.lower()}-{'accept' if verdict is Verdict.ALLOW else 'deny'}"
    return Because(direction, verdict, code, text, (str(policy),), index, rule.source)
