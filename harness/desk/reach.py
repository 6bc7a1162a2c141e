"""Who reaches whom at which ports: the whole of a world's reachability, group by group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from harness.desk.groups import Group, pod_groups
from harness.desk.outside import outside_groups
from harness.model import cidr
from harness.model.flow import Cell, Decision, Endpoint, EndpointKind, Verdict, Via
from harness.model.oracle import Oracle
from harness.model.policy import Direction, Protocol
from harness.model.profile import NO_PROFILE, Profile
from harness.model.sides import rules_of
from harness.model.world import External, Pod, World

LAST_PORT = 65535


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Ports ``first`` to ``last`` of one protocol, all with the same verdict."""

    protocol: Protocol
    first: int
    last: int

    @property
    def whole(self) -> bool:
        return (self.first, self.last) == (1, LAST_PORT)

    @property
    def words(self) -> str:
        """For a sentence: ``every TCP port``, ``TCP 80``."""
        return f"every {self.protocol} port" if self.whole else str(self)

    def __str__(self) -> str:
        if self.whole:
            return f"{self.protocol}"
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol} {ports}"


@dataclass(frozen=True, slots=True)
class Connection:
    """What one group may do to another.

    ``why`` holds the oracle's decision at the first port of each stretch.
    """

    source: Group
    target: Group
    stretches: dict[Verdict, tuple[Stretch, ...]]
    why: dict[Stretch, Decision] = field(compare=False, hash=False)

    def at(self, protocol: Protocol, port: int) -> Decision:
        """The decision for the stretch that holds a port (1 to 65535)."""
        return next(
            decision
            for stretch, decision in self.why.items()
            if stretch.protocol is protocol and stretch.first <= port <= stretch.last
        )

    def text(self, verdict: Verdict) -> str:
        """``everything``, ``nothing``, or ``TCP 80, TCP 443, UDP``."""
        return ports_text(self.stretches[verdict])

    @property
    def all_allowed(self) -> bool:
        return not self.stretches[Verdict.DENY] and not self.stretches[Verdict.UNDEFINED]

    @property
    def all_denied(self) -> bool:
        return not self.stretches[Verdict.ALLOW] and not self.stretches[Verdict.UNDEFINED]


def ports_text(stretches: Iterable[Stretch]) -> str:
    """Stretches of ports in a few words."""
    stretches = tuple(stretches)
    whole = {s.protocol for s in stretches if s.whole}
    if whole == set(Protocol):
        return "everything"
    return ", ".join(map(str, stretches)) or "nothing"


