"""Render: one compiled snapshot into the sets, maps and chains of one address family. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from harness.enforcer import names, ranges
from harness.enforcer.compiled import Anything, Compiled, Peers, Ports, PortSpan, Row, Target
from harness.enforcer.meaning import MAX_PORT
from harness.enforcer.nftables.segments import segments
from harness.enforcer.ruleset import Chain, KernelSet, Memo, Ruleset
from harness.model.policy import Direction, Protocol

COMMENT = 128
FEW = 8  # rows of a target that are looked at one after the other

PEER_END = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}

#: ICMPv6 without which IPv6 does not work at all: neighbour discovery (RFC 4861), MLD (RFC 2710,
#: RFC 3810). Never blocked.
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 134, 135, 136, 137, 143)

Parts = tuple[dict[str, KernelSet], dict[str, Chain]]


class Words(NamedTuple):
    """What one family is called in nft's language."""

    ip: str
    address: str

    @property
    def doors(self) -> str:
        return f"{self.address} . inet_proto . inet_service"


WORDS = {4: Words("ip", "ipv4_addr"), 6: Words("ip6", "ipv6_addr")}


class Renderer:
    """Renders for one family, remembering what did not change."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.words = WORDS[family]
        self._memo = Memo()

    def __call__(self, compiled: Compiled) -> Ruleset:
        sets = self._sets(compiled)
        chains: dict[str, Chain] = {}
        for target, rows in compiled.targets.items():
            make = partial(self._target, target, rows)
            more_sets, more_chains = self._memo(("target", target), rows, make)
            sets |= more_sets
            chains |= more_chains
        for direction in Direction:
            leaves = set[str]()
            for key, pod in compiled.pods.items():
                targets = pod.targets(direction)
                if targets is None:
                    continue
                make_name = partial(names.class_chain, direction, targets)
                name = self._memo(("class", direction, key), pod, make_name)
                if name not in chains:
                    chains[name] = self._class(direction, targets)
                leaves |= {f"{address} : goto {name}" for address in self._mine(pod.addresses)}
            where = "in" if direction is Direction.INGRESS else "out"
            sets[where] = KernelSet(f"map {self.words.address} : verdict", frozenset(leaves))
        self._memo.turn()
        return Ruleset(sets, chains)

    def _mine(self, addresses: Iterable[str]) -> Iterator[str]:
        return (one for one in addresses if ranges.family_of(one) == self.family)

    def _sets(self, compiled: Compiled) -> dict[str, KernelSet]:
        family, memo, sets = self.family, self._memo, dict[str, KernelSet]()
        plain, spans = f"set {self.words.address}", f"set {self.words.address} interval"
        for union, addresses in compiled.pod_sets.items():
            name = memo(("union", union), union, partial(names.pod_set, union))
            sets[name] = KernelSet(plain, addresses.of(family))
        for rows in compiled.targets.values():
            for row in rows:
                if isinstance(row.peers, Peers) and row.peers.blocks.of(family):
                    blocks = row.peers.blocks.of(family)
                    sets[names.block_set(blocks)] = memo(
                        ("blocks", blocks), None, partial(block_set, spans, blocks, family)
                    )
        for port, doors in compiled.named_ports.items():
            pairs = doors.of(family)
            make = partial(door_set, f"set {self.words.doors}", port[0], pairs)
            sets[names.port_set(*port)] = memo(("doors", port), pairs, make)
        known = frozenset(
            address for pod in compiled.pods.values() for address in self._mine(pod.addresses)
        )
        pairs_type = f"set {self.words.address} . {self.words.address}"
        sets["known"] = KernelSet(plain, known)
        sets["self"] = KernelSet(pairs_type, frozenset(f"{one} . {one}" for one in known))
        sets["guarded"] = KernelSet(spans, frozenset(self._mine(compiled.guarded)))
        return sets

    # Targets

    def _target(self, target: Target, rows: tuple[Row, ...]) -> Parts:
        chain = names.target_chain(target)
        numbered = [row for row in rows if isinstance(row.ports, Ports) and row.ports.spans]
        if len(numbered) <= FEW:
            return {}, {chain: tuple(self._rules(target.direction, rows))}
        # many lists of ports: the port is looked up once, and leads to the peers that may use it
        others = [
            row._replace(ports=row.ports._replace(spans=()))
            if isinstance(row.ports, Ports)
            else row
            for row in rows
        ]
        chains: dict[str, Chain] = {}
        elements: set[str] = set()
        has_ranges = False
        for span, those in segments(numbered):
            peers = (row._replace(ports=Anything.ANY) for row in those)
            rules = tuple(self._rules(target.direction, peers))
            if not rules:
                continue
            name = f"s-{names.digest(chain + repr(rules))}"
            chains[name] = rules
            has_ranges |= span.first != span.last
            elements.add(f"{span.protocol.lower()} . {port_word(span)} : jump {name}")
        kind = "interval" if has_ranges else ""
        map_name = f"m{'r' if has_ranges else ''}-{chain}"
        chains[chain] = (
            *self._rules(target.direction, others),
            f"meta l4proto . th dport vmap @{map_name}",
        )
        type_ = f"map inet_proto . inet_service : verdict {kind}".strip()
        return {map_name: KernelSet(type_, frozenset(elements))}, chains

    def _rules(self, direction: Direction, rows: Iterable[Row]) -> Iterator[str]:
        for row in rows:
            comment = comment_of(", ".join(row.origins))
            for ports in self._port_matches(row):
                for peers in self._peer_matches(direction, row):
                    yield " ".join(filter(None, (ports, peers, "counter accept", comment)))

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

    def _class(self, direction: Direction, targets: tuple[Target, ...]) -> Chain:
        return (
            "ct state invalid counter drop",
            *(f"jump {names.target_chain(target)}" for target in targets),
            f"counter drop {comment_of(names.isolated(direction, targets))}",
        )

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


def port_word(span: PortSpan) -> str:
    """``80``, or ``8000-8080``."""
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"


def block_set(type_: str, blocks: Iterable[ranges.Range], family: int) -> KernelSet:
    """Address ranges as they are: nft knows ranges."""
    return KernelSet(
        type_,
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
