"""What every lab can do. The embedded lab and the cluster labs implement these two protocols."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.model.actions import Action
from harness.model.flow import Cell, Endpoint
from harness.model.world import World


class LabError(Exception):
    """A lab could not do what it was asked. ``hint`` is the one step that mends it."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        text = self.message
        if self.hint:
            text += f"\n  hint: {self.hint}"
        if self.detail:
            text += f"\n{self.detail}"
        return text


class ShellLostError(LabError):
    """The stream to a client's shell ended: every cell still asked through it is unknown."""


class Shell(Protocol):
    """One long-lived busybox shell in a client (a pod, a node, an outside host).

    ``send`` writes shell text; ``receive`` returns what has arrived (``b""``: nothing yet) and
    never blocks; ``fileno`` can be selected on for reading. One that has a ``line`` shares its
    stream, and its ``fileno``, with others: see :class:`Line`.
    """

    def fileno(self) -> int: ...

    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes: ...

    def close(self) -> None: ...


class Line(Protocol):
    """One stream that the shells of many clients share.

    Whoever listens to it sets ``held``. What is sent then waits until ``flush``, so that it goes
    out in one piece, and what has come is had by ``news``: it reads the stream, and returns the
    shells that have something to receive. While it is not held, each shell does so for itself.
    """

    held: bool

    def fileno(self) -> int: ...

    def flush(self) -> None: ...

    def news(self) -> list[Shell]: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a data plane says of itself: the output of one command on one node, verbatim."""

    title: str
    node: str
    command: str
    text: str


def processors_here() -> int:
    """How many processors this machine lends us."""
    return len(os.sched_getaffinity(0))


class Lab(Protocol):
    """A place with nodes, pods and policies.

    ``apply`` performs the actions in order and returns the time (``time.monotonic()``) just
    before the first *policy, label or workload* change was sent; it returns once workloads that
    it made are running and listening, and does not wait for policies to be enforced.
    ``resolve`` fills in what only the lab knows: pod addresses and nodes, ClusterIPs, node
    addresses and pod CIDRs, outside hosts.
    ``features`` names what can be tested here (``ipv4``, ``ipv6``, ``udp``, ``sctp``, ``dns``,
    ``host-network``, ``address-reuse``, ``node-client``, ``external``, ``finish-pod``,
    ``cluster-network-policy``, …); ``missing`` gives the reason for each that cannot.
    ``check`` raises LabError where the lab itself has come to grief (a server of its own has died):
    what has been seen since then says nothing of the network.
    ``facts`` are for header and record: kernel, tools, versions, fabric, data plane.
    """

    name: str
    features: frozenset[str]
    missing: Mapping[str, str]

    def up(self) -> None: ...

    def apply(self, actions: Sequence[Action]) -> float: ...

    def resolve(self, world: World) -> World: ...

    def shell(self, client: Endpoint) -> Shell: ...

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]: ...

    def check(self) -> None: ...

    def facts(self) -> Mapping[str, Any]: ...

    def down(self) -> None: ...
