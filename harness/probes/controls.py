"""Controls: the proof, in the same step, that a silent listener lives.

A stopped server looks exactly like a drop. So silence counts as a denial only if the listener
answered somebody in the same step: any other client, or else itself, over its pod's own loopback,
where no policy can come between (a pod cannot be kept from its own address).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.model.flow import (
    Cell,
    Decision,
    Endpoint,
    EndpointKind,
    Observation,
    Outcome,
    Verdict,
    Via,
)
from harness.model.policy import Protocol
from harness.model.world import Workload, World
from harness.probes.address import listeners


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that answers: by the name that its server gives, and its own port."""

    name: str
    port: int
    protocol: Protocol
    family: int


class Controls:
    """Which listeners the cells of a step need, which are proven to live, and how to ask them.

    A pod without a client of its own (``server``) is asked from its node.
    """

    def __init__(self, world: World, expected: Mapping[Cell, Decision]) -> None:
        self._of: dict[Cell, tuple[Listener, ...]] = {}
        self._cells: dict[Listener, Cell] = {}
        self._alive: set[Listener] = set()
        needed: dict[Listener, None] = {}
        covered: set[Listener] = set()
        for cell, decision in expected.items():
            behind = self._behind(world, cell)
            self._of[cell] = behind
            if decision.verdict is not Verdict.ALLOW:
                needed.update(dict.fromkeys(behind))
            elif len(behind) == 1:
                covered.update(behind)
        #: Listeners that no cell of the step is expected to reach.
        self.first = tuple(one for one in needed if one not in covered)

    def _behind(self, world: World, cell: Cell) -> tuple[Listener, ...]:
        found = []
        pods = listeners(world, cell)
        for pod, port in pods:
            one = Listener(str(pod), port, cell.protocol, cell.family)
            own = Endpoint(EndpointKind.POD, pod.namespace, pod.name)
            asker = own
            if pod.workload is Workload.SERVER and pod.node is not None:
                asker = Endpoint(EndpointKind.NODE, "", pod.node)
            self._cells.setdefault(
                one, Cell(asker, own, port, cell.protocol, Via.POD_IP, cell.family)
            )
            found.append(one)
        if not pods and cell.target.kind in (EndpointKind.NODE, EndpointKind.EXTERNAL):
            one = Listener(str(cell.target), cell.port, cell.protocol, cell.family)
            self._cells.setdefault(
                one,
                Cell(cell.target, cell.target, cell.port, cell.protocol, cell.via, cell.family),
            )
            found.append(one)
        return tuple(found)

    def ask(self, wanted: Iterable[Listener]) -> list[Cell]:
        """The cells by which these listeners are asked."""
        return [self._cells[one] for one in wanted]

    def heard(self, seen: Observation) -> None:
        """Take note of an answer, be it to a control or to any other cell."""
        if seen.outcome is not Outcome.ALLOWED:
            return
        for one in self._of.get(seen.cell) or self._asked(seen.cell):
            if one.name == seen.backend:
                self._alive.add(one)

    def _asked(self, cell: Cell) -> tuple[Listener, ...]:
        return (Listener(str(cell.target), cell.port, cell.protocol, cell.family),)

    def missing(self, cells: Iterable[Cell]) -> list[Listener]:
        """The listeners of these cells that have not been heard yet."""
        return list(
            dict.fromkeys(one for cell in cells for one in self._of[cell] if one not in self._alive)
        )

    def alive(self, cell: Cell) -> bool:
        """Whether every listener behind the cell has been heard."""
        behind = self._of[cell]
        return bool(behind) and self._alive.issuperset(behind)
