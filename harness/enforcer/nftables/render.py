"""Render: one compiled snapshot into the sets, maps and chains of one address family. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from harness.enforcer import names, ranges
from harness.enforcer.compiled import (
    ANY,
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
    Step,
    Target,
    Way,
)
from harness.enforcer.meaning import MAX_PORT
from harness.enforcer.nftables.segments import segments
from harness.enforcer.ruleset import (
    NEIGHBOUR_DISCOVERY,
    Chain,
    KernelSet,
    Memo,
    Parts,
    Ruleset,
    join,
)
from harness.model.cluster_policy import RuleAction
from harness.model.policy import Direction, Protocol

Layers = Mapping[Layer, tuple[Step, ...]]

COMMENT = 128
FEW = 8  # rows of a target that are looked at one after the other

PEER_END = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}

#: ``return`` leaves the tier's chain, for what comes after it in the class.
GOALS = {RuleAction.ACCEPT: "accept", RuleAction.DENY: "drop", RuleAction.PASS: "return"}


class Words(NamedTuple):
    """What one family is called in nft's language."""

    ip: str
    address: str


WORDS = {4: Words("ip", "ipv4_addr"), 6: Words("ip6", "ipv6_addr")}


class Renderer:
    """Renders for one family, remembering what did not change."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.words = WORDS[family]
        self._parts = Parts()

    def __call__(self, compiled: Compiled) -> Ruleset:
        part = self._parts
        return join(
            (
                part("guarded", self._guarded, compiled.guarded),
                part("pod sets", self._pod_sets, compiled.pod_sets),
                part("named ports", self._named_ports, compiled.named_ports),
                part("targets", self._targets, compiled.targets),
                part("tiers", self._tiers, compiled.layers, compiled.pods),
                part("pods", self._pods, compiled.pods),
            )
        )

    def _mine(self, addresses: Iterable[str]) -> Iterator[str]:
        return (one for one in addresses if ranges.family_of(one) == self.family)

    # Sets

    def _guarded(self, guarded: tuple[str, ...], _: Memo) -> Ruleset:
        mine = frozenset(self._mine(guarded))
        return Ruleset({"guarded": KernelSet(f"set {self.words.address} interval", mine)})

    def _pod_sets(self, unions: Mapping[frozenset[PodQuery], Addresses], memo: Memo) -> Ruleset:
        type_, sets = f"set {self.words.address}", {}
        for union, addresses in unions.items():
            name = memo(union, union, partial(names.pod_set, union))
            sets[name] = KernelSet(type_, addresses.of(self.family))
        return Ruleset(sets)

    def _named_ports(self, ports: Mapping[tuple[Protocol, str], Doors], memo: Memo) -> Ruleset:
        type_, sets = f"set {self.words.address} . inet_proto . inet_service", {}
        for port, doors in ports.items():
            pairs = doors.of(self.family)
            make = partial(door_set, type_, port[0], pairs)
            sets[names.port_set(*port)] = memo(port, pairs, make)
        return Ruleset(sets)

    # Targets

    def _targets(self, targets: Mapping[Target, tuple[Row, ...]], memo: Memo) -> Ruleset:
        parts = [memo(t, rows, partial(self._target, t, rows, memo)) for t, rows in targets.items()]
        return join(parts)

    def _target(self, target: Target, rows: tuple[Row, ...], memo: Memo) -> Ruleset:
        sets: dict[str, KernelSet] = {}
        for row in rows:
            sets |= self._block_sets(row, memo)
        chain = names.target_chain(target)
        numbered = [row for row in rows if isinstance(row.ports, Ports) and row.ports.spans]
        if len(numbered) <= FEW:
            rules = (rule for row in rows for rule in self._rules(target.direction, row))
            return Ruleset(sets, {chain: tuple(rules)})
        # many lists of ports: the port is looked up once, and leads to the peers that may use it
        others = (rule for row in rows for rule in self._rules(target.direction, unnumbered(row)))
        chains: dict[str, Chain] = {}
        elements: set[str] = set()
        has_ranges = False
        for span, those in segments(numbered):
            key = target, span
            make = partial(self._segment, target.direction, those)
            name, inside = memo(key, those[0], make) if len(those) == 1 else make()
            if inside:
                chains[name] = inside
                has_ranges |= span.first != span.last
                elements.add(f"{span.protocol.lower()} . {port_word(span)} : jump {name}")
        map_name = f"m{'r' if has_ranges else ''}-{chain}"
        type_ = f"map inet_proto . inet_service : verdict{' interval' if has_ranges else ''}"
        sets[map_name] = KernelSet(type_, frozenset(elements))
        chains[chain] = (*others, f"meta l4proto . th dport vmap @{map_name}")
        return Ruleset(sets, chains)

    def _block_sets(self, row: Row, memo: Memo) -> dict[str, KernelSet]:
        if isinstance(row.peers, Anything) or not (found := row.peers.blocks.of(self.family)):
            return {}
        name = names.block_set(found)
        return {name: memo(name, None, partial(block_set, found, self.family))}

    def _segment(self, direction: Direction, rows: Iterable[Row]) -> tuple[str, Chain]:
        """The peers that may use a segment of ports. Segments with the same peers share them."""
        everywhere = (row._replace(ports=ANY) for row in rows)
        rules = tuple(rule for row in everywhere for rule in self._rules(direction, row))
        return f"s-{names.digest(repr(rules))}", rules

    def _rules(self, direction: Direction, row: Row, goal: str = "accept") -> Iterator[str]:
        comment = comment_of(", ".join(row.origins))
        for ports in self._port_matches(row):
            for peers in self._peer_matches(direction, row):
                yield " ".join(filter(None, (ports, peers, f"counter {goal}", comment)))

    def _peer_matches(self, direction: Direction, row: Row) -> Iterator[str]:
        end = f"{self.words.ip} {PEER_END[direction]}"
        if isinstance(row.peers, Anything):
            yield ""
            return
        if row.peers.pods:
            yield f"{end} @{names.pod_set(row.peers.pods)}"
        if row.peers.blocks.of(self.family):
            yield f"{end} @{names.block_set(row.peers.blocks.of(self.family))}"

    def _port_matches(self, row: Row) -> Iterator[str]:
        if isinstance(row.ports, Anything):
            yield ""
            return
        yield from span_matches(row.ports)
        for protocol, name in row.ports.names:
            doors = f"{self.words.ip} daddr . meta l4proto . th dport"
            yield f"{doors} @{names.port_set(protocol, name)}"

    # Cluster policies

    def _tiers(self, layers: Layers, pods: Mapping[PodKey, LocalPod], memo: Memo) -> Ruleset:
        ways = {pod.way(direction) for pod in pods.values() for direction in Direction}
        tiers = {tier for way in ways if way for tier in (way.admin, way.baseline) if tier}
        sets: dict[str, KernelSet] = {}
        chains: dict[str, Chain] = {}
        for tier in sorted(tiers):
            lines: list[str] = []
            for layer in tier:
                for step in layers[layer]:
                    sets |= self._block_sets(step.row, memo)
                    lines += self._rules(layer.direction, step.row, GOALS[step.action])
            chains[names.tier_chain(tier)] = tuple(lines)
        return Ruleset(sets, chains)

    # Pods

    def _pods(self, pods: Mapping[PodKey, LocalPod], memo: Memo) -> Ruleset:
        address = self.words.address
        known = frozenset(one for pod in pods.values() for one in self._mine(pod.addresses))
        itself = frozenset(f"{one} . {one}" for one in known)
        sets = {
            "known": KernelSet(f"set {address}", known),
            "self": KernelSet(f"set {address} . {address}", itself),
        }
        chains: dict[str, Chain] = {}
        for direction in Direction:
            leaves = set[str]()
            for key, pod in pods.items():
                way = pod.way(direction)
                if way is None:
                    continue
                make = partial(names.class_chain, direction, way)
                name = memo((direction, key), pod, make)
                if name not in chains:
                    chains[name] = self._class(direction, way)
                leaves |= {f"{one} : goto {name}" for one in self._mine(pod.addresses)}
            where = "in" if direction is Direction.INGRESS else "out"
            sets[where] = KernelSet(f"map {address} : verdict", frozenset(leaves))
        return Ruleset(sets, chains)

    def _class(self, direction: Direction, way: Way) -> Chain:
        """What the pods share that the same policies speak of."""
        lines = ["ct state invalid counter drop"]
        if way.admin:
            lines.append(f"jump {names.tier_chain(way.admin)}")
        if way.targets is not None:
            lines += [f"jump {names.target_chain(target)}" for target in way.targets]
            lines.append(f"counter drop {comment_of(names.isolated(direction, way.targets))}")
        elif way.baseline:
            lines.append(f"jump {names.tier_chain(way.baseline)}")
        return tuple(lines)

    # The chains that the kernel itself leads to

    def hooks(self) -> dict[str, Chain]:
        """Base chains: the type line, then rules."""
        ip = self.words.ip
        first = [f"ct state established,related counter accept {comment_of('established')}"]
        if self.family == 6:
            kinds = ", ".join(str(kind) for kind in NEIGHBOUR_DISCOVERY)
            first.append(f"icmpv6 type {{ {kinds} }} accept")
        unknown = comment_of("an address that no pod is known to have")

        def rules(end: str, where: str) -> tuple[str, ...]:
            return (
                f"{ip} {end} @guarded {ip} {end} != @known counter drop {unknown}",
                f"{ip} saddr . {ip} daddr @self accept {comment_of('a pod to itself')}",
                f"{ip} {end} vmap @{where}",
            )

        def hook(name: str, priority: int) -> str:
            return f"type filter hook {name} priority {priority}; policy accept;"

        return {
            "forward-out": (hook("forward", -10), *first, *rules("saddr", "out")),
            "forward-in": (hook("forward", -9), *first, *rules("daddr", "in")),
            "input-out": (
                hook("input", -10),
                f'iifname "lo" accept {comment_of("the node to itself")}',
                *first,
                *rules("saddr", "out"),
            ),
        }


def unnumbered(row: Row) -> Row:
    """A row without its numbered ports."""
    if isinstance(row.ports, Anything):
        return row
    return row._replace(ports=row.ports._replace(spans=()))


def comment_of(text: str) -> str:
    """A comment in nft's words."""
    return f'comment "{names.comment(text, COMMENT)}"'


