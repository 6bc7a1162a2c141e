"""Whole worlds at once: who reaches whom at which ports, for thousands of pods.

The oracle is the definition, one cell at a time; this comes to the same verdicts (a property test
holds the two together) by sets: each pod and direction has a *row*, which says for which ports
which points are allowed and which are left open. Pods that are isolated by the same policies share
their row. It covers connections between pods and hosts outside, by address. For nodes, Services
and reasons ask the oracle.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.flow import Endpoint, Verdict
from harness.model.points import Bits, Points, endpoint_of, members
from harness.model.policy import Direction, IPBlock, NetworkPolicy, Peer, Protocol, Rule
from harness.model.portsets import (
    ALL_PORTS,
    FIRST_PORT,
    LAST_PORT,
    NO_PORTS,
    Ports,
    Stretch,
    difference,
    holds,
    intersection,
    ports,
    union,
)
from harness.model.profile import NO_PROFILE, Profile, check_profile
from harness.model.sides import isolated_directions, rules_of
from harness.model.tiers import cluster_rules_of, fails_closed
from harness.model.world import External, Pod, World

if TYPE_CHECKING:
    from harness.model.table import Table


class Item(NamedTuple):
    """For these ports: the points that are allowed, and those for which it is left open."""

    ports: Ports
    allow: Bits
    undefined: Bits


#: What one direction of one pod says. The items' ports are disjoint, and together all ports.
Row = tuple[Item, ...]

# A stretch of ports for which a rule holds, and for whom (named ports: who has that name there).
_Cover = tuple[Stretch, Bits]


@dataclass(frozen=True, slots=True)
class Connection:
    """What one end may do to another: the ports that are allowed and those that are left open;
    the others are denied."""

    allow: Ports
    undefined: Ports = NO_PORTS

    def verdict(self, protocol: Protocol, port: int) -> Verdict:
        if holds(self.allow, protocol, port):
            return Verdict.ALLOW
        return Verdict.UNDEFINED if holds(self.undefined, protocol, port) else Verdict.DENY


OPEN = Connection(ALL_PORTS)


class Change(NamedTuple):
    """A pair of ends and its connection before and after."""

    source: Endpoint
    target: Endpoint
    before: Connection
    after: Connection


@dataclass(slots=True)
class _Rule:
    """A rule that matches ``yes`` for sure and ``maybe`` perhaps, where it covers the port."""

    covers: tuple[_Cover, ...]
    yes: Bits
    maybe: Bits
    action: RuleAction = RuleAction.ACCEPT


@dataclass(slots=True)
class _Policy:
    """A NetworkPolicy with what is known of it. ``serial`` is unique among all that were seen."""

    policy: NetworkPolicy
    serial: int
    subjects: Bits
    names_ports: bool


class Reach:
    """The reachability of a world in one address family, under one profile. Never changes:
    :meth:`with_policy` and :meth:`without_policy` give another that shares what is the same.

    Raises ValueError for an impossible profile.
    """

    def __init__(self, world: World, family: int = 4, profile: Profile = NO_PROFILE) -> None:
        check_profile(profile)
        self.world = world
        self.profile = profile
        self.points = Points(world, family)
        self._open: Row = (Item(ALL_PORTS, self.points.all, 0),)
        self._serials = count(1)  # one for all worlds that come of this: they share their rows
        self._rows: dict[tuple[object, ...], Row] = {}
        self._same: dict[Row, Row] = {}
        self._peers: dict[tuple[Peer, str], tuple[Bits, Bits]] = {}
        self._policies: dict[tuple[str, str], _Policy] = {}
        size = len(self.points.ends)
        isolating: dict[Direction, list[list[_Policy]]] = {
            direction: [[] for _ in range(size)] for direction in Direction
        }
        for key, policy in sorted(world.policies.items()):
            known = self._policies[key] = self._known(policy)
            for direction in set(isolated_directions(policy)):
                for i in members(known.subjects):
                    isolating[direction][i].append(known)
        self._isolating: dict[Direction, list[tuple[_Policy, ...]]] = {
            direction: [tuple(found) for found in lists] for direction, lists in isolating.items()
        }
        self._row_of: dict[Direction, list[Row | None]] = {
            direction: [None] * size for direction in Direction
        }
        self._cluster = sorted(world.cluster_policies.values(), key=lambda p: (p.priority, p.name))
        self._subjects = {
            policy.name: self._subject(policy.subject) & ~self.points.host_network
            for policy in self._cluster
        }

    def _known(self, policy: NetworkPolicy) -> _Policy:
        subjects = self.points.selected(policy.pod_selector, policy.namespace)
        names = any(
            isinstance(port.port, str)
            for rule in (*policy.ingress, *policy.egress)
            for port in rule.ports
        )
        return _Policy(policy, next(self._serials), subjects, names)

    # -- questions -----------------------------------------------------------------------------

    def connection(self, source: Endpoint, target: Endpoint) -> Connection:
        """What ``source`` may do to ``target``, for two different ends. KeyError for one that is
        no point: a node or Service, or a pod that is not there or has no such address."""
        one, two = self.points.index[source], self.points.index[target]
        egress = seen_in(self.row(one, Direction.EGRESS), two)
        return both(egress, seen_in(self.row(two, Direction.INGRESS), one))

    def verdict(
        self, source: Endpoint, target: Endpoint, port: int, protocol: Protocol = Protocol.TCP
    ) -> Verdict:
        """The verdict on one cell, as :func:`harness.model.oracle.decide` has it. KeyError as for
        :meth:`connection`."""
        if source == target:
            return Verdict.UNDEFINED
        return self.connection(source, target).verdict(protocol, port)

    def table(self) -> Table:
        """Everybody to everybody, those that nothing tells apart taken together."""
        from harness.model.table import Table

        return Table.of(self)

    # -- changes -------------------------------------------------------------------------------

    def with_policy(self, policy: NetworkPolicy) -> Reach:
        """After this policy was created, or replaced the one of its name."""
        policies = {**self.world.policies, policy.key: policy}
        return self._changed(policy.key, policy, self.world.with_(policies=policies))

    def without_policy(self, namespace: str, name: str) -> Reach:
        """After this policy was deleted. KeyError if there is none."""
        policies = dict(self.world.policies)
        del policies[namespace, name]
        return self._changed((namespace, name), None, self.world.with_(policies=policies))

    def _changed(self, key: tuple[str, str], policy: NetworkPolicy | None, world: World) -> Reach:
        new = copy(self)
        new.world = world
        new._policies = dict(self._policies)
        new._isolating = {direction: list(found) for direction, found in self._isolating.items()}
        new._row_of = {direction: list(rows) for direction, rows in self._row_of.items()}
        old = new._policies.pop(key, None)
        known = new._known(policy) if policy is not None else None
        if known is not None:
            new._policies[key] = known
        touched = (old.subjects if old else 0) | (known.subjects if known else 0)
        for direction, lists in new._isolating.items():
            for i in members(touched):
                kept = [one for one in lists[i] if one is not old]
                if (
                    known is not None
                    and known.subjects >> i & 1
                    and direction in isolated_directions(known.policy)
                ):
                    kept.append(known)
                lists[i] = tuple(sorted(kept, key=lambda one: one.policy.key))
                new._row_of[direction][i] = None
        return new

    def changes(self, after: Reach) -> Iterator[Change]:
        """What ``after``, which came of this by changes of policies, says otherwise: every pair
        of ends whose connection is another one, a pod to itself left out."""
        pairs: set[tuple[int, int]] = set()
        for direction in Direction:
            for i in range(len(self.points.ends)):
                old, new = self.row(i, direction), after.row(i, direction)
                if old is not new:
                    others = members(_differing(old, new))
                    pairs |= {(i, o) if direction is Direction.EGRESS else (o, i) for o in others}
        for one, two in sorted(pairs):
            if one != two:
                source, target = (endpoint_of(self.points.ends[i]) for i in (one, two))
                before, now = (reach.connection(source, target) for reach in (self, after))
                if before != now:
                    yield Change(source, target, before, now)

    # -- rows ----------------------------------------------------------------------------------

    def row(self, index: int, direction: Direction) -> Row:
        """What one point says of one direction; equal rows are the same object."""
        row = self._row_of[direction][index]
        if row is None:
            row = self._row_of[direction][index] = self._find_row(index, direction)
        return row

    def _find_row(self, index: int, direction: Direction) -> Row:
        end = self.points.ends[index]
        if isinstance(end, External):
            return self._same.setdefault(self._open, self._open)
        isolating = self._isolating[direction][index]
        cluster = tuple(
            policy
            for policy in self._cluster
            if self._subjects[policy.name] >> index & 1 and cluster_rules_of(policy, direction)
        )
        # In ingress a port's name is the pod's own; in egress it is the other ends', for all alike.
        own_names: object = None
        if direction is Direction.INGRESS and (
            cluster or any(known.names_ports for known in isolating)
        ):
            own_names = tuple((p.name, p.protocol, p.port) for p in end.ports if p.name)
        own_node = self._own_node(end) if direction is Direction.INGRESS else 0
        key = (
            direction,
            tuple(known.serial for known in isolating),
            tuple(policy.name for policy in cluster),
            end.host_network,
            own_names,
            own_node,
        )
        row = self._rows.get(key)
        if row is None:
            row = self._row(end, direction, isolating, cluster, own_node)
            row = self._rows[key] = self._same.setdefault(row, row)
        return row

    def _row(
        self,
        pod: Pod,
        direction: Direction,
        isolating: Sequence[_Policy],
        cluster: Sequence[ClusterNetworkPolicy],
        own_node: Bits,
    ) -> Row:
        if not isolating and not cluster:
            return self._open
        rules = [
            self._rule(rule, known.policy.namespace, pod, direction)
            for known in isolating
            for rule in rules_of(known.policy, direction)
        ]
        ranks = {
            tier: self._ranks([p for p in cluster if p.tier is tier], pod, direction)
            for tier in Tier
        }
        cuts = _Cuts(
            cover
            for rule in (*rules, *(r for rank in ranks.values() for r in _rules_in(rank)))
            for cover, _ in rule.covers
        )
        allowed = cuts.spread(rules, lambda rule: rule.yes)
        perhaps = cuts.spread(rules, lambda rule: rule.maybe)
        if self.profile.get("host-network-peer") is None:
            perhaps = [bits | self.points.host_network for bits in perhaps]
        found: dict[tuple[Bits, Bits], list[Stretch]] = {}
        for i, stretch in enumerate(cuts.stretches):
            yes = self.points.all if not isolating else allowed[i]
            maybe = 0 if not isolating else perhaps[i] & ~yes
            if isolating and pod.host_network:
                yes, maybe = self._host_network_subject(yes, maybe)
            if cluster:
                yes, maybe = self._tiers(ranks, stretch, yes, maybe, final=bool(isolating))
            found.setdefault((yes | own_node, maybe & ~own_node), []).append(stretch)
        return tuple(Item(ports(stretches), *bits) for bits, stretches in found.items())

    def _own_node(self, pod: Pod) -> Bits:
        """Those that have the address of the pod's own node, and so always reach it."""
        if self.profile.get("host-network-peer") != "address" or not pod.node:
            return 0
        return self.points.of_node.get(pod.node, 0)

    def _host_network_subject(self, yes: Bits, maybe: Bits) -> tuple[Bits, Bits]:
        match self.profile.get("host-network-subject"):
            case "open":
                return self.points.all, 0
            case "policy":
                return yes, maybe
            case _:
                return yes, self.points.all & ~yes

    # -- NetworkPolicy -------------------------------------------------------------------------

    def _rule(self, rule: Rule, namespace: str, pod: Pod, direction: Direction) -> _Rule:
        covers: list[_Cover] = []
        for port in rule.ports:
            if isinstance(port.port, str):
                covers += self._named(port.port, port.protocol, pod, direction)
            else:
                first = port.port or FIRST_PORT
                last = (port.end_port or port.port) if port.port else LAST_PORT
                covers.append(((port.protocol, first, last or first), self.points.all))
        if not rule.ports:
            covers = _cover_all(self.points.all)
        if not rule.peers:
            return _Rule(tuple(covers), self.points.all, 0)
        yes = maybe = 0
        for peer in rule.peers:
            sure, doubtful = self._peer(peer, namespace)
            yes, maybe = yes | sure, maybe | doubtful
        return _Rule(tuple(covers), yes, maybe)

    def _named(
        self, name: str, protocol: Protocol | None, pod: Pod, direction: Direction
    ) -> Iterator[_Cover]:
        """Where a port's name leads: on the pod itself, or on those that it connects to."""
        if direction is Direction.INGRESS:
            for own in pod.ports:
                if own.name == name and protocol in (None, own.protocol):
                    yield (own.protocol, own.port, own.port), self.points.all
            return
        for (found, number), who in self.points.named_ports.get(name, {}).items():
            if protocol in (None, found):
                yield (found, number, number), who

    def _peer(self, peer: Peer, namespace: str) -> tuple[Bits, Bits]:
        key = (peer, namespace)
        found = self._peers.get(key)
        if found is None:
            found = self._peers[key] = self._peer_bits(peer, namespace)
        return found

    def _peer_bits(self, peer: Peer, namespace: str) -> tuple[Bits, Bits]:
        """The points that a peer matches, and those that it may match."""
        if peer.ip_block is not None:
            return self._block(peer.ip_block)
        if peer.pod_selector is None and peer.namespace_selector is None:
            return 0, 0
        bits = self.points.pods
        if self.profile.get("host-network-peer") != "pod":
            bits &= ~self.points.host_network
        if peer.namespace_selector is None:
            bits &= self.points.of_namespace.get(namespace, 0)
        else:
            bits &= self.points.in_namespaces(peer.namespace_selector)
        if peer.pod_selector is not None:
            bits &= self.points.selected(peer.pod_selector)
        return bits, 0

    def _block(self, block: IPBlock) -> tuple[Bits, Bits]:
        held, unknown = self.points.held(block)
        plain, pods = self.points.outside, self.points.pods & ~self.points.host_network
        match self.profile.get("host-network-peer"):
            case "address":
                plain |= self.points.host_network
            case "pod":
                pods |= self.points.host_network
        match self.profile.get("ipblock-pod"):
            case "match":
                return held & (plain | pods), unknown & (plain | pods)
            case "no-match":
                return held & plain, unknown & plain
            case _:
                return held & plain, unknown & plain | (held | unknown) & pods

    # -- ClusterNetworkPolicy ------------------------------------------------------------------

    def _ranks(
        self, policies: Sequence[ClusterNetworkPolicy], pod: Pod, direction: Direction
    ) -> list[list[list[_Rule]]]:
        """The rules of a tier: by priority, then by policy, in order."""
        by_priority: dict[int, list[list[_Rule]]] = {}
        for policy in policies:
            rules = [
                self._cluster_rule(rule, pod, direction)
                for rule in cluster_rules_of(policy, direction)
            ]
            by_priority.setdefault(policy.priority, []).append(rules)
        return [by_priority[priority] for priority in sorted(by_priority)]

    def _cluster_rule(self, rule: ClusterRule, pod: Pod, direction: Direction) -> _Rule:
        everything = tuple(_cover_all(self.points.all))
        if fails_closed(rule):
            yes = 0 if rule.action is RuleAction.ACCEPT else self.points.all
            return _Rule(everything, yes, 0, RuleAction.DENY)
        covers: list[_Cover] = []
        for port in rule.ports:
            if port.name is not None:
                covers += self._named(port.name, None, pod, direction)
            elif port.protocol is not None:
                first = port.port or FIRST_PORT
                last = (port.end_port or port.port) if port.port else LAST_PORT
                covers.append(((port.protocol, first, last or first), self.points.all))
        yes = maybe = 0
        for peer in rule.peers:
            sure, doubtful = self._cluster_peer(peer)
            yes, maybe = yes | sure, maybe | doubtful
        return _Rule(tuple(covers) if rule.ports else everything, yes, maybe, rule.action)

    def _cluster_peer(self, peer: ClusterPeer) -> tuple[Bits, Bits]:
        points = self.points
        if peer.networks is not None:
            yes = maybe = 0
            for network in peer.networks:
                held, unknown = points.held(IPBlock(network))
                yes, maybe = yes | held, maybe | unknown
            return yes, maybe
        if peer.nodes is not None:
            return points.on_nodes(peer.nodes), 0
        if peer.domain_names is not None:
            nowhere = points.of_node.get("", 0)
            if self.profile.get("host-network-peer") == "pod":
                nowhere = 0
            return 0, points.outside | nowhere
        subject = peer.pods
        if subject is None:
            assert peer.namespaces is not None
            subject = Subject(peer.namespaces)
        return self._subject(subject) & ~points.host_network, 0

    def _subject(self, subject: Subject) -> Bits:
        bits = self.points.in_namespaces(subject.namespace_selector)
        if subject.pod_selector is not None:
            bits &= self.points.selected(subject.pod_selector)
        return bits

    def _tiers(
        self,
        ranks: Mapping[Tier, list[list[list[_Rule]]]],
        stretch: Stretch,
        yes: Bits,
        maybe: Bits,
        *,
        final: bool,
    ) -> tuple[Bits, Bits]:
        """Cluster policies around what NetworkPolicy says (``yes``, ``maybe``; ``final`` where it
        isolates) at one stretch of ports."""
        accepted, denied, left = _tier(ranks[Tier.ADMIN], stretch, self.points.all)
        can_deny = denied
        if final:
            can_allow = accepted | left & (yes | maybe)
            can_deny |= left & ~yes
        else:
            base_accepted, base_denied, base_left = _tier(ranks[Tier.BASELINE], stretch, left)
            can_allow = accepted | base_accepted | base_left
            can_deny |= base_denied
        return can_allow & ~can_deny, can_allow & can_deny