class Reach:
    """The reachability of a world whose outside hosts are those that policies tell apart."""

    def __init__(
        self, world: World, profile: Profile = NO_PROFILE, outside: Iterable[External] = ()
    ) -> None:
        externals = {host.name: host for host in outside}
        self.world = world.with_(externals={**world.externals, **externals})
        self.oracle = Oracle(self.world, profile)

    def connection(self, source: Group, target: Group) -> Connection | None:
        """What ``source`` may do to ``target``; None: there is no such connection to speak of (a
        pod to itself, or both outside)."""
        ends = self._ends(source, target)
        if ends is None:
            return None
        a, b = ends
        found: dict[Verdict, list[Stretch]] = {verdict: [] for verdict in Verdict}
        why: dict[Stretch, Decision] = {}
        for protocol, starts in self._starts(a, b).items():
            last = None
            for i, first in enumerate(starts):
                end = starts[i + 1] - 1 if i + 1 < len(starts) else LAST_PORT
                decision = self.oracle.decide(self._cell(a, b, first, protocol))
                if last is not None and last[0] is decision.verdict:
                    last = (last[0], last[1], end, last[3])
                else:
                    _keep(found, why, protocol, last)
                    last = (decision.verdict, first, end, decision)
            _keep(found, why, protocol, last)
        return Connection(source, target, {v: tuple(s) for v, s in found.items()}, why)

    def decide(self, source: Endpoint, target: Endpoint, port: int, protocol: Protocol) -> Decision:
        """The oracle's word on one cell between pods or outside hosts."""
        return self.oracle.decide(self._cell(source, target, port, protocol))

    def _ends(self, source: Group, target: Group) -> tuple[Endpoint, Endpoint] | None:
        if source.outside and target.outside:
            return None
        if source.one != target.one:
            return source.one, target.one
        # Alike or not, a pod always reaches itself: take two different ones.
        return (source.members[0], source.members[1]) if len(source.members) > 1 else None

    def _cell(self, a: Endpoint, b: Endpoint, port: int, protocol: Protocol) -> Cell:
        via = Via.EXTERNAL_IP if b.kind is EndpointKind.EXTERNAL else Via.POD_IP
        return Cell(a, b, port, protocol, via, self._family(a, b))

    def _family(self, a: Endpoint, b: Endpoint) -> int:
        """The family that both have; addresses that nobody has given out yet are IPv4."""
        known = [{cidr.family(ip) for ip in self._ips(end)} or {4, 6} for end in (a, b)]
        both = known[0] & known[1]
        return 6 if both == {6} else 4

    def _ips(self, end: Endpoint) -> tuple[str, ...]:
        if end.kind is EndpointKind.EXTERNAL:
            return self.world.externals[end.name].ips
        return self.world.pods[end.namespace, end.name].ips

    def _starts(self, a: Endpoint, b: Endpoint) -> dict[Protocol, list[int]]:
        """Where a new stretch of ports begins: between two starts no rule makes a difference."""
        starts = {protocol: {1} for protocol in Protocol}
        for protocol, first, last in self._ports(self._pod(a), self._pod(b)):
            starts[protocol] |= {first, last + 1}
        return {
            protocol: sorted(s for s in found if s <= LAST_PORT)
            for protocol, found in starts.items()
        }

    def _pod(self, end: Endpoint) -> Pod | None:
        return self.world.pods.get((end.namespace, end.name))

    def _ports(self, source: Pod | None, target: Pod | None) -> Iterator[tuple[Protocol, int, int]]:
        """The ranges that the policies of either end name, names as the target has them."""
        for pod, direction in ((source, Direction.EGRESS), (target, Direction.INGRESS)):
            if pod is None:
                continue
            for policy in self.oracle.isolating(pod, direction):
                for rule in rules_of(policy, direction):
                    for port in rule.ports:
                        if isinstance(port.port, str):
                            yield from _named(target, port.port)
                        elif port.port is not None:
                            yield port.protocol, port.port, port.end_port or port.port
        for found in self._cluster_ports:
            if isinstance(found, str):
                yield from _named(target, found)
            else:
                yield from ((protocol, *found) for protocol in Protocol)

    @cached_property
    def _cluster_ports(self) -> tuple[str | tuple[int, int], ...]:
        ports = [
            port
            for policy in self.world.cluster_policies.values()
            for rule in (*policy.ingress, *policy.egress)
            for port in rule.ports
        ]
        names = {port.name for port in ports if port.name}
        ranges = {(p.port, p.end_port or p.port) for p in ports if p.port is not None}
        return (*names, *ranges)


def _keep(
    found: dict[Verdict, list[Stretch]],
    why: dict[Stretch, Decision],
    protocol: Protocol,
    run: tuple[Verdict, int, int, Decision] | None,
) -> None:
    if run is not None:
        verdict, first, last, decision = run
        stretch = Stretch(protocol, first, last)
        found[verdict].append(stretch)
        why[stretch] = decision


def _named(target: Pod | None, name: str) -> Iterator[tuple[Protocol, int, int]]:
    for port in target.ports if target is not None else ():
        if port.name == name:
            yield port.protocol, port.port, port.port


@dataclass(frozen=True, slots=True)
class Matrix:
    """All groups of one world and what each may do to each other."""

    groups: tuple[Group, ...]
    cells: dict[tuple[int, int], Connection]


def matrix(
    world: World,
    profile: Profile = NO_PROFILE,
    *,
    outside: bool = True,
    namespaces: frozenset[str] = frozenset(),
) -> Matrix:
    """The whole reachability. ``outside``: with the addresses that policies tell apart;
    ``namespaces``: only groups with a pod in one of these (empty: all)."""
    groups = [
        group
        for group in pod_groups(world)
        if not namespaces or any(member.namespace in namespaces for member in group.members)
    ]
    hosts: list[External] = []
    if outside:
        more, hosts = outside_groups(world)
        groups += more
    reach = Reach(world, profile, hosts)
    cells = {}
    for i, source in enumerate(groups):
        for j, target in enumerate(groups):
            connection = reach.connection(source, target)
            if connection is not None:
                cells[i, j] = connection
    return Matrix(tuple(groups), cells)