def span_matches(ports: Ports) -> Iterator[str]:
    """Matches for the numbers of a row, one a protocol."""
    by_protocol: dict[Protocol, list[PortSpan]] = {}
    for span in ports.spans:
        by_protocol.setdefault(span.protocol, []).append(span)
    for protocol, spans in by_protocol.items():
        name = protocol.lower()
        if spans[0].first == 0 and spans[0].last == MAX_PORT:
            yield f"meta l4proto {name}"
        elif len(spans) == 1:
            yield f"{name} dport {port_word(spans[0])}"
        else:
            yield f"{name} dport {{ {', '.join(port_word(span) for span in spans)} }}"


def port_word(span: PortSpan) -> str:
    """``80``, or ``8000-8080``."""
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"


def block_set(blocks: Iterable[ranges.Range], family: int) -> KernelSet:
    """Address ranges as they are: nft knows ranges."""
    return KernelSet(
        f"set {WORDS[family].address} interval",
        frozenset(
            ranges.text(first, family)
            if first == last
            else f"{ranges.text(first, family)}-{ranges.text(last, family)}"
            for first, last in blocks
        ),
    )


def door_set(type_: str, protocol: Protocol, doors: Iterable[tuple[str, int]]) -> KernelSet:
    """Named ports: addresses, each with its own number."""
    return KernelSet(
        type_, frozenset(f"{address} . {protocol.lower()} . {number}" for address, number in doors)
    )
