"""What to make of a kind cluster: plain values, put together elsewhere from a catalogue entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A workload to wait for. ``kind`` is ``DaemonSet`` or ``Deployment``. One that is not
    ``required`` is waited for a while, told, and left."""

    namespace: str
    kind: str
    name: str
    required: bool = True

    def __str__(self) -> str:
        return f"{self.namespace} {self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Look:
    """A command that shows the data plane: on each node, or in a container of the node's pod of
    ``workload`` (``NAMESPACE/DaemonSet/NAME/CONTAINER``)."""

    title: str
    argv: tuple[str, ...]
    workload: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """``config``: a kind configuration to start from. ``objects`` are applied in order.

    ``routes``: the network is made by :mod:`harness.labs.kind.routes`. ``plugins``: CNI plugins
    (name -> file of this machine, None: nowhere to be had) for nodes that lack them.
    ``local_images``: built on this machine and not to be pulled. ``foreign``: repositories of other
    CNIs' images; an archive that holds nothing else is not loaded. ``notes`` are for people.
    """

    name: str
    title: str
    config: Path
    objects: tuple[Json, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    ready_files: tuple[str, ...] = ()
    routes: bool = False
    plugins: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    local_images: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()
    looks: tuple[Look, ...] = ()
    modules: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
