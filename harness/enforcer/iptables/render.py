"""Render: one compiled snapshot into chains and ipsets of one address family. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from harness.enforcer import names, ranges
from harness.enforcer.compiled import (
    Addresses,
    Anything,
    Compiled,
    Doors,
    Layer,
    LocalPod,
    PodKey,
    PodQuery,
    Ports,
    PortSpan,
    Row,
    Rows,
    Step,
    Target,
    Way,
    guard_unions,
)
from harness.enforcer.iptables.dispatch import tree
from harness.enforcer.iptables.pages import Pages
from harness.enforcer.meaning import MAX_PORT
from harness.enforcer.ruleset import (
    NEIGHBOUR_DISCOVERY,
    Chain,
    KernelSet,
    Lines,
    Memo,
    Parts,
    Ruleset,
    join,
)
from harness.model.cluster_policy import RuleAction
from harness.model.policy import Direction, Protocol

PodSets = Mapping[frozenset[PodQuery], Addresses]
Layers = Mapping[Layer, tuple[Step, ...]]

MARK = "0x1000/0x1000"
CLEAR = "0x0/0x1000"
COMMENT = 255
MULTIPORT = 15  # numbers in one multiport match; a range takes two

#: Which end of a packet is the peer's; the words for the pod's address and for the other.
PEER_END = {Direction.INGRESS: "src", Direction.EGRESS: "dst"}
POD_FLAG = {Direction.INGRESS: "-d", Direction.EGRESS: "-s"}
OTHER_FLAG = {Direction.INGRESS: "-s", Direction.EGRESS: "-d"}

ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"


class Renderer:
    """Renders for one family and prefix (``NPa4-``), remembering what did not change."""

    def __init__(self, family: int, prefix: str) -> None:
        self.family = family
        self.prefix = prefix
        self._parts = Parts()

    def __call__(self, compiled: Compiled) -> Ruleset:
        compiled = compiled.of(self.family)
        part = self._parts
        return join(
            (
                part("fixed", self._fixed),
                part("guarded", self._guarded, compiled.guarded),
                part("pod sets", self._pod_sets, compiled.pod_sets),
                part("guards", self._guard_sets, compiled.pod_sets, compiled.layers),
                part("named ports", self._named_ports, compiled.named_ports),
                part("targets", self._targets, compiled.targets),
                part("tiers", self._tiers, compiled.layers, compiled.pods),
                part("pods", self._pods, compiled.pods),
                part("entries", self._entries),
            )
        )

    # Sets

    def _guarded(self, guarded: tuple[str, ...], _: Memo) -> Ruleset:
        mine = frozenset(self._mine(guarded))
        return Ruleset({f"{self.prefix}guarded": KernelSet("hash:net", mine)})

    def _pod_sets(self, unions: PodSets, memo: Memo) -> Ruleset:
        sets = {}
        for union, addresses in unions.items():
            name = self.prefix + memo(union, union, partial(names.pod_set, union))
            sets[name] = KernelSet("hash:ip", addresses.of(self.family))
        return Ruleset(sets)

    def _guard_sets(self, unions: PodSets, layers: Layers, memo: Memo) -> Ruleset:
        sets = {}
        for union in guard_unions(layers):
            name = self.prefix + memo(union, None, partial(names.pod_set, union, guard=True))
            sets[name] = KernelSet("hash:ip", unions[union].of(self.family), guard=True)
        return Ruleset(sets)

    def _named_ports(self, ports: Mapping[tuple[Protocol, str], Doors], memo: Memo) -> Ruleset:
        sets = {}
        for (protocol, name), doors in ports.items():
            make = partial(door_set, protocol, doors.of(self.family))
            sets[self.prefix + names.port_set(protocol, name)] = memo(
                (protocol, name), doors.of(self.family), make
            )
        return Ruleset(sets)

    def _mine(self, addresses: Iterable[str]) -> Iterator[str]:
        return (one for one in addresses if ranges.family_of(one) == self.family)

    # Targets

    def _targets(self, targets: Mapping[Target, Rows], memo: Memo) -> Ruleset:
        return join(
            memo.onward(target, rows, partial(self._target, target, rows)).ruleset
            for target, rows in targets.items()
        )

    def _target(self, target: Target, rows: Rows, known: Pages | None) -> Pages:
        pages = known or Pages(
            self.prefix + names.target_chain(target),
            partial(self._lines, target.direction),
            prefix=f"{self.prefix}g-",
            after=f"-m mark --mark {MARK} -j RETURN",
        )
        pages.turn(rows)
        return pages

    def _lines(self, direction: Direction, row: Row) -> Lines:
        rules = self._rules(direction, row, f"-g {self.prefix}mark")
        return Lines(row.origins, self._block_sets(row), rules)

    def _block_sets(self, row: Row) -> dict[str, KernelSet]:
        if isinstance(row.peers, Anything) or not (found := row.peers.blocks.of(self.family)):
            return {}
        return {self.prefix + names.block_set(found): net_set(found, self.family)}

    def _rules(self, direction: Direction, row: Row, goal: str, *, guard: bool = False) -> Chain:
        comment = comment_of(", ".join(row.origins))
        return tuple(
            " ".join(filter(None, (ports, peers, comment, goal)))
            for peers in self._peer_matches(direction, row, guard)
            for ports in self._port_matches(row)
        )

    def _peer_matches(self, direction: Direction, row: Row, guard: bool) -> Iterator[str]:
        end = PEER_END[direction]
        if isinstance(row.peers, Anything):
            yield ""
            return
        if row.peers.pods:
            name = self.prefix + names.pod_set(row.peers.pods, guard=guard)
            yield f"-m set --match-set {name} {end}"
        if row.peers.blocks.of(self.family):
            name = self.prefix + names.block_set(row.peers.blocks.of(self.family))
            yield f"-m set --match-set {name} {end}"

    def _port_matches(self, row: Row) -> Iterator[str]:
        if isinstance(row.ports, Anything):
            yield ""
            return
        yield from span_matches(row.ports)
        for protocol, name in row.ports.names:
            doors = self.prefix + names.port_set(protocol, name)
            yield f"-p {protocol.lower()} -m set --match-set {doors} dst,dst"

    # Cluster policies

    def _tiers(self, layers: Layers, pods: Mapping[PodKey, LocalPod], _: Memo) -> Ruleset:
        if not layers:
            return Ruleset()
        ways = {pod.way(direction) for pod in pods.values() for direction in Direction}
        tiers = {tier for way in ways if way for tier in (way.admin, way.baseline) if tier}
        sets: dict[str, KernelSet] = {}
        chains: dict[str, Chain] = {}
        for tier in sorted(tiers):
            lines: list[str] = []
            for layer in tier:
                for step in layers[layer]:
                    sets |= self._block_sets(step.row)
                    goal = self._goal(step.action)
                    guard = step.action is not RuleAction.ACCEPT
                    lines += self._rules(layer.direction, step.row, goal, guard=guard)
            chains[self.prefix + names.tier_chain(tier)] = tuple(lines)
        return Ruleset(sets, chains)

    def _goal(self, action: RuleAction) -> str:
        """Where a packet goes: back to its class, with the mark if it is accepted."""
        match action:
            case RuleAction.ACCEPT:
                return f"-g {self.prefix}mark"
            case RuleAction.DENY:
                return "-j DROP"
            case RuleAction.PASS:
                return "-j RETURN"

    # Classes: what the pods share that the same policies speak of

    def _class(self, direction: Direction, way: Way) -> Chain:
        lines = [f"-j MARK --set-xmark {CLEAR}", "-m conntrack --ctstate INVALID -j DROP"]
        stages = [names.tier_chain(way.admin)] if way.admin else []
        if way.targets is not None:
            stages += [names.target_chain(target) for target in way.targets]
        elif way.baseline:
            stages.append(names.tier_chain(way.baseline))
        for stage in stages:
            lines += [f"-j {self.prefix}{stage}", f"-m mark --mark {MARK} -j RETURN"]
        if way.targets is not None:
            lines.append(f"{comment_of(names.isolated(direction, way.targets))} -j DROP")
        return tuple(lines)

    # Pods

    def _pods(self, pods: Mapping[PodKey, LocalPod], memo: Memo) -> Ruleset:
        mine = frozenset(one for pod in pods.values() for one in self._mine(pod.addresses))
        chains: dict[str, Chain] = {}
        for direction in Direction:
            leaves: dict[str, str] = {}
            for key, pod in pods.items():
                way = pod.way(direction)
                if way is None:
                    continue
                make = partial(names.class_chain, direction, way)
                name = self.prefix + memo((direction, key), pod, make)
                if name not in chains:  # the name tells all that is in it
                    chains[name] = memo(name, None, partial(self._class, direction, way))
                for address in self._mine(pod.addresses):
                    make = partial(leaf, direction, address, key, name)
                    leaves[address] = memo((direction, address), pod, make)
            root = f"{self.prefix}{'in' if direction is Direction.INGRESS else 'out'}"
            branch = f"{self.prefix}d{names.LETTER[direction]}-"
            chains |= tree(leaves, self.family, POD_FLAG[direction], root, branch)
        return Ruleset({f"{self.prefix}known": KernelSet("hash:ip", mine)}, chains)

    # Where packets come in

    def _fixed(self, _: Memo) -> Ruleset:
        return Ruleset({}, {f"{self.prefix}mark": (f"-j MARK --set-xmark {MARK}",)})

    def _entries(self, _: Memo) -> Ruleset:
        p = self.prefix
        unknown = {
            end: (
                f"-m set --match-set {p}guarded {end} -m set ! --match-set {p}known {end} "
                f"{comment_of('an address that no pod is known to have')} -j DROP"
            )
            for end in ("src", "dst")
        }
        entries: dict[str, Chain] = {
            f"{p}check": (unknown["src"], f"-j {p}out", unknown["dst"], f"-j {p}in"),
            f"{p}host": (unknown["src"], f"-j {p}out"),
        }
        if self.family == 6:
            for name in ("check", "host"):
                entries[f"{p}nd-{name}"] = (*neighbour_discovery(), f"-g {p}{name}")
        return Ruleset({}, entries)

    def hooks(self) -> dict[str, Chain]:
        """The two chains that keep their names for ever: they alone lead to this prefix."""
        p, nd = self.prefix, f"-p ipv6-icmp -g {self.prefix}nd-"
        return {
            "NETPOL": (
                f"{ESTABLISHED} {comment_of('established connections')} -j ACCEPT",
                *([f"{nd}check"] if self.family == 6 else []),
                f"-g {p}check",
            ),
            "NETPOL-INPUT": (
                f"-i lo {comment_of('the node to itself')} -j RETURN",
                f"{ESTABLISHED} {comment_of('established connections')} -j RETURN",
                *([f"{nd}host"] if self.family == 6 else []),
                f"-g {p}host",
            ),
        }


def leaf(direction: Direction, address: str, pod: PodKey, chain: str) -> str:
    """The rule that leads a pod's packets to the chain of its class, but for those to itself."""
    here, there = POD_FLAG[direction], OTHER_FLAG[direction]
    return f"{here} {address} ! {there} {address} {comment_of('/'.join(pod))} -g {chain}"


