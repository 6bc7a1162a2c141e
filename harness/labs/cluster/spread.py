"""How clients are spread over what probes from them: what is asked for, and who gets whom. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace

IMAGE = "netpol-enforcer:dev"
"""The harness's own, as ``make enforcer-image`` builds it."""
MANY = 250
"""Clients from which on ``auto`` takes workers."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """What is asked for. ``mode``: ``exec``, streams from this machine; ``job``, workers; ``auto``,
    workers where there are more than ``many`` clients and workers can be had. ``share``: clients
    that one worker is for; there are ``least`` to ``most`` workers."""

    mode: str = "auto"
    image: str = IMAGE
    many: int = MANY
    share: int = 125
    least: int = 2
    most: int = 64

    def __str__(self) -> str:
        streams = "exec streams from this machine"
        job = f"an Indexed Job of workers ({self.image})"
        words = {
            "exec": streams,
            "job": job,
            "auto": f"{streams}, for more than {self.many} pods {job}",
        }
        return words[self.mode]

    def workers(self, clients: int) -> int:
        """How many for so many clients."""
        return min(self.most, max(self.least, math.ceil(clients / self.share)))


def shares(loads: Mapping[int, int], clients: Iterable[str]) -> dict[str, int]:
    """Which worker each client goes to: always the one that has the fewest, the first of them.
    ``loads``: how many each has already, by its index; there has to be one."""
    heap = [(load, index) for index, load in loads.items()]
    heapify(heap)
    found = {}
    for client in clients:
        load, index = heap[0]
        found[client] = index
        heapreplace(heap, (load + 1, index))
    return found
