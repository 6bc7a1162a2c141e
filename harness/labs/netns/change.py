"""One ``apply`` of the embedded lab: what changes for real, in which order, and who is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.labs.base import LabError
from harness.labs.netns import dns
from harness.model import transition
from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.world import External, Phase, Pod, Service, World

if TYPE_CHECKING:
    from harness.labs.netns.lab import NetnsLab


class Change:
    """Actions in order, but pods are made and taken away, and events are sent, in batches.

    A new pod's link comes up after its node's engine has acknowledged it; a deleted pod is gone
    before engines are told of it. ``started`` is the monotonic time just before the first change.
    """

    def __init__(self, lab: NetnsLab) -> None:
        self.lab = lab
        self.started = 0.0
        self.fresh: dict[tuple[str, str], Pod] = {}
        self.gone: list[Pod] = []
        self.events: list[tuple[str, Any]] = []
        self.services = False

    def take(self, action: Action) -> None:
        """Take one action in. LabError or ActionError where it is impossible; nothing is done."""
        lab = self.lab
        placement = lab.placement
        before = lab.world
        if isinstance(action, Apply) and isinstance(action.object, Pod | Service):
            transition.step(before, action)  # so that an impossible one is given no address
        action = placement.complete(before, action)
        after = transition.step(before, action)
        events = list(_events(action, before, after))
        gone = [
            old for kind, old, new in events if _runs(old) and (kind == "DELETED" or not _runs(new))
        ]
        if any(pod.key in self.fresh for pod in gone):
            self._flush()
        self.gone += gone
        for pod in gone:
            lab.last_ips[pod.key] = pod.ips
            successor = after.pods.get(pod.key)
            placement.release(pod, keep=successor.ips if successor else ())
        lab.world = after
        for kind, old, new in events:
            thing = old if kind == "DELETED" else new
            if isinstance(thing, External):
                self._outside(kind, old, new)
                continue
            self.events.append((kind, thing))
            self.services |= isinstance(thing, Pod | Service)
            if _runs(new) and not (kind == "MODIFIED" and _runs(old)):
                self.fresh[new.key] = new
            if kind == "DELETED" and isinstance(thing, Service):
                placement.release_service(thing)

    def finish(self) -> None:
        """Do what is left to be done."""
        self._flush()
        if self.services:
            self.lab.follow_services()

    def _begin(self) -> None:
        self.started = self.started or time.monotonic()

    def _flush(self) -> None:
        """Take old pods away, make the new ones, tell the engines, let the new ones be reached."""
        lab = self.lab
        pods, gone, events = list(self.fresh.values()), self.gone, self.events
        self.fresh, self.gone, self.events = {}, [], []
        if gone:
            self._begin()
            lab.topology.remove_pods(gone)
        if pods:
            self._begin()
            run = {str(pod): dns.process(str(pod)) for pod in pods if pod.key in lab.own}
            try:
                lab.topology.make_pods(pods, run)
            except LabError:
                lab.forget(pods)
                lab.tell(lab.written_down([event for event in events if event[1] not in pods]))
                raise
        data = lab.written_down(events)
        self._begin()
        lab.tell(data)
        lab.wait_for_engines({pod.node for pod in pods})
        lab.topology.plug(pods)

    def _outside(self, kind: str, old: Any, new: Any) -> None:
        self._begin()
        if old is not None:
            self.lab.topology.remove_external(old.name)
        if kind != "DELETED":
            self.lab.topology.add_external(new)


_HOMES = {
    "Namespace": "namespaces",
    "Pod": "pods",
    "Service": "services",
    "Node": "nodes",
    "External": "externals",
    "NetworkPolicy": "policies",
    "ClusterNetworkPolicy": "cluster_policies",
}


def _events(action: Action, before: World, after: World) -> Iterator[tuple[str, Any, Any]]:
    """(type, old, new) of each object that an action touches, as a watch would show it."""
    match action:
        case Apply(object=thing):
            kind, key = type(thing).__name__, getattr(thing, "key", thing.name)
        case Finish():
            kind, key = "Pod", (action.namespace, action.name)
        case Delete() | Relabel():
            kind = action.kind
            key = (action.namespace, action.name) if action.namespace else action.name
    if isinstance(action, Delete) and kind in ("Namespace", "Node"):
        for home in ("pods", "services", "policies"):
            left = getattr(after, home)
            for inner, old in getattr(before, home).items():
                if inner not in left:
                    yield "DELETED", old, None
    old = getattr(before, _HOMES[kind]).get(key)
    new = getattr(after, _HOMES[kind]).get(key)
    if old is None:
        yield "ADDED", None, new
    elif new is None:
        yield "DELETED", old, None
    elif isinstance(old, Pod) and old.uid != new.uid:
        yield "DELETED", old, None
        yield "ADDED", None, new
    else:
        yield "MODIFIED", old, new


def _runs(thing: Any) -> bool:
    return isinstance(thing, Pod) and thing.phase is Phase.RUNNING