def _tier(ranks: list[list[list[_Rule]]], stretch: Stretch, reach: Bits) -> tuple[Bits, Bits, Bits]:
    """The points for which a tier may end in Accept, in Deny, and without either."""
    accepted = denied = passed = 0
    for policies in ranks:
        after = reach
        for rules in policies:
            left = reach
            for rule in rules:
                there = _covering(rule, stretch)
                may = left & there & (rule.yes | rule.maybe)
                if rule.action is RuleAction.ACCEPT:
                    accepted |= may
                elif rule.action is RuleAction.DENY:
                    denied |= may
                else:
                    passed |= may
                left &= ~(there & rule.yes)
            after &= left
        reach = after
    return accepted, denied, passed | reach


def _covering(rule: _Rule, stretch: Stretch) -> Bits:
    """Those for whom the rule is about these ports."""
    protocol, first, last = stretch
    bits = 0
    for (own, a, b), who in rule.covers:
        if own is protocol and a <= first and last <= b:
            bits |= who
    return bits


def _rules_in(ranks: list[list[list[_Rule]]]) -> Iterator[_Rule]:
    for policies in ranks:
        for rules in policies:
            yield from rules


def _cover_all(everybody: Bits) -> list[_Cover]:
    return [(stretch, everybody) for stretch in ALL_PORTS]


