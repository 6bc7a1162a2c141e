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
    Rows,
    Step,
    Target,
    Way,
)
from harness.enforcer.meaning import MAX_PORT
from harness.enforcer.nftables.portmap import PortMap, Render
from harness.enforcer.nftables.segments import port_word
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
        compiled = compiled.of(self.family)
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

    def _targets(self, targets: Mapping[Target, Rows], memo: Memo) -> Ruleset:
        return join(
            memo.onward(target, rows, partial(self._target, target, rows)).ruleset
            for target, rows in targets.items()
        )

    def _target(self, target: Target, rows: Rows, known: PortMap | None) -> PortMap:
        chain = names.target_chain(target)
        ports = known or PortMap(chain, self._rendering(target.direction))
        ports.turn(rows)
        return ports

    def _rendering(self, direction: Direction) -> Render:
        return Render(
            rules=lambda row: tuple(self._rules(direction, row)),
            peers=lambda row: tuple(self._rules(direction, row._replace(ports=ANY))),
            sets=self._block_sets,
        )

    def _block_sets(self, row: Row) -> dict[str, KernelSet]:
        if isinstance(row.peers, Anything) or not (found := row.peers.blocks.of(self.family)):
            return {}
        return {names.block_set(found): block_set(found, self.family)}

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
                if name not in chains:  # the name tells all that is in it
                    chains[name] = memo(name, None, partial(self._class, direction, way))
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
