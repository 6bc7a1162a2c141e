"""The whole reachability of a world, group by group, out of :mod:`harness.model.fast`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.desk.groups import Group, a_pair, main_family
from harness.desk.outside import outside_hosts
from harness.model.fast import Connection, Reach
from harness.model.flow import Cell, Decision, Endpoint, EndpointKind, Via
from harness.model.oracle import Oracle
from harness.model.policy import Protocol
from harness.model.portsets import Ports, Stretch
from harness.model.world import External, World


@dataclass(frozen=True, slots=True)
class Matrix:
    """Groups, and what each may do to each other, by their places; pairs of which there is
    nothing to say (a pod and itself, two outside hosts) are left out."""

    groups: tuple[Group, ...]
    cells: dict[tuple[int, int], Connection]
    asker: Asker

    def reason(self, i: int, j: int) -> str:
        """The reason code for which something between two groups is left open."""
        pair = a_pair(self.groups[i], self.groups[j])
        protocol, port, _ = example(self.cells[i, j].undefined)
        assert pair is not None
        return self.asker.decide(*pair, port, protocol).reason


class Asker:
    """The oracle, asked by ends alone: for the reasons, which the fast form does not keep."""

    def __init__(self, world: World, family: int) -> None:
        self.oracle = Oracle(world)
        self.family = family

    def decide(self, a: Endpoint, b: Endpoint, port: int, protocol: Protocol) -> Decision:
        via = Via.EXTERNAL_IP if b.kind is EndpointKind.EXTERNAL else Via.POD_IP
        return self.oracle.decide(Cell(a, b, port, protocol, via, self.family))


def example(ports: Ports) -> Stretch:
    """One stretch that speaks for all: TCP where there is some, for that is what people know."""
    return min(ports, key=lambda stretch: stretch[0] is not Protocol.TCP)


def with_hosts(world: World, hosts: Iterable[External]) -> World:
    return world.with_(externals={**world.externals, **{host.name: host for host in hosts}})


def _place(group: Group, hosts: list[str]) -> int:
    return hosts.index(group.members[0].name) if group.outside else -1


def matrix(
    world: World,
    *,
    outside: bool = True,
    namespaces: frozenset[str] = frozenset(),
    family: int | None = None,
) -> Matrix:
    """The whole reachability. ``outside``: with the addresses that policies tell apart;
    ``namespaces``: only groups with a pod in one of these (empty: all); ``family``: 4 or 6, None
    for the one that pods have."""
    family = family or main_family(world)
    full = with_hosts(world, outside_hosts(world, family=family) if outside else [])
    table = Reach(full, family).table()
    groups: list[Group] = []
    places: list[int] = []
    for place, members in enumerate(table.groups):
        group = Group.of(members)
        if group.outside or not namespaces or any(m.namespace in namespaces for m in members):
            groups.append(group)
            places.append(place)
    # Pods come first, then outside hosts as their addresses do.
    hosts = list(full.externals)
    order = sorted(range(len(groups)), key=lambda i: _place(groups[i], hosts))
    groups, places = [groups[i] for i in order], [places[i] for i in order]
    cells = {
        (i, j): table.connection(places[i], places[j])
        for i, source in enumerate(groups)
        for j, target in enumerate(groups)
        if a_pair(source, target) is not None
    }
    return Matrix(tuple(groups), cells, Asker(full, family))
