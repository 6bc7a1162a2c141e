"""Address ranges as plain integers: what an ipBlock covers, and the prefixes that say the same.

A range is ``(first, last)``, both inside it; a list of ranges is sorted, disjoint and without
touching neighbours. Working on ranges instead of on prefixes with exceptions keeps ``except``
inside of its own peer: what is left over is just another list of ranges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Range = tuple[int, int]


def of_network(cidr: str) -> tuple[int, Range]:
    """``(family, range)`` of a prefix; one with host bits set means its network. ValueError."""
    network = ipaddress.ip_network(cidr, strict=False)
    return network.version, (int(network.network_address), int(network.broadcast_address))


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges sorted, with what overlaps or touches joined."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)


def minus(whole: Range, holes: Iterable[Range]) -> tuple[Range, ...]:
    """What is left of ``whole`` without the holes."""
    first, last = whole
    left: list[Range] = []
    for start, end in union(holes):
        if end < first or start > last:
            continue
        if start > first:
            left.append((first, start - 1))
        first = end + 1
    if first <= last:
        left.append((first, last))
    return tuple(left)


def prefixes(ranges: Iterable[Range], family: int) -> tuple[str, ...]:
    """The fewest prefixes that cover exactly the ranges; never ``/0``, which hash:net refuses."""
    bits = 32 if family == 4 else 128
    made: list[str] = []
    for first, last in ranges:
        while first <= last:
            size = (first & -first).bit_length() - 1 if first else bits - 1
            size = min(size, bits - 1, (last - first + 1).bit_length() - 1)
            made.append(f"{text(first, family)}/{bits - size}")
            first += 1 << size
    return tuple(made)


@lru_cache(maxsize=1 << 16)
def number(address: str) -> int:
    """An address as a plain integer. ValueError."""
    return int(ipaddress.ip_address(address))


def text(address: int, family: int) -> str:
    """An address in its canonical spelling."""
    if family == 4:
        return str(ipaddress.IPv4Address(address))
    return str(ipaddress.IPv6Address(address))


def family_of(address: str) -> int:
    """4 or 6, of an address or a prefix."""
    return 6 if ":" in address else 4
