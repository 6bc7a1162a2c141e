"""Everybody to everybody as one array; those that no policy tells apart are one row and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.model.fast import Connection, Row, both
from harness.model.flow import Endpoint
from harness.model.points import Bits, endpoint_of
from harness.model.policy import Direction
from harness.model.portsets import NO_PORTS, Ports, union

if TYPE_CHECKING:
    from harness.model.fast import Reach

# Rows of the array that are worked on at a time: it bounds the memory that is needed besides.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Table:
    """``ids[i, j]`` is the place in ``connections`` of what group ``i`` may do to group ``j``.

    Where ``i == j`` it is about two different members; a group of one has none, and a pod always
    reaches itself. ``groups`` are sorted, and so are their members.
    """

    groups: tuple[tuple[Endpoint, ...], ...]
    ids: NDArray[np.int32]
    connections: tuple[Connection, ...]

    def connection(self, source: int, target: int) -> Connection:
        """What one group may do to another, both by their place."""
        return self.connections[int(self.ids[source, target])]

    @classmethod
    def of(cls, reach: Reach) -> Table:
        groups = groups_of(reach)
        ones = np.array([reach.points.index[group[0]] for group in groups], dtype=np.int64)
        known: dict[Connection, int] = {}
        egress = _Side(reach, Direction.EGRESS, ones, known)
        ingress = _Side(reach, Direction.INGRESS, ones, known)
        found = list(known)
        combined: dict[int, int] = {}
        connections: dict[Connection, int] = {}
        ids = np.empty((len(groups), len(groups)), dtype=np.int32)
        for start in range(0, len(groups), _BLOCK):
            stop = min(start + _BLOCK, len(groups))
            pairs = egress.block(start, stop).astype(np.int64) * len(found)
            pairs += ingress.columns(start, stop)
            ids[start:stop] = _combined(pairs, found, combined, connections)
        return cls(groups, ids, tuple(connections))


def _combined(
    pairs: NDArray[np.int64],
    found: list[Connection],
    combined: dict[int, int],
    connections: dict[Connection, int],
) -> NDArray[np.int32]:
    """The connection of each pair of an egress and an ingress side, each pair worked out once."""
    top = len(found) ** 2
    if top <= 1 << 22:  # a table of all pairs is quicker than sorting
        seen = np.flatnonzero(np.bincount(pairs.ravel(), minlength=1))
        table = np.zeros(int(seen[-1]) + 1 if len(seen) else 1, dtype=np.int32)
    else:
        seen, inverse = np.unique(pairs, return_inverse=True)
        table = np.zeros(len(seen), dtype=np.int32)
    for place, pair in enumerate(seen.tolist()):
        number = combined.get(pair)
        if number is None:
            connection = both(found[pair // len(found)], found[pair % len(found)])
            number = combined[pair] = connections.setdefault(connection, len(connections))
        table[pair if top <= 1 << 22 else place] = number
    if top <= 1 << 22:
        result: NDArray[np.int32] = table[pairs]
        return result
    return table[inverse].reshape(pairs.shape)


class _Side:
    """One direction of all groups: which row each has, and what each row says of each group."""

    def __init__(
        self,
        reach: Reach,
        direction: Direction,
        ones: NDArray[np.int64],
        known: dict[Connection, int],
    ) -> None:
        places: dict[int, int] = {}
        rows: list[Row] = []
        place_of = np.empty(len(ones), dtype=np.int64)
        for group, index in enumerate(ones.tolist()):
            row = reach.row(index, direction)
            place = places.setdefault(id(row), len(rows))
            if place == len(rows):
                rows.append(row)
            place_of[group] = place
        size = len(reach.points.ends)
        said = np.empty((len(rows), len(ones)), dtype=np.int32)
        for place, row in enumerate(rows):
            said[place] = _said(row, size, ones, known)
        self._place_of, self._rows = place_of, said

    def block(self, start: int, stop: int) -> NDArray[np.int32]:
        """What the groups from ``start`` to ``stop`` say of all."""
        result: NDArray[np.int32] = self._rows[self._place_of[start:stop]]
        return result

    def columns(self, start: int, stop: int) -> NDArray[np.int32]:
        """What all say of the groups from ``start`` to ``stop``, transposed."""
        result: NDArray[np.int32] = self._rows[:, start:stop].T[:, self._place_of]
        return result


def _said(
    row: Row, size: int, ones: NDArray[np.int64], known: dict[Connection, int]
) -> NDArray[np.int32]:
    """The number of the connection that a row has for each group."""
    # A code for each point: four values an item (denied, allowed, open, -), in base 4. More items
    # than fit into a number are coded in several rounds.
    code = np.zeros(len(ones), dtype=np.int64)
    meaning: list[tuple[Ports, Ports]] = [(NO_PORTS, NO_PORTS)]
    for item in row:
        bits = code * 3
        bits += unpacked(item.allow, size)[ones]
        bits += unpacked(item.undefined, size)[ones].astype(np.int64) * 2
        present = np.flatnonzero(np.bincount(bits))
        number = np.zeros(int(present[-1]) + 1, dtype=np.int64)
        number[present] = np.arange(len(present))
        before, meaning = meaning, []
        for value in present.tolist():
            allow, undefined = before[value // 3]
            if value % 3 == 1:
                allow = union(allow, item.ports)
            elif value % 3 == 2:
                undefined = union(undefined, item.ports)
            meaning.append((allow, undefined))
        code = number[bits]
    numbers = [known.setdefault(Connection(*ports), len(known)) for ports in meaning]
    return np.array(numbers, dtype=np.int32)[code]


def unpacked(bits: Bits, size: int) -> NDArray[np.uint8]:
    """A set as an array of zeros and ones."""
    raw = np.frombuffer(bits.to_bytes((size + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(raw, count=size, bitorder="little")


def groups_of(reach: Reach) -> tuple[tuple[Endpoint, ...], ...]:
    """Points that nothing tells apart: all others treat them alike, and they all others."""
    size = len(reach.points.ends)
    if not size:
        return ()
    rows: dict[int, Row] = {}
    own: list[tuple[int, int]] = []
    for index in range(size):
        egress, ingress = (reach.row(index, direction) for direction in sorted(Direction))
        rows[id(egress)], rows[id(ingress)] = egress, ingress
        own.append((id(egress), id(ingress)))
    sets = sorted({bits for row in rows.values() for item in row for bits in item[1:]})
    seen = _columns(sets, size)
    found: dict[object, list[Endpoint]] = {}
    for index, end in enumerate(reach.points.ends):
        key = (type(end), own[index], seen[index].tobytes())
        found.setdefault(key, []).append(endpoint_of(end))
    return tuple(sorted(tuple(sorted(group)) for group in found.values()))


def _columns(sets: list[Bits], size: int) -> NDArray[np.uint8]:
    """For each point which of the sets hold it, packed."""
    width = (size + 7) // 8
    parts = []
    for start in range(0, len(sets), 1024):  # in pieces: all at once may not fit into memory
        some = sets[start : start + 1024]
        raw = np.frombuffer(b"".join(s.to_bytes(width, "little") for s in some), dtype=np.uint8)
        bits = np.unpackbits(raw.reshape(len(some), width), axis=1, count=size, bitorder="little")
        parts.append(np.packbits(bits, axis=0).T)
    return np.concatenate(parts, axis=1) if parts else np.zeros((size, 0), dtype=np.uint8)
