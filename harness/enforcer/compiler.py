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
from typing import NamedTuple, TypeVar

from harness.enforcer import cluster_meaning, meaning, ranges
from harness.enforcer.claims import Claims
from harness.enforcer.compiled import (
    ANY,
    Addresses,
    Anything,
    Compiled,
    Doors,
    Layer,
    LocalPod,
    Peers,
    PodKey,
    PodQuery,
    Ports,
    Row,
    Rows,
    Step,
    Target,
    Way,
    differing,
)
from harness.enforcer.gathered import Gathered, PolicyKey
from harness.enforcer.podindex import Move, PodIndex, pods_in
from harness.model.cluster_policy import ClusterNetworkPolicy, Tier
from harness.model.policy import Direction, Labels, NetworkPolicy, Protocol
from harness.model.world import Namespace, Node, Pod

K = TypeVar("K")

Union = frozenset[PodQuery]
Name = tuple[Protocol, str]
Thing = Namespace | Pod | Node | NetworkPolicy | ClusterNetworkPolicy


class Known(NamedTuple):
    """What the last snapshot said of a pod."""

    addresses: tuple[str, ...]
    names: tuple[tuple[Protocol, str, int], ...]


NOTHING_KNOWN = Known((), ())


class Uses(NamedTuple):
    """How many more rows than before speak of each union of queries, and of each name of a port."""

    unions: Counter[Union]
    names: Counter[Name]

    def more(self, row: Row, sign: int = 1) -> None:
        """One row more."""
        for union in unions_of(row):
            self.unions[union] += sign
        for name in names_of(row):
            self.names[name] += sign

    def less(self, row: Row) -> None:
        """One row less."""
        self.more(row, -1)


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
        self._by_target: dict[Target, Gathered] = {}
        self._cluster_policies: dict[str, ClusterNetworkPolicy] = {}
        self._by_subject: dict[PodQuery, dict[Layer, Tier]] = {}
        self._nodes: dict[str, Node] = {}
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
        self._stale_layers: set[Layer] = set()
        self._stale_unions: set[tuple[PodKey, Union]] = set()
        self._guarded: tuple[str, ...] = ()
        self._out = Compiled()

    # Objects

    def put(self, thing: Thing) -> None:
        """An object is there, new or changed."""
        match thing:
            case Namespace():
                self._put_namespace(thing.name, thing.labels)
            case Pod():
                self._put_pod(thing)
            case NetworkPolicy():
                self._put_policy(thing)
            case ClusterNetworkPolicy():
                self._put_cluster_policy(thing)
            case Node():
                self._put_node(thing.name, thing)

    def drop(self, kind: str, namespace: str, name: str, *, uid: str = "") -> None:
        """An object is gone."""
        match kind:
            case "Namespace":
                self._put_namespace(name, None)
            case "Pod":
                self._drop_pod((namespace, name), uid)
            case "NetworkPolicy":
                self._drop_policy((namespace, name))
            case "ClusterNetworkPolicy":
                self._drop_cluster_policy(name)
            case "Node":
                self._put_node(name, None)

    def _put_namespace(self, name: str, labels: Labels | None) -> None:
        if labels == self._namespaces.get(name):
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        self._peers_moved(self._peers.relabel(name))
        self._subjects_moved(self._subjects.relabel(name))

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
        query = meaning.target(policy)
        self._subjects.watch(query)
        for direction in meaning.directions(policy):
            target = Target(direction, query)
            gathered = self._by_target.setdefault(target, Gathered())
            if not gathered.policies:
                self._stale_locals |= self._subjects.members(query)
            gathered.put(policy.key, tuple(compile_rules(policy, direction, problems)))
            self._stale_targets.add(target)
        if problems:
            self.problems[f"NetworkPolicy {policy}"] = tuple(problems)

    def _drop_policy(self, key: PolicyKey) -> None:
        policy = self._policies.pop(key, None)
        if policy is None:
            return
        self.problems.pop(f"NetworkPolicy {policy}", None)
        query = meaning.target(policy)
        for direction in meaning.directions(policy):
            target = Target(direction, query)
            gathered = self._by_target[target]
            gathered.drop(key)
            if not gathered.policies:
                self._stale_locals |= self._subjects.members(query)
            self._stale_targets.add(target)

    def _put_cluster_policy(self, policy: ClusterNetworkPolicy) -> None:
        if self._cluster_policies.get(policy.name) == policy:
            return
        self._drop_cluster_policy(policy.name)
        self._cluster_policies[policy.name] = policy
        query = cluster_meaning.subject(policy)
        for direction in cluster_meaning.directions(policy):
            self._subjects.watch(query)
            layer = Layer(policy.priority, policy.name, direction)
            self._by_subject.setdefault(query, {})[layer] = policy.tier
        self._stale_subject(query)

    def _drop_cluster_policy(self, name: str) -> None:
        policy = self._cluster_policies.pop(name, None)
        if policy is None:
            return
        self.problems.pop(f"ClusterNetworkPolicy {name}", None)
        query = cluster_meaning.subject(policy)
        self._stale_subject(query)
        for direction in cluster_meaning.directions(policy):
            del self._by_subject[query][Layer(policy.priority, name, direction)]

    def _put_node(self, name: str, node: Node | None) -> None:
        if name == self.node:
            self._guarded = tuple(sorted(node.pod_cidrs)) if node else ()
        old = self._nodes.pop(name, None)
        if node:
            self._nodes[name] = node
        if (old and (old.ips, old.labels)) != (node and (node.ips, node.labels)):
            for query in self._by_subject:
                self._stale_subject(query)

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
            self._stale_layers.update(self._by_subject.get(query, ()))

    def _stale_subject(self, query: PodQuery) -> None:
        self._stale_layers.update(self._by_subject.get(query, ()))
        self._stale_locals |= self._subjects.members(query)

    # The snapshot

    def snapshot(self) -> Compiled:
        """What has to be in force now. Parts that did not change are the same objects."""
        out = self._out
        uses = Uses(Counter(), Counter())
        targets = self._settle_targets(out.targets, uses)
        layers = self._settle_layers(out.layers, uses)
        fresh_unions, fresh_names = self._settle_uses(uses)
        known_before, known_now = self._settle_known()
        self._out = Compiled(
            pods=self._settle_locals(out.pods, known_now),
            targets=targets,
            layers=layers,
            pod_sets=self._settle_unions(out.pod_sets, fresh_unions, known_before, known_now),
            named_ports=self._settle_names(out.named_ports, fresh_names, known_before, known_now),
            guarded=self._guarded,
        )
        self._stale_pods.clear()
        return self._out

    def _settle_targets(self, before: Mapping[Target, Rows], uses: Uses) -> Mapping[Target, Rows]:
        if not self._stale_targets:
            return before
        targets = dict(before)
        for target in self._stale_targets:
            old = targets.pop(target, None)
            new: Rows = {}
            gathered = self._by_target.get(target)
            if gathered and gathered.policies and self._subjects.members(target.query):
                new = targets[target] = gathered.settle(old)
            for ports in differing(old or {}, new):
                if old and ports in old:
                    uses.less(old[ports])
                if ports in new:
                    uses.more(new[ports])
            if gathered and not gathered.policies:
                del self._by_target[target]
                self._forget_query(target.query)
        self._stale_targets.clear()
        return targets

    def _settle_layers(
        self, before: Mapping[Layer, tuple[Step, ...]], uses: Uses
    ) -> Mapping[Layer, tuple[Step, ...]]:
        if not self._stale_layers:
            return before
        layers = dict(before)
        for layer in self._stale_layers:
            for step in layers.pop(layer, ()):
                uses.less(step.row)
            policy = self._cluster_policies.get(layer.name)
            if policy is None:
                continue
            query = cluster_meaning.subject(policy)
            if layer not in self._by_subject.get(query, ()) or not self._subjects.members(query):
                continue
            problems: list[str] = []
            found = compile_steps(policy, layer.direction, self._nodes.values(), problems)
            layers[layer] = tuple(found)
            for step in layers[layer]:
                uses.more(step.row)
            if problems:
                self.problems[f"ClusterNetworkPolicy {policy}"] = tuple(problems)
        for query, those in [*self._by_subject.items()]:
            if not those:
                del self._by_subject[query]
                self._forget_query(query)
        self._stale_layers.clear()
        return layers

    def _forget_query(self, query: PodQuery) -> None:
        targets = (Target(direction, query) for direction in Direction)
        if query not in self._by_subject and not any(t in self._by_target for t in targets):
            self._subjects.unwatch(query)

    def _settle_uses(self, uses: Uses) -> tuple[set[Union], set[Name]]:
        """Begin to follow what is used now, and end it for what is not; returns what is new."""
        fresh_unions, gone = count(self._unions, uses.unions)
        fresh_names, _ = count(self._names, uses.names)
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
        return fresh_unions, fresh_names

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
                self._way_of(key, Direction.INGRESS),
                self._way_of(key, Direction.EGRESS),
            )
            if pods.get(key) != pod:
                pods[key] = pod
        self._stale_locals.clear()
        return before if pods == before else pods

    def _way_of(self, key: PodKey, direction: Direction) -> Way | None:
        queries = self._subjects.found_by(key)
        targets = (Target(direction, query) for query in queries)
        layers = sorted(
            (layer, tier)
            for query in queries
            for layer, tier in self._by_subject.get(query, {}).items()
            if layer.direction is direction
        )
        way = Way(
            tuple(layer for layer, tier in layers if tier is Tier.ADMIN),
            tuple(sorted((t for t in targets if t in self._by_target), key=repr)) or None,
            tuple(layer for layer, tier in layers if tier is Tier.BASELINE),
        )
        return way if any(way) else None


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


