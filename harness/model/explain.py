"""One cell explained: who decides each direction, and what was considered and did not match.

The verdict is the oracle's own: this listens to it, and then asks each policy that could have had
a say why it had none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model import mismatch, words
from harness.model.cluster_policy import ClusterNetworkPolicy, ClusterRule, Tier
from harness.model.flow import Because, Cell, Decision, Verdict
from harness.model.mismatch import Why
from harness.model.oracle import Oracle
from harness.model.policy import Direction, NetworkPolicy, Rule, Source
from harness.model.profile import NO_PROFILE, REASONS, Profile
from harness.model.sides import (
    NO,
    YES,
    Arrival,
    Seen,
    isolated_directions,
    port_matches,
    rules_of,
)
from harness.model.tiers import cluster_port_matches, cluster_rules_of, fails_closed
from harness.model.world import Pod, World


@dataclass(frozen=True, slots=True)
class ConsideredRule:
    """``matches``: ``yes``, ``no``, or the reason code for which it is open. ``why`` says what
    made it ``no``, or open."""

    index: int
    words: str
    matches: str
    why: tuple[Why, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Considered:
    """A policy that could have had a say. ``selects``: whether it has one for this pod and
    direction; ``why`` says why not. ``tier``: Admin, NetworkPolicy or Baseline."""

    policy: str
    tier: str
    selects: bool
    why: tuple[Why, ...] = ()
    rules: tuple[ConsideredRule, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of one pod. ``flow``: ``dns`` for the lookup of a name, else empty. ``other``
    is the other end; ``port`` is the one that policies see, after a Service's translation."""

    pod: str
    direction: Direction
    other: str
    port: str
    because: Because
    considered: tuple[Considered, ...]
    flow: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and all that led to it."""

    cell: Cell
    decision: Decision
    sides: tuple[Side, ...]

    def text(self) -> str:
        """For people, at a terminal of any width."""
        return "\n".join(_lines(self))

    def data(self) -> dict[str, Any]:
        """For programs: plain data for JSON. Keys are stable; new ones may come."""
        return {
            "source": str(self.cell.source),
            "target": str(self.cell.target),
            "port": self.cell.port,
            "protocol": str(self.cell.protocol),
            "via": str(self.cell.via),
            "family": self.cell.family,
            "verdict": str(self.decision.verdict),
            "reason": self.decision.reason,
            "text": self.decision.text,
            "sides": [_side_data(side) for side in self.sides],
        }


def explain(world: World, cell: Cell, profile: Profile = NO_PROFILE) -> Explanation:
    """Raises as :func:`harness.model.oracle.decide`."""
    return Explainer(world, profile).explain(cell)


class Explainer(Oracle):
    """An oracle that keeps a record of the sides it looked at. One world, many cells."""

    def __init__(self, world: World, profile: Profile = NO_PROFILE) -> None:
        super().__init__(world, profile)
        self._heard: list[Side] = []
        self._flow = ""

    def explain(self, cell: Cell) -> Explanation:
        """Decide one cell and say why."""
        self._heard = []
        decision = self.decide(cell)
        return Explanation(cell, decision, tuple(self._heard))

    def _lookup(self, source: Pod, family: int) -> Decision:
        self._flow = "dns"
        try:
            return super()._lookup(source, family)
        finally:
            self._flow = ""

    def _side(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        because = super()._side(pod, direction, seen, to)
        self._heard.append(
            Side(
                str(pod),
                direction,
                seen.who,
                f"{to.port}/{to.protocol}",
                because,
                tuple(self._considered(pod, direction, seen, to)),
                self._flow,
            )
        )
        return because

    # -- what could have had a say ---------------------------------------------------------------

    def _considered(
        self, pod: Pod, direction: Direction, seen: Seen, to: Arrival
    ) -> Iterator[Considered]:
        cluster = sorted(self.world.cluster_policies.values(), key=lambda p: (p.priority, p.name))
        for policy in cluster:
            if policy.tier is Tier.ADMIN:
                yield self._cluster_policy(policy, pod, direction, seen, to)
        for _, network_policy in sorted(self.world.policies.items()):
            if network_policy.namespace == pod.namespace:
                yield self._network_policy(network_policy, pod, direction, seen, to)
        for policy in cluster:
            if policy.tier is Tier.BASELINE:
                yield self._cluster_policy(policy, pod, direction, seen, to)

    def _network_policy(
        self, policy: NetworkPolicy, pod: Pod, direction: Direction, seen: Seen, to: Arrival
    ) -> Considered:
        why = tuple(mismatch.selector(policy.pod_selector, pod.labels, str(pod)))
        if not why and direction not in isolated_directions(policy):
            types = words.listed([str(one) for one in isolated_directions(policy)])
            why = (Why("direction", f"it is about {types} only"),)
        if why:
            return Considered(str(policy), "NetworkPolicy", False, why, (), policy.source)
        rules = tuple(
            self._rule(rule, i, policy, direction, seen, to)
            for i, rule in enumerate(rules_of(policy, direction))
        )
        return Considered(str(policy), "NetworkPolicy", True, (), rules, policy.source)

    def _rule(
        self,
        rule: Rule,
        index: int,
        policy: NetworkPolicy,
        direction: Direction,
        seen: Seen,
        to: Arrival,
    ) -> ConsideredRule:
        matches = self._sides.rule_matches(rule, policy.namespace, seen, to)
        why: list[Why] = []
        if matches != YES:
            if rule.ports and not any(port_matches(port, to) for port in rule.ports):
                why += [mismatch.port(port, to) for port in rule.ports]
            for peer in rule.peers:
                if self._sides.peer_matches(peer, policy.namespace, seen) != YES:
                    why += mismatch.peer(peer, policy.namespace, seen, self.world)
        text = words.rule(rule, direction, policy.namespace)
        return ConsideredRule(index, text, matches, _decisive(why, matches), rule.source)

    def _cluster_policy(
        self, policy: ClusterNetworkPolicy, pod: Pod, direction: Direction, seen: Seen, to: Arrival
    ) -> Considered:
        why: tuple[Why, ...] = ()
        if pod.host_network:
            why = (Why("host-network", f"{pod} is on its node's network, so it is no subject"),)
        elif not self._tiers.is_subject(policy, pod):
            why = tuple(
                mismatch.in_subject(policy.subject, pod.namespace, pod.labels, str(pod), self.world)
            )
        elif not cluster_rules_of(policy, direction):
            why = (Why("direction", f"it has no {direction.lower()} rules"),)
        if why:
            return Considered(str(policy), str(policy.tier), False, why, (), policy.source)
        rules = tuple(
            self._cluster_rule(rule, i, direction, seen, to)
            for i, rule in enumerate(cluster_rules_of(policy, direction))
        )
        return Considered(str(policy), str(policy.tier), True, (), rules, policy.source)

    def _cluster_rule(
        self, rule: ClusterRule, index: int, direction: Direction, seen: Seen, to: Arrival
    ) -> ConsideredRule:
        _, matches = self._tiers.rule_matches(rule, seen, to)
        why: list[Why] = []
        if fails_closed(rule):
            why.append(Why("unknown", "it holds something of an unknown kind, so it fails closed"))
        elif matches != YES:
            if rule.ports and not any(cluster_port_matches(port, to) for port in rule.ports):
                why += [mismatch.cluster_port(port, to) for port in rule.ports]
            for peer in rule.peers:
                if self._tiers.peer_matches(peer, seen) != YES:
                    why += mismatch.cluster_peer(peer, seen, self.world)
        text = f"{rule.action} {words.cluster_rule(rule, direction)}"
        return ConsideredRule(index, text, matches, _decisive(why, matches), rule.source)


def _decisive(why: Sequence[Why], matches: str) -> tuple[Why, ...]:
    """Of an open match only what leaves it open; nothing twice."""
    kept = [one for one in why if matches == NO or one.code == matches] or list(why)
    return tuple(dict.fromkeys(kept))


# -- as text ---------------------------------------------------------------------------------------

_VERDICTS = {
    Verdict.ALLOW: "allowed",
    Verdict.DENY: "denied",
    Verdict.UNDEFINED: "left to the implementation",
}
# Policies that have no say are many in big namespaces; people want the near misses.
_SHOWN = 10


def _lines(explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    yield f"{explanation.cell}: {_VERDICTS[decision.verdict]}"
    if decision.verdict is Verdict.UNDEFINED:
        yield f"  ({decision.reason}) {REASONS.get(decision.reason, '')}".rstrip()
    if not explanation.sides:
        yield from (f"  {because.text}" for because in decision.because)
    for side in explanation.sides:
        yield ""
        yield from _side_lines(side)


def _side_lines(side: Side) -> Iterator[str]:
    word = "from" if side.direction is Direction.INGRESS else "to"
    flow = ", looking up the name" if side.flow == "dns" else ""
    yield (
        f"{side.direction} of {side.pod}, {word} {side.other}, at port {side.port}{flow}: "
        f"{_VERDICTS[side.because.verdict]}"
    )
    yield f"  {side.because.text}{_at(side.because.source)}"
    having = [one for one in side.considered if one.selects]
    for one in having:
        yield from _policy_lines(one, side)
    others = [one for one in side.considered if not one.selects]
    if others:
        yield f"  {'These' if having else 'Policies that'} do not apply:"
        for one in others[:_SHOWN]:
            why = "; ".join(reason.text for reason in one.why)
            yield f"    {one.policy}{_at(one.source)}: {why}"
        if len(others) > _SHOWN:
            yield f"    and {len(others) - _SHOWN} more"


def _policy_lines(one: Considered, side: Side) -> Iterator[str]:
    tier = "" if one.tier == "NetworkPolicy" else f", {one.tier} tier"
    yield f"  {one.policy}{tier} applies{_at(one.source)}"
    if not one.rules:
        yield f"    it has no {side.direction.lower()} rule"
    for rule in one.rules:
        said = {YES: "matches", NO: "does not match"}.get(rule.matches, "may match")
        yield f"    rule {rule.index + 1} {said}: {rule.words}"
        for reason in rule.why:
            yield f"      {reason.text}"


def _at(source: Source | None) -> str:
    return f" ({source})" if source is not None else ""


# -- as data ---------------------------------------------------------------------------------------


def _side_data(side: Side) -> dict[str, Any]:
    return {
        "pod": side.pod,
        "direction": str(side.direction),
        "other": side.other,
        "port": side.port,
        "flow": side.flow or "connection",
        "verdict": str(side.because.verdict),
        "code": side.because.code,
        "text": side.because.text,
        "policies": list(side.because.policies),
        "rule": side.because.rule,
        "source": _source_data(side.because.source),
        "considered": [
            {
                "policy": one.policy,
                "tier": one.tier,
                "applies": one.selects,
                "why": [{"code": why.code, "text": why.text} for why in one.why],
                "source": _source_data(one.source),
                "rules": [
                    {
                        "index": rule.index,
                        "text": rule.words,
                        "matches": rule.matches,
                        "why": [{"code": why.code, "text": why.text} for why in rule.why],
                        "source": _source_data(rule.source),
                    }
                    for rule in one.rules
                ],
            }
            for one in side.considered
        ],
    }


def _source_data(source: Source | None) -> dict[str, Any] | None:
    return None if source is None else {"file": source.file, "line": source.line}
