"""Render: one compiled snapshot into chains and ipsets of one address family. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from harness.enforcer import names, ranges
from harness.enforcer.compiled import (
    Anything,
    Blocks,
    Compiled,
    PodKey,
    Ports,
    PortSpan,
    Row,
    Target,
)
from harness.enforcer.iptables.dispatch import tree
from harness.enforcer.meaning import MAX_PORT
from harness.enforcer.ruleset import Chain, KernelSet, Memo, Ruleset
from harness.model.policy import Direction, Protocol

MARK = "0x1000/0x1000"
CLEAR = "0x0/0x1000"
COMMENT = 255
MULTIPORT = 15  # numbers in one multiport match; a range takes two

#: Which end of a packet is the peer's; the words for the pod's address and for the other.
PEER_END = {Direction.INGRESS: "src", Direction.EGRESS: "dst"}
POD_FLAG = {Direction.INGRESS: "-d", Direction.EGRESS: "-s"}
OTHER_FLAG = {Direction.INGRESS: "-s", Direction.EGRESS: "-d"}

#: ICMPv6 without which IPv6 does not work at all: neighbour discovery (RFC 4861), MLD (RFC 2710,
#: RFC 3810). Never blocked.
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 134, 135, 136, 137, 143)

ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"


class Renderer:
    """Renders for one family and prefix (``NPa4-``), remembering what did not change."""

    def __init__(self, family: int, prefix: str) -> None:
        self.family = family
        self.prefix = prefix
        self._memo = Memo()

    def __call__(self, compiled: Compiled) -> Ruleset:
        made = Ruleset(self._sets(compiled), self._chains(compiled))
        self._memo.turn()
        return made

    def _sets(self, compiled: Compiled) -> dict[str, KernelSet]:
        family, memo, sets = self.family, self._memo, dict[str, KernelSet]()
        for union, addresses in compiled.pod_sets.items():
            name = memo(("union", union), union, partial(names.pod_set, union))
            sets[self.prefix + name] = KernelSet("hash:ip", addresses.of(family))
        for rows in compiled.targets.values():
            for blocks in blocks_of(rows):
                if blocks.of(family):
                    name = self.prefix + names.block_set(blocks.of(family))
                    if name not in sets:
                        sets[name] = memo(name, None, partial(net_set, blocks, family))
        for port, doors in compiled.named_ports.items():
            pairs = doors.of(family)
            make = partial(door_set, port[0], pairs)
            sets[self.prefix + names.port_set(*port)] = memo(("doors", port), pairs, make)
        mine = frozenset(
            address
            for pod in compiled.pods.values()
            for address in pod.addresses
            if ranges.family_of(address) == family
        )
        guarded = (cidr for cidr in compiled.guarded if ranges.family_of(cidr) == family)
        sets[f"{self.prefix}known"] = KernelSet("hash:ip", mine)
        sets[f"{self.prefix}guarded"] = KernelSet("hash:net", frozenset(guarded))
        return sets

    def _chains(self, compiled: Compiled) -> dict[str, Chain]:
        chains: dict[str, Chain] = {f"{self.prefix}mark": (f"-j MARK --set-xmark {MARK}",)}
        for target, rows in compiled.targets.items():
            make = partial(self._target, target, rows)
            chains[self.prefix + names.target_chain(target)] = self._memo(
                ("target", target), rows, make
            )
        for direction in Direction:
            leaves: dict[str, str] = {}
            classes: dict[str, Chain] = {}
            for key, pod in compiled.pods.items():
                targets = pod.targets(direction)
                if targets is None:
                    continue
                make_name = partial(names.class_chain, direction, targets)
                name = self.prefix + self._memo(("class", direction, key), pod, make_name)
                if name not in classes:
                    classes[name] = self._class(direction, targets)
                for address in pod.addresses:
                    if ranges.family_of(address) == self.family:
                        leaves[address] = leaf(direction, address, key, name)
            chains |= classes
            chains |= self._dispatch(direction, leaves)
        chains |= self._entries()
        return chains

    def _target(self, target: Target, rows: Iterable[Row]) -> Chain:
        return tuple(line for row in rows for line in self._row(target.direction, row))

    def _row(self, direction: Direction, row: Row) -> Iterator[str]:
        comment = comment_of(", ".join(row.origins))
        for peers in self._peer_matches(direction, row):
            for ports in self._port_matches(row):
                yield " ".join(filter(None, (ports, peers, comment, f"-g {self.prefix}mark")))

    def _peer_matches(self, direction: Direction, row: Row) -> Iterator[str]:
        end = PEER_END[direction]
        if isinstance(row.peers, Anything):
            yield ""
            return
        if row.peers.pods:
            yield f"-m set --match-set {self.prefix}{names.pod_set(row.peers.pods)} {end}"
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

    def _class(self, direction: Direction, targets: tuple[Target, ...]) -> Chain:
        lines = [f"-j MARK --set-xmark {CLEAR}", "-m conntrack --ctstate INVALID -j DROP"]
        for target in targets:
            lines += [
                f"-j {self.prefix}{names.target_chain(target)}",
                f"-m mark --mark {MARK} -j RETURN",
            ]
        return (*lines, f"{comment_of(names.isolated(direction, targets))} -j DROP")

    def _dispatch(self, direction: Direction, leaves: Mapping[str, str]) -> dict[str, Chain]:
        root = f"{self.prefix}{'in' if direction is Direction.INGRESS else 'out'}"
        branch = f"{self.prefix}d{names.LETTER[direction]}-"
        return tree(leaves, self.family, POD_FLAG[direction], root, branch)

    def _entries(self) -> dict[str, Chain]:
        p = self.prefix
        unknown = {
            end: (
                f"-m set --match-set {p}guarded {end} -m set ! --match-set {p}known {end} "
                f"{comment_of('an address that no pod is known to have')} -j DROP"
            )
            for end in ("src", "dst")
        }
        entries: dict[str, Chain] = {
            f"{p}check": (
                unknown["src"],
                f"-j {p}out",
                unknown["dst"],
                f"-j {p}in",
            ),
            f"{p}host": (unknown["src"], f"-j {p}out"),
        }
        if self.family == 6:
            for name in ("check", "host"):
                entries[f"{p}nd-{name}"] = (*neighbour_discovery(), f"-g {p}{name}")
        return entries

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


def blocks_of(rows: Iterable[Row]) -> Iterator[Blocks]:
    """The ipBlocks that rows speak of."""
    for row in rows:
        if not isinstance(row.peers, Anything):
            yield row.peers.blocks


def net_set(blocks: Blocks, family: int) -> KernelSet:
    """ipBlocks as prefixes."""
    return KernelSet("hash:net", frozenset(ranges.prefixes(blocks.of(family), family)))


def door_set(protocol: Protocol, doors: Iterable[tuple[str, int]]) -> KernelSet:
    """Named ports: addresses, each with its own number."""
    return KernelSet(
        "hash:ip,port",
        frozenset(f"{address},{protocol.lower()}:{number}" for address, number in doors),
    )