def compile_steps(
    policy: ClusterNetworkPolicy,
    direction: Direction,
    nodes: Iterable[Node],
    problems: list[str],
) -> Iterator[Step]:
    """A step for each rule of a cluster policy; what cannot be read fails closed, and is
    reported."""
    for index, rule in enumerate(cluster_meaning.rules(policy, direction)):
        place = f"{direction.lower()}[{index}]"
        origins = (f"{policy} {place}{f' {rule.name}' if rule.name else ''}",)
        try:
            if not cluster_meaning.is_known(rule):
                raise meaning.UnclearError("a peer or a port is of a kind that is not known here")
            row = Row(cluster_meaning.peers(rule, nodes), cluster_meaning.ports(rule), origins)
            yield Step(rule.action, row)
            if lacking := cluster_meaning.unenforced(rule):
                problems.append(f"{place}: {lacking}")
        except meaning.UnclearError as error:
            problems.append(f"{place}: {error}")
            action = cluster_meaning.when_unknown(rule.action)
            if action is not None:
                yield Step(action, Row(ANY, ANY, origins))


def count(counted: Counter[K], more: Mapping[K, int]) -> tuple[set[K], set[K]]:
    """Add what there is more of (or less); what is counted now and was not, and the contrary."""
    fresh, gone = set(), set()
    for key, number in more.items():
        before = counted[key]
        counted[key] += number
        if not counted[key]:
            del counted[key]
        if not before and number:
            fresh.add(key)
        elif before and before + number == 0:
            gone.add(key)
    return fresh, gone


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
