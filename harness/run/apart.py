"""Which scenarios need a cluster to themselves, and how workers that share one take turns."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from harness.labs.cluster.names import SYSTEM
from harness.model.actions import Action, Apply, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.world import Namespace, Node, Pod, Service, World
from harness.scenarios.scenario import Scenario

K = TypeVar("K")
T = TypeVar("T")


def wide(scenario: Scenario) -> str:
    """What reaches beyond a scenario's own namespaces, into what others have on the cluster; ""
    where nothing does."""
    for thing in _things(scenario):
        if why := _reaches(thing):
            return why
    for action in _actions(scenario):
        if isinstance(action, Relabel) and (action.kind == "Node" or action.name in SYSTEM):
            return f"{action.kind} {action.name} is relabelled"
    return ""


def alone(scenario: Scenario) -> bool:
    """Whether another scenario at the same time would be in its way: it is :func:`wide`, or has
    ports of the nodes themselves."""
    return bool(wide(scenario)) or any(_on_nodes(thing) for thing in _things(scenario))


def tame(world: World) -> World:
    """The same world without what made its scenario run alone. What is left disturbs nobody, and
    can stay up for the next scenario."""

    def kept(home: Mapping[K, T]) -> dict[K, T]:
        return {
            key: thing for key, thing in home.items() if not (_reaches(thing) or _on_nodes(thing))
        }

    return world.with_(
        namespaces=kept(world.namespaces),
        pods=kept(world.pods),
        services=kept(world.services),
        policies=kept(world.policies),
        cluster_policies={},
    )


def _reaches(thing: object) -> str:
    match thing:
        case ClusterNetworkPolicy():
            return "a ClusterNetworkPolicy selects among the namespaces of the whole cluster"
        case Node():
            return f"node {thing.name} is relabelled"
        case Namespace(name=name) if name in SYSTEM:
            return f"namespace {name} is every cluster's own"
    if getattr(thing, "namespace", "") in SYSTEM:
        return f"{type(thing).__name__} {thing} is in a namespace that every cluster has"
    return ""


def _on_nodes(thing: object) -> bool:
    match thing:
        case Pod():
            return any(port.host_port for port in thing.ports) or (
                thing.host_network and bool(thing.ports)
            )
        case Service():
            return any(port.node_port for port in thing.ports)
    return False


def _actions(scenario: Scenario) -> Iterator[Action]:
    for one in scenario.steps:
        yield from one.actions


def _things(scenario: Scenario) -> Iterator[object]:
    """Every object that the scenario begins with or comes to have."""
    world = scenario.world
    for home in (
        world.namespaces,
        world.pods,
        world.services,
        world.nodes,
        world.policies,
        world.cluster_policies,
    ):
        yield from home.values()
    yield from (action.object for action in _actions(scenario) if isinstance(action, Apply))


class Turns:
    """Turns of processes by locks in a directory that they share: many at once, or one alone.

    Who wants to be alone holds the gate while the others finish, so that no new ones come in.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._gate = os.open(directory / ".gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = os.open(directory / ".room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and have it for the block."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the locks' files."""
        os.close(self._gate)
        os.close(self._room)
