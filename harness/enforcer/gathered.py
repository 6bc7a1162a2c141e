"""The policies of one target put together: one row for each distinct list of ports. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from harness.enforcer import names, ranges
from harness.enforcer.compiled import ANY, Anything, Blocks, Peers, Row, Rows

PolicyKey = tuple[str, str]


class Gathered:
    """The policies of one target: what each allows, by the ports that it speaks of."""

    def __init__(self) -> None:
        self.policies: dict[PolicyKey, tuple[Row, ...]] = {}
        self._stale: set[str] = set()
        self._by_ports: dict[str, dict[PolicyKey, list[Row]]] = {}

    def put(self, key: PolicyKey, rows: tuple[Row, ...]) -> None:
        """A policy is there."""
        self.policies[key] = rows
        for row in rows:
            ports = names.of_ports(row.ports)
            self._by_ports.setdefault(ports, {}).setdefault(key, []).append(row)
            self._stale.add(ports)

    def drop(self, key: PolicyKey) -> None:
        """A policy is gone."""
        for ports in {names.of_ports(row.ports) for row in self.policies.pop(key)}:
            del self._by_ports[ports][key]
            if not self._by_ports[ports]:
                del self._by_ports[ports]
            self._stale.add(ports)

    def settle(self, before: Rows | None) -> Rows:
        """All rows, of which those that stay the same are the same objects; None: from nothing."""
        rows = dict(before or {})
        for ports in self._by_ports if before is None else self._stale:
            parts = [row for those in self._by_ports.get(ports, {}).values() for row in those]
            if not parts:
                rows.pop(ports, None)
            elif (row := merge(parts)) != rows.get(ports):
                rows[ports] = row
        self._stale.clear()
        return rows


def merge(rows: list[Row]) -> Row:
    """The one row that says what rows with the same ports say."""
    if len(rows) == 1:
        return rows[0]
    return Row(join_peers(row.peers for row in rows), rows[0].ports, join_origins(rows))


def join_peers(peers: Iterable[Peers | Anything]) -> Peers | Anything:
    """The union of peers."""
    known: list[Peers] = []
    for one in peers:
        if isinstance(one, Anything):
            return ANY
        known.append(one)
    if len(known) == 1:
        return known[0]
    return Peers(
        frozenset().union(*(one.pods for one in known)),
        Blocks(
            ranges.union(span for one in known for span in one.blocks.v4),
            ranges.union(span for one in known for span in one.blocks.v6),
        ),
    )


def join_origins(rows: Iterable[Row]) -> tuple[str, ...]:
    """The rules of policies behind some rows, in the order of their names."""
    return tuple(sorted({origin for row in rows for origin in row.origins}))
