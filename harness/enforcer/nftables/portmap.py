"""The chains of one target: a short one as it is; in a long one the port is looked up once, in a
map that leads to the peers that may use it.

Single numbers and ranges have a map each. A number's peers depend on the rows that name it and on
nothing else, so that a row that changes touches its own numbers; ranges may overlap, and those of
all rows are cut into segments together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from harness.enforcer import names
from harness.enforcer.compiled import Ports, PortSpan, Row, Rows, differing
from harness.enforcer.nftables.segments import port_word, segments
from harness.enforcer.ruleset import Chain, KernelSet, Lines, Ruleset, Sets

FEW = 8  # rows with numbers that are looked at one after the other


class Render(NamedTuple):
    """How a row is written: its rules, those of its peers alone, and the sets of its ipBlocks."""

    rules: Callable[[Row], Chain]
    peers: Callable[[Row], Chain]
    sets: Callable[[Row], Sets]


class Door(NamedTuple):
    """An element of a map, and the chain that it leads to."""

    element: str
    chain: str
    rules: Chain


class PortMap:
    """Remembers what it made of the rows of a target, and makes anew what changes."""

    def __init__(self, chain: str, render: Render) -> None:
        self.ruleset = Ruleset()
        self._chain = chain
        self._render = render
        self._rows: Rows = {}
        self._lines: dict[str, Lines] = {}
        self._numbered: dict[str, Row] = {}
        self._points: dict[PortSpan, dict[str, Row]] = {}
        self._ranged: dict[str, Row] = {}
        self._doors: dict[PortSpan, Door] = {}  # of points
        self._spans: dict[PortSpan, Door] = {}  # of segments of ranges

    def turn(self, rows: Rows) -> None:
        """Go on to other rows."""
        was_long = len(self._numbered) > FEW
        ranges_before = self._ranged.copy()
        touched: set[PortSpan] = set()
        for ports in differing(self._rows, rows):
            touched.update(self._forget(ports))
            if ports in rows:
                touched.update(self._take(ports, rows[ports]))
        self._rows = rows
        if len(self._numbered) <= FEW:
            self._doors, self._spans = {}, {}
        else:
            for point in touched if was_long else [*self._points]:
                self._open(point)
            if not was_long or differing(ranges_before, self._ranged):
                found = segments(row for _, row in sorted(self._ranged.items()))
                opened = ((span, self._door(span, those)) for span, those in found)
                self._spans = {span: door for span, door in opened if door}
        self.ruleset = self._put_together()

    def _forget(self, ports: str) -> list[PortSpan]:
        """A row is gone, or is another one now; its single numbers."""
        self._lines.pop(ports, None)
        self._ranged.pop(ports, None)
        row = self._numbered.pop(ports, None)
        points = _points(row) if row else []
        for point in points:
            del self._points[point][ports]
            if not self._points[point]:
                del self._points[point]
        return points

    def _take(self, ports: str, row: Row) -> list[PortSpan]:
        """A row is there; its single numbers."""
        others = self._render.rules(_without(row, "spans"))
        lines = Lines(row.origins, self._render.sets(row), others)
        if lines.sets or lines.rules:
            self._lines[ports] = lines
        if isinstance(row.ports, Ports) and row.ports.spans:
            self._numbered[ports] = row
            ranges = tuple(span for span in row.ports.spans if span.first != span.last)
            if ranges:
                self._ranged[ports] = row._replace(ports=Ports(ranges, ()))
        points = _points(row)
        for point in points:
            self._points.setdefault(point, {})[ports] = row
        return points

    def _open(self, point: PortSpan) -> None:
        rows = self._points.get(point, {})
        if door := self._door(point, [row for _, row in sorted(rows.items())]):
            self._doors[point] = door
        else:
            self._doors.pop(point, None)

    def _door(self, span: PortSpan, rows: Iterable[Row]) -> Door | None:
        """The peers that may use a span of ports. Spans with the same peers share their chain."""
        rules = tuple(rule for row in rows for rule in self._render.peers(row))
        if not rules:
            return None
        name = f"s-{names.digest(repr(rules))}"
        return Door(f"{span.protocol.lower()} . {port_word(span)} : jump {name}", name, rules)

    def _put_together(self) -> Ruleset:
        in_order = sorted(self._lines.values(), key=lambda one: one.origins)
        sets = {name: made for one in in_order for name, made in one.sets.items()}
        rules = [rule for one in in_order for rule in one.rules]
        if len(self._numbered) <= FEW:
            for row in sorted(self._numbered.values(), key=lambda one: one.origins):
                rules += self._render.rules(_without(row, "names"))
        chains: dict[str, Chain] = {}
        for letters, doors, flag in (("m", self._doors, ""), ("mr", self._spans, " interval")):
            if doors:
                name = f"{letters}-{self._chain}"
                elements = frozenset(door.element for door in doors.values())
                sets[name] = KernelSet(f"map inet_proto . inet_service : verdict{flag}", elements)
                chains.update((door.chain, door.rules) for door in doors.values())
                rules.append(f"meta l4proto . th dport vmap @{name}")
        return Ruleset(sets, {**chains, self._chain: tuple(rules)})


def _points(row: Row) -> list[PortSpan]:
    """The single numbers of a row."""
    spans = row.ports.spans if isinstance(row.ports, Ports) else ()
    return [span for span in spans if span.first == span.last]


def _without(row: Row, what: str) -> Row:
    """A row without its numbers (``spans``) or without its ``names``."""
    if isinstance(row.ports, Ports):
        return row._replace(ports=row.ports._replace(**{what: ()}))
    return row