class _Cuts:
    """All ports, cut where rules begin and end: within a stretch none makes a difference."""

    def __init__(self, covers: Iterable[Stretch]) -> None:
        starts = {protocol: {FIRST_PORT} for protocol in Protocol}
        for protocol, first, last in covers:
            starts[protocol].add(first)
            starts[protocol].add(last + 1)
        self.stretches: list[Stretch] = []
        self._starts: dict[Protocol, tuple[list[int], int]] = {}
        for protocol in sorted(Protocol):
            found = sorted(start for start in starts[protocol] if start <= LAST_PORT)
            self._starts[protocol] = (found, len(self.stretches))
            ends = [start - 1 for start in found[1:]] + [LAST_PORT]
            self.stretches += [
                (protocol, first, last) for first, last in zip(found, ends, strict=True)
            ]

    def spread(self, rules: Sequence[_Rule], what: Callable[[_Rule], Bits]) -> list[Bits]:
        """For each stretch the points of all rules that cover it."""
        found = [0] * len(self.stretches)
        for rule in rules:
            bits = what(rule)
            if not bits:
                continue
            for (protocol, first, last), who in rule.covers:
                starts, offset = self._starts[protocol]
                for i in range(bisect_left(starts, first), bisect_left(starts, last + 1)):
                    found[offset + i] |= bits & who
        return found


