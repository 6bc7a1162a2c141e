"""Compile: objects in, one :class:`~harness.enforcer.compiled.Compiled` out. No I/O.

Incremental: an object that changes marks what it touches, and :meth:`Compiler.snapshot` works out
only that. A snapshot depends on the objects that are there and not on how they came (but for an
address that two pods claim, see :mod:`harness.enforcer.claims`); a test holds it to that.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from harness.enforcer import meaning, ranges
from harness.enforcer.claims import Claims
from harness.enforcer.compiled import (
    ANY,
    Addresses,
    Anything,
    Blocks,
    Compiled,
    Doors,
    LocalPod,
    Peers,
    PodKey,
    PodQuery,
    Ports,
    Row,
    Target,
)
from harness.enforcer.podindex import Move, PodIndex, pods_in
from harness.model.policy import Direction, Labels, NetworkPolicy, Protocol
from harness.model.world import Namespace, Node, Pod

PolicyKey = tuple[str, str]
Union = frozenset[PodQuery]
Name = tuple[Protocol, str]


class Known(NamedTuple):
    """What the last snapshot said of a pod."""

    addresses: tuple[str, ...]
    names: tuple[tuple[Protocol, str, int], ...]


NOTHING_KNOWN = Known((), ())


class Merged(NamedTuple):
    """Rows of single policies, and the one row that says the same."""

    parts: list[Row]
    row: Row


class Compiler:
    """Holds the objects of the cluster and compiles what the pods of ``node`` need.

    ``problems`` tells, by object, what could not be compiled: such a rule allows nothing, and
    its policy isolates as it would without it.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.problems: dict[str, tuple[str, ...]] = {}
        self._namespaces: dict[str, Labels] = {}
        self._pods: dict[PodKey, Pod] = {}
        self._policies: dict[PolicyKey, NetworkPolicy] = {}
        self._rules: dict[PolicyKey, dict[Direction, tuple[Row, ...]]] = {}
        self._by_target: dict[Target, dict[PolicyKey, None]] = {}
        self._merged: dict[Target, dict[Ports | Anything, Merged]] = {}
        self._claims = Claims()
        self._peers = PodIndex(self._namespaces)
        self._subjects = PodIndex(self._namespaces)
        self._known: dict[PodKey, Known] = {}
        # how many rows speak of a union, a name; how many unions of a query; who uses a query
        self._unions: Counter[Union] = Counter()
        self._names: Counter[Name] = Counter()
        self._union_pods: dict[Union, set[PodKey]] = {}
        self._unions_of: dict[PodQuery, dict[Union, None]] = {}
        # what changed since the last snapshot
        self._stale_pods: set[PodKey] = set()
        self._stale_locals: set[PodKey] = set()
        self._stale_targets: set[Target] = set()
        self._stale_unions: set[tuple[PodKey, Union]] = set()
        self._guarded: tuple[str, ...] = ()
        self._out = Compiled()

    # Objects

    def put(self, thing: Namespace | Pod | Node | NetworkPolicy) -> None:
        """An object is there, new or changed."""
        match thing:
            case Namespace():
                self._put_namespace(thing.name, thing.labels)
            case Pod():
                self._put_pod(thing)
            case NetworkPolicy():
                self._put_policy(thing)
            case Node():
                if thing.name == self.node:
                    self._guard(thing.pod_cidrs)

    def drop(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """An object is gone."""
        match kind:
            case "Namespace":
                self._put_namespace(name, None)
            case "Pod":
                self._drop_pod((namespace, name), uid)
            case "NetworkPolicy":
                self._drop_policy((namespace, name))
            case "Node":
                if name == self.node:
                    self._guard(())

    def _put_namespace(self, name: str, labels: Labels | None) -> None:
        if labels == self._namespaces.get(name):
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        self._peers_moved(self._peers.relabel(name))
        self._subjects.relabel(name)  # a policy selects in its own namespace: nobody can move

    def _put_pod(self, pod: Pod) -> None:
        key = pod.key
        self._pods[key] = pod
        if meaning.peer(pod):
            self._peers_moved(self._peers.put(key, pod.labels))
        else:
            self._peers_moved(self._peers.drop(key))
        if meaning.subject(pod) and pod.node == self.node:
            self._subjects_moved(self._subjects.put(key, pod.labels))
        else:
            self._subjects_moved(self._subjects.drop(key))
        self._claim(pod, pod.ips if meaning.peer(pod) else ())

    def _drop_pod(self, key: PodKey, uid: str) -> None:
        there = self._pods.get(key)
        if there is None or (uid and there.uid and uid != there.uid):
            return  # the end of a pod whose successor of the same name is here already
        del self._pods[key]
        self._peers_moved(self._peers.drop(key))
        self._subjects_moved(self._subjects.drop(key))
        self._claim(there, ())

    def _claim(self, pod: Pod, addresses: tuple[str, ...]) -> None:
        wanted = tuple(canonical(addresses))
        self._stale_pods |= self._claims.claim(
            pod.key, wanted, uid=pod.uid, leaving=pod.terminating
        )
        self._stale_pods.add(pod.key)

    def _put_policy(self, policy: NetworkPolicy) -> None:
        if self._policies.get(policy.key) == policy:
            return
        self._drop_policy(policy.key)
        self._policies[policy.key] = policy
        problems: list[str] = []
        self._rules[policy.key] = {
            direction: tuple(compile_rules(policy, direction, problems))
            for direction in meaning.directions(policy)
        }
        if problems:
            self.problems[f"NetworkPolicy {policy}"] = tuple(problems)
        query = meaning.target(policy)
        self._subjects.watch(query)
        for direction in meaning.directions(policy):
            self._by_target.setdefault(Target(direction, query), {})[policy.key] = None
            self._stale_target(Target(direction, query))

    def _drop_policy(self, key: PolicyKey) -> None:
        policy = self._policies.pop(key, None)
        if policy is None:
            return
        del self._rules[key]
        self.problems.pop(f"NetworkPolicy {policy}", None)
        query = meaning.target(policy)
        for direction in meaning.directions(policy):
            target = Target(direction, query)
            del self._by_target[target][key]
            self._stale_target(target)

    def _guard(self, cidrs: tuple[str, ...]) -> None:
        self._guarded = tuple(sorted(cidrs))

    # What an object touches

    def _peers_moved(self, moves: Iterable[Move]) -> None:
        for key, query in moves:
            for union in self._unions_of.get(query, ()):
                self._stale_unions.add((key, union))

    def _subjects_moved(self, moves: list[Move]) -> None:
        self._stale_locals |= pods_in(moves)
        for _, query in moves:
            for direction in Direction:
                target = Target(direction, query)
                if target in self._by_target:
                    self._stale_targets.add(target)

    def _stale_target(self, target: Target) -> None:
        self._stale_targets.add(target)
        self._stale_locals |= self._subjects.members(target.query)

    # The snapshot

    def snapshot(self) -> Compiled:
        """What has to be in force now. Parts that did not change are the same objects."""
        out = self._out
        targets, fresh_unions, fresh_names = self._settle_targets(out.targets)
        known_before, known_now = self._settle_known()
        self._out = Compiled(
            pods=self._settle_locals(out.pods, known_now),
            targets=targets,
            pod_sets=self._settle_unions(out.pod_sets, fresh_unions, known_before, known_now),
            named_ports=self._settle_names(out.named_ports, fresh_names, known_before, known_now),
            guarded=self._guarded,
        )
        self._stale_pods.clear()
        return self._out

    def _settle_targets(
        self, before: Mapping[Target, tuple[Row, ...]]
    ) -> tuple[Mapping[Target, tuple[Row, ...]], set[Union], set[Name]]:
        targets = dict(before) if self._stale_targets else before
        assert isinstance(targets, dict)
        unions, names = Counter(self._unions), Counter(self._names)
        for target in self._stale_targets:
            policies = self._by_target.get(target, {})
            old = before.get(target, ())
            new: tuple[Row, ...] = ()
            if policies and self._subjects.members(target.query):
                rows = [row for key in policies for row in self._rules[key][target.direction]]
                targets[target] = new = merge_rows(rows, self._merged.setdefault(target, {}))
            else:
                targets.pop(target, None)
                self._merged.pop(target, None)
            if not policies:
                self._forget_target(target)
            for rows_then, sign in ((new, 1), (old, -1)):
                for row in rows_then:
                    for union in unions_of(row):
                        unions[union] += sign
                    for name in names_of(row):
                        names[name] += sign
        self._stale_targets.clear()
        fresh_unions = {union for union, uses in unions.items() if uses > 0} - set(self._unions)
        fresh_names = {name for name, uses in names.items() if uses > 0} - set(self._names)
        gone = [union for union, uses in unions.items() if uses <= 0]
        self._unions, self._names = +unions, +names
        for union in fresh_unions:
            for query in union:
                self._peers.watch(query)
                self._unions_of.setdefault(query, {})[union] = None
        for union in gone:
            self._union_pods.pop(union, None)
            for query in union:
                self._unions_of[query].pop(union, None)
                if not self._unions_of[query]:
                    del self._unions_of[query]
                    self._peers.unwatch(query)
        return targets, fresh_unions, fresh_names

    def _forget_target(self, target: Target) -> None:
        self._by_target.pop(target, None)
        if not any(Target(direction, target.query) in self._by_target for direction in Direction):
            self._subjects.unwatch(target.query)

    def _settle_known(self) -> tuple[dict[PodKey, Known], dict[PodKey, Known]]:
        """What was said of the pods that changed; and what is said of all pods now."""
        before: dict[PodKey, Known] = {}
        for key in self._stale_pods:
            old = self._known.get(key, NOTHING_KNOWN)
            addresses = self._claims.of(key)
            names = tuple(meaning.named_ports(self._pods[key])) if addresses else ()
            new = Known(addresses, names)
            if new == old:
                continue
            before[key] = old
            if addresses:
                self._known[key] = new
            else:
                self._known.pop(key, None)
            for query in self._peers.found_by(key):
                self._stale_unions.update((key, union) for union in self._unions_of.get(query, ()))
            self._stale_locals.add(key)
        return before, self._known

    def _settle_unions(
        self,
        before: Mapping[Union, Addresses],
        fresh: set[Union],
        known_before: Mapping[PodKey, Known],
        known_now: Mapping[PodKey, Known],
    ) -> Mapping[Union, Addresses]:
        if not self._stale_unions and not fresh and len(before) == len(self._unions):
            return before
        sets = {union: addresses for union, addresses in before.items() if union in self._unions}
        taken: dict[Union, set[str]] = {}
        given: dict[Union, set[str]] = {}
        for key, union in self._stale_unions:
            if union not in sets:
                continue
            pods = self._union_pods[union]
            now = known_now.get(key, NOTHING_KNOWN)
            if key in pods:
                pods.discard(key)
                taken.setdefault(union, set()).update(known_before.get(key, now).addresses)
            if not union.isdisjoint(self._peers.found_by(key)):
                pods.add(key)
                given.setdefault(union, set()).update(now.addresses)
        self._stale_unions.clear()
        for union in taken.keys() | given.keys():
            sets[union] = changed(sets[union], taken.get(union, ()), given.get(union, ()))
        for union in fresh:
            pods = set().union(*(self._peers.members(query) for query in union))
            self._union_pods[union] = pods
            sets[union] = split(
                address for key in pods for address in known_now.get(key, NOTHING_KNOWN).addresses
            )
        return sets

    def _settle_names(
        self,
        before: Mapping[Name, Doors],
        fresh: set[Name],
        known_before: Mapping[PodKey, Known],
        known_now: Mapping[PodKey, Known],
    ) -> Mapping[Name, Doors]:
        doors = {name: pairs for name, pairs in before.items() if name in self._names}
        for name in fresh:
            doors[name] = doors_of(name, known_now.values())
        for name in self._names.keys() - fresh:
            taken = doors_of(name, known_before.values())
            given = doors_of(name, (known_now.get(key, NOTHING_KNOWN) for key in known_before))
            if taken != given:
                old = doors[name]
                doors[name] = Doors(old.v4 - taken.v4 | given.v4, old.v6 - taken.v6 | given.v6)
        return before if doors == before else doors

    def _settle_locals(
        self, before: Mapping[PodKey, LocalPod], known: Mapping[PodKey, Known]
    ) -> Mapping[PodKey, LocalPod]:
        pods = dict(before)
        for key in self._stale_locals:
            addresses = known.get(key, NOTHING_KNOWN).addresses
            if not addresses or not self._subjects.has(key):
                pods.pop(key, None)
                continue
            pod = LocalPod(
                addresses,
                self._targets_of(key, Direction.INGRESS),
                self._targets_of(key, Direction.EGRESS),
            )
            if pods.get(key) != pod:
                pods[key] = pod
        self._stale_locals.clear()
        return before if pods == before else pods

    def _targets_of(self, key: PodKey, direction: Direction) -> tuple[Target, ...] | None:
        targets = (Target(direction, query) for query in self._subjects.found_by(key))
        return tuple(sorted((t for t in targets if t in self._by_target), key=repr)) or None


# Pure pieces


def compile_rules(
    policy: NetworkPolicy, direction: Direction, problems: list[str]
) -> Iterator[Row]:
    """A row for each rule of a policy; what has no meaning allows nothing, and is reported."""
    for index, rule in enumerate(meaning.rules(policy, direction)):
        place = f"{direction.lower()}[{index}]"
        try:
            peers: Peers | Anything = ANY
            if rule.peers:
                peers = Peers(
                    meaning.queries(rule.peers, policy.namespace), meaning.blocks(rule.peers)
                )
            yield Row(peers, meaning.ports(rule.ports), (f"{policy} {place}",))
        except meaning.UnclearError as error:
            problems.append(f"{place}: {error}")


def merge_rows(rows: Iterable[Row], merged: dict[Ports | Anything, Merged]) -> tuple[Row, ...]:
    """One row for each distinct list of ports, with the union of its peers.

    ``merged`` is what was merged the last time, brought up to date: a merged row whose parts are
    the same stays the same object.
    """
    by_ports: dict[Ports | Anything, list[Row]] = {}
    for row in rows:
        by_ports.setdefault(row.ports, []).append(row)
    for ports in merged.keys() - by_ports.keys():
        del merged[ports]
    for ports, same in by_ports.items():
        known = merged.get(ports)
        if known is None or known.parts != same:
            peers = join_peers(row.peers for row in same)
            merged[ports] = Merged(same, Row(peers, ports, join_origins(same)))
    return tuple(sorted((one.row for one in merged.values()), key=lambda row: row.origins))


def join_peers(peers: Iterable[Peers | Anything]) -> Peers | Anything:
    """The union of peers."""
    known: list[Peers] = []
    for one in peers:
        if isinstance(one, Anything):
            return ANY
        known.append(one)
    if len(known) == 1:
        return known[0]
    return Peers(
        frozenset().union(*(one.pods for one in known)),
        Blocks(
            ranges.union(span for one in known for span in one.blocks.v4),
            ranges.union(span for one in known for span in one.blocks.v6),
        ),
    )


def join_origins(rows: Iterable[Row]) -> tuple[str, ...]:
    """The rules of policies behind some rows, in the order of their names."""
    return tuple(sorted({origin for row in rows for origin in row.origins}))


def unions_of(row: Row) -> Iterator[Union]:
    """The pod sets that a row speaks of."""
    if isinstance(row.peers, Peers) and row.peers.pods:
        yield row.peers.pods


def names_of(row: Row) -> Iterator[Name]:
    """The names of ports that a row speaks of."""
    if isinstance(row.ports, Ports):
        yield from row.ports.names


def doors_of(name: Name, pods: Iterable[Known]) -> Doors:
    """Addresses of the pods that have this name for a port, with the number that it stands for."""
    pairs = [
        (address, number)
        for addresses, names in pods
        for protocol, called, number in names
        if (protocol, called) == name
        for address in addresses
    ]
    return Doors(
        frozenset(pair for pair in pairs if ranges.family_of(pair[0]) == 4),
        frozenset(pair for pair in pairs if ranges.family_of(pair[0]) == 6),
    )


def split(addresses: Iterable[str]) -> Addresses:
    """Addresses by family."""
    everything = frozenset(addresses)
    v6 = frozenset(address for address in everything if ranges.family_of(address) == 6)
    return Addresses(everything - v6, v6)


def changed(old: Addresses, taken: Iterable[str], given: Iterable[str]) -> Addresses:
    """Addresses less some, plus some."""
    away, more = split(taken), split(given)
    return Addresses(old.v4 - away.v4 | more.v4, old.v6 - away.v6 | more.v6)


def canonical(addresses: Iterable[str]) -> Iterator[str]:
    """Addresses in their canonical spelling. What is no address is left out."""
    for address in addresses:
        with suppress(ValueError):
            yield str(ipaddress.ip_address(address))
