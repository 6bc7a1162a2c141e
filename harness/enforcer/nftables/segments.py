"""Port numbers cut into segments, each with the rows that hold for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from harness.enforcer.compiled import Ports, PortSpan, Row
from harness.model.policy import Protocol


def segments(rows: Iterable[Row]) -> Iterator[tuple[PortSpan, tuple[Row, ...]]]:
    """Disjoint spans that cover what the rows' numbers cover, with their rows in order.

    A sweep over the places where a span begins or ends; named ports and rows for every port
    are not looked at.
    """
    # protocol -> number -> rows (by their place) that begin at it, and that have ended at it
    edges: dict[Protocol, dict[int, tuple[list[int], list[int]]]] = {}
    listed = tuple(rows)
    for place, row in enumerate(listed):
        if not isinstance(row.ports, Ports):
            continue
        for span in row.ports.spans:
            of_protocol = edges.setdefault(span.protocol, {})
            of_protocol.setdefault(span.first, ([], []))[0].append(place)
            of_protocol.setdefault(span.last + 1, ([], []))[1].append(place)
    for protocol, of_protocol in edges.items():
        numbers = sorted(of_protocol)
        active: set[int] = set()
        for number, after in pairwise(numbers):
            begins, ends = of_protocol[number]
            active.difference_update(ends)
            active.update(begins)
            if active:
                held = tuple(listed[place] for place in sorted(active))
                yield PortSpan(protocol, number, after - 1), held


def port_word(span: PortSpan) -> str:
    """``80``, or ``8000-8080``."""
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