# -- two directions together -----------------------------------------------------------------------


def seen_in(row: Row, index: int) -> Connection:
    """What a row says of one point."""
    allow: Ports = NO_PORTS
    undefined: Ports = NO_PORTS
    for item in row:
        if item.allow >> index & 1:
            allow = union(allow, item.ports) if allow else item.ports
        elif item.undefined >> index & 1:
            undefined = union(undefined, item.ports) if undefined else item.ports
    return OPEN if allow == ALL_PORTS else Connection(allow, undefined)


def _differing(one: Row, two: Row) -> Bits:
    """The points of which two rows say something different at some port."""
    bits = 0
    for a in one:
        for b in two:
            if intersection(a.ports, b.ports):
                bits |= a.allow ^ b.allow | a.undefined ^ b.undefined
    return bits


def both(egress: Connection, ingress: Connection) -> Connection:
    """Allowed is what both allow; one denial is enough, whatever is open about the other."""
    if egress is OPEN:
        return ingress
    if ingress is OPEN:
        return egress
    allow = intersection(egress.allow, ingress.allow)
    possible = intersection(
        union(egress.allow, egress.undefined), union(ingress.allow, ingress.undefined)
    )
    return Connection(allow, difference(possible, allow))


__all__ = ["OPEN", "Change", "Connection", "Item", "Reach", "Row", "both", "endpoint_of", "seen_in"]
