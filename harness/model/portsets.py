"""Sets of ports of all protocols, as sorted, disjoint stretches. Small, hashable values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from harness.model.policy import Protocol

FIRST_PORT, LAST_PORT = 1, 65535
#: (protocol, first port, last port), all inclusive. A set is sorted and has no two that touch.
Stretch = tuple[Protocol, int, int]
Ports = tuple[Stretch, ...]

NO_PORTS: Ports = ()
ALL_PORTS: Ports = tuple((protocol, FIRST_PORT, LAST_PORT) for protocol in sorted(Protocol))


def ports(stretches: Iterable[Stretch]) -> Ports:
    """The set of all ports of these stretches, in whatever order they come and overlap."""
    found: list[Stretch] = []
    for protocol, first, last in sorted(stretches):
        if found and found[-1][0] is protocol and first <= found[-1][2] + 1:
            found[-1] = (protocol, found[-1][1], max(last, found[-1][2]))
        else:
            found.append((protocol, first, last))
    return tuple(found)


@lru_cache(maxsize=1 << 18)
def union(one: Ports, two: Ports) -> Ports:
    return ports((*one, *two))


@lru_cache(maxsize=1 << 18)
def intersection(one: Ports, two: Ports) -> Ports:
    return ports(
        (p, max(first, a), min(last, b))
        for p, first, last in one
        for q, a, b in two
        if p is q and max(first, a) <= min(last, b)
    )


@lru_cache(maxsize=1 << 18)
def difference(one: Ports, two: Ports) -> Ports:
    left = list(one)
    for q, a, b in two:
        cut: list[Stretch] = []
        for p, first, last in left:
            if p is not q or last < a or b < first:
                cut.append((p, first, last))
                continue
            if first < a:
                cut.append((p, first, a - 1))
            if b < last:
                cut.append((p, b + 1, last))
        left = cut
    return ports(left)


def holds(these: Ports, protocol: Protocol, port: int) -> bool:
    return any(p is protocol and first <= port <= last for p, first, last in these)


def text(these: Ports) -> str:
    """``everything``, ``nothing``, or ``TCP 80, TCP 8000-8080, UDP``."""
    if these == ALL_PORTS:
        return "everything"
    return ", ".join(_stretch_text(*one) for one in these) or "nothing"


def _stretch_text(protocol: Protocol, first: int, last: int) -> str:
    if (first, last) == (FIRST_PORT, LAST_PORT):
        return str(protocol)
    return f"{protocol} {first}" if first == last else f"{protocol} {first}-{last}"
