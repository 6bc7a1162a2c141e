"""Everybody who can be an end of a flow, as the bits of integers: sets of them are quick to join.

A *point* is a pod that is there or a host outside; its bit's place is its index. Points are ordered
by address, so that the points of a range of addresses are one run of bits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeVar

from harness.model import cidr
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import IPBlock, LabelSelector, Operator, Protocol, Requirement
from harness.model.routing import absent, address
from harness.model.selectors import selects
from harness.model.world import External, Pod, World

Bits = int
K = TypeVar("K")


def members(bits: Bits) -> Iterator[int]:
    """The indices of a set, from the lowest."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


class Points:
    """The points of one world in one address family, and which of them selectors and ranges hold.

    ``pods`` are those that selectors see (of which ``host_network``, apart), ``outside`` the
    hosts outside. ``ends`` holds the Pod or External of each index.
    """

    def __init__(self, world: World, family: int) -> None:
        self.world = world
        self.family = family
        ends: list[tuple[int, str, Pod | External]] = []
        unknown: list[Pod | External] = []
        for _, pod in sorted(world.pods.items()):
            if not absent(pod, family):
                self._place(pod, ends, unknown)
        for _, host in sorted(world.externals.items()):
            if not host.ips or address(host.ips, family):
                self._place(host, ends, unknown)
        ends.sort(key=lambda item: item[0])
        self.ends: list[Pod | External] = [end for _, _, end in ends] + unknown
        self._numbers = [number for number, _, _ in ends]
        self.by_ip: dict[str, Bits] = {}
        for i, (_, ip, _) in enumerate(ends):
            self.by_ip[ip] = self.by_ip.get(ip, 0) | 1 << i
        self.all: Bits = (1 << len(self.ends)) - 1
        self.unknown: Bits = self.all ^ ((1 << len(ends)) - 1)
        self.index: dict[Endpoint, int] = {endpoint_of(end): i for i, end in enumerate(self.ends)}
        self._index_labels()
        self._selected: dict[LabelSelector, Bits] = {}
        self._in_namespaces: dict[LabelSelector, Bits] = {}
        self._held: dict[IPBlock, tuple[Bits, Bits]] = {}

    def _place(
        self,
        end: Pod | External,
        ends: list[tuple[int, str, Pod | External]],
        unknown: list[Pod | External],
    ) -> None:
        ip = address(end.ips, self.family)
        if ip is None:
            unknown.append(end)
        else:
            ends.append((int(cidr.address(ip)), ip, end))

    def _index_labels(self) -> None:
        self.pods = self.outside = self.host_network = 0
        self.of_namespace: dict[str, Bits] = {}
        self.of_node: dict[str, Bits] = {}
        self.named_ports: dict[str, dict[tuple[Protocol, int], Bits]] = {}
        self._with_label: dict[tuple[str, str], Bits] = {}
        self._with_key: dict[str, Bits] = {}
        for i, end in enumerate(self.ends):
            bit = 1 << i
            if isinstance(end, External):
                self.outside |= bit
                continue
            self.pods |= bit
            _add(self.of_namespace, end.namespace, bit)
            if end.host_network:
                self.host_network |= bit
                _add(self.of_node, end.node or "", bit)
            for key, value in end.labels.items():
                _add(self._with_label, (key, value), bit)
                _add(self._with_key, key, bit)
            for port in end.ports:
                if port.name is not None:
                    _add(
                        self.named_ports.setdefault(port.name, {}), (port.protocol, port.port), bit
                    )

    # -- selectors -----------------------------------------------------------------------------

    def selected(self, selector: LabelSelector, namespace: str | None = None) -> Bits:
        """The pods whose labels it matches, of one namespace or of all."""
        bits = self._selected.get(selector)
        if bits is None:
            bits = self.pods
            for label in selector.match_labels:
                bits &= self._with_label.get(label, 0)
            for requirement in selector.match_expressions:
                bits &= self._satisfying(requirement)
            self._selected[selector] = bits
        return bits if namespace is None else bits & self.of_namespace.get(namespace, 0)

    def _satisfying(self, item: Requirement) -> Bits:
        match item.operator:
            case Operator.EXISTS:
                return self._with_key.get(item.key, 0)
            case Operator.DOES_NOT_EXIST:
                return self.pods & ~self._with_key.get(item.key, 0)
        among = 0
        for value in item.values:
            among |= self._with_label.get((item.key, value), 0)
        return among if item.operator is Operator.IN else self.pods & ~among

    def in_namespaces(self, selector: LabelSelector) -> Bits:
        """The pods of all namespaces whose labels it matches."""
        bits = self._in_namespaces.get(selector)
        if bits is None:
            bits = 0
            for name, pods in self.of_namespace.items():
                if selects(selector, self.world.namespace_labels(name)):
                    bits |= pods
            self._in_namespaces[selector] = bits
        return bits

    # -- addresses -----------------------------------------------------------------------------

    def held(self, block: IPBlock) -> tuple[Bits, Bits]:
        """The points whose address the range holds, and those of which it cannot be said."""
        found = self._held.get(block)
        if found is None:
            found = self._held[block] = self._hold(block)
        return found

    def _hold(self, block: IPBlock) -> tuple[Bits, Bits]:
        if cidr.family(block.cidr) != self.family:
            return 0, 0
        bits = self._run(block.cidr)
        for but in block.except_:
            bits &= ~self._run(but)
        if cidr.network(block.cidr).prefixlen == 0 and not block.except_:
            return bits | self.unknown, 0
        return bits, self.unknown

    def _run(self, text: str) -> Bits:
        network = cidr.network(text)
        if network.version != self.family:
            return 0
        first = bisect_left(self._numbers, int(network.network_address))
        last = bisect_left(self._numbers, int(network.broadcast_address) + 1)
        return (1 << last) - (1 << first)

    def on_nodes(self, selector: LabelSelector) -> Bits:
        """The points on the network of a node whose labels it matches, or with its address."""
        bits = 0
        for node in self.world.nodes.values():
            if selects(selector, node.labels):
                bits |= self.of_node.get(node.name, 0)
                for ip in node.ips:
                    bits |= self.by_ip.get(ip, 0)
        return bits


def endpoint_of(end: Pod | External) -> Endpoint:
    if isinstance(end, External):
        return Endpoint(EndpointKind.EXTERNAL, "", end.name)
    return Endpoint(EndpointKind.POD, end.namespace, end.name)


def _add(into: dict[K, Bits], key: K, bit: Bits) -> None:
    into[key] = into.get(key, 0) | bit