def comment_of(text: str) -> str:
    """A comment match."""
    return f'-m comment --comment "{names.comment(text, COMMENT)}"'


def neighbour_discovery() -> Iterator[str]:
    """Lets what IPv6 itself needs go by."""
    for kind in NEIGHBOUR_DISCOVERY:
        yield f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN"


def span_matches(ports: Ports) -> Iterator[str]:
    """Matches for the numbers of a row: as few as multiport can do with."""
    by_protocol: dict[Protocol, list[PortSpan]] = {}
    for span in ports.spans:
        by_protocol.setdefault(span.protocol, []).append(span)
    for protocol, spans in by_protocol.items():
        if spans[0].first == 0 and spans[0].last == MAX_PORT:
            yield f"-p {protocol.lower()}"
            continue
        for words in port_lists(spans):
            yield f"-p {protocol.lower()} -m multiport --dports {','.join(words)}"


def port_lists(spans: Iterable[PortSpan]) -> Iterator[list[str]]:
    """Port numbers and ranges in lists that one multiport match can hold."""
    words: list[str] = []
    room = MULTIPORT
    for span in spans:
        word = str(span.first) if span.first == span.last else f"{span.first}:{span.last}"
        need = 1 if span.first == span.last else 2
        if need > room:
            yield words
            words, room = [], MULTIPORT
        words.append(word)
        room -= need
    if words:
        yield words


def net_set(blocks: Iterable[ranges.Range], family: int) -> KernelSet:
    """ipBlocks as prefixes."""
    return KernelSet("hash:net", frozenset(ranges.prefixes(blocks, family)))


def door_set(protocol: Protocol, doors: Iterable[tuple[str, int]]) -> KernelSet:
    """Named ports: addresses, each with its own number."""
    return KernelSet(
        "hash:ip,port",
        frozenset(f"{address},{protocol.lower()}:{number}" for address, number in doors),
    )
