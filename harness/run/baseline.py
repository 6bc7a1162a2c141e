"""What has been seen to be open without policies, so that it need not be looked at every time."""

from __future__ import annotations

from collections.abc import Iterable

from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.world import Pod, World
from harness.probes.address import listeners

_Identity = tuple[object, ...]


class Baseline:
    """Cells that connected, and between which pods: others of the same names are looked at anew.

    A cell that was denied since then is *in doubt* until it has connected again, so that what is
    left behind of a policy is not taken for the next one's work.
    """

    def __init__(self) -> None:
        self._open: dict[Cell, _Identity] = {}
        self._doubt: set[Cell] = set()
        self._pods: set[_Identity] = set()

    def looked(self, world: World, good: Iterable[Cell]) -> None:
        """There was a look without policies, and these connected (or nobody says that they
        should)."""
        self._pods = {_pod(pod) for pod in world.pods.values()}
        for cell in good:
            self._open[cell] = _identity(world, cell)
            self._doubt.discard(cell)

    def denied(self, cells: Iterable[Cell]) -> None:
        """These are denied by policies now."""
        self._doubt.update(cells)

    def gone(self, endpoint: Endpoint) -> None:
        """Who has this name next is somebody else."""
        self._doubt.update(c for c in self._open if endpoint in (c.source, c.target))

    def missing(self, world: World, cells: Iterable[Cell]) -> list[Cell]:
        """Those that have to be looked at before any policy."""
        return [c for c in cells if c in self._doubt or self._open.get(c) != _identity(world, c)]

    def of(self, world: World, cells: Iterable[Cell]) -> set[Cell]:
        """Those whose listener is known to have lived before the policies.

        Pods that were made under policies have no such time; for them the control of the same
        step, without which no silence counts, has to do.
        """
        return {
            c
            for c in cells
            if self._open.get(c) == _identity(world, c)
            or any(_pod(pod) not in self._pods for pod, _ in listeners(world, c))
        }


def _pod(pod: Pod) -> _Identity:
    return (pod.key, pod.uid, pod.node, pod.ips)


def _identity(world: World, cell: Cell) -> _Identity:
    """Who the two ends are now."""
    source = cell.source
    pod = (
        world.pods.get((source.namespace, source.name)) if source.kind is EndpointKind.POD else None
    )
    own = _pod(pod) if pod else ()
    return (own, *(_pod(behind) for behind, _ in listeners(world, cell)))
