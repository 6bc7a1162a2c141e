"""``step``: what an action makes of a World. Labs perform the same actions for real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from harness.model.actions import Action, Apply, Delete, Finish, Object, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.policy import NetworkPolicy
from harness.model.world import (
    NAMESPACE_NAME_LABEL,
    External,
    Namespace,
    Node,
    Phase,
    Pod,
    Service,
    World,
)

# The mapping of World that holds a kind, and whether its objects live in namespaces.
_HOMES: Mapping[type[Object], tuple[str, bool]] = {
    Namespace: ("namespaces", False),
    Pod: ("pods", True),
    Service: ("services", True),
    Node: ("nodes", False),
    External: ("externals", False),
    NetworkPolicy: ("policies", True),
    ClusterNetworkPolicy: ("cluster_policies", False),
}
_BY_NAME = {kind.__name__: home for kind, home in _HOMES.items()}
# Every cluster has these; nobody has to make them.
_ALWAYS_THERE = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})

K = TypeVar("K")
V = TypeVar("V")


class ActionError(ValueError):
    """The action cannot be done in this world; the message says why and what would mend it."""


def step(world: World, action: Action) -> World:
    """The world after ``action``. Raises :class:`ActionError`; ``world`` itself never changes.

    An object is stored as it is given: what only a lab knows (addresses, nodes, ClusterIPs) is
    filled in by the lab afterwards.
    """
    match action:
        case Apply(object=thing):
            return _apply(world, thing)
        case Delete():
            return _delete(world, action)
        case Relabel():
            return _relabel(world, action)
        case Finish():
            return _finish(world, action)


def _put(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    return {**mapping, key: value}


def _apply(world: World, thing: Object) -> World:
    home, namespaced = _HOMES[type(thing)]
    if not namespaced:
        return world.with_(**{home: _put(getattr(world, home), thing.name, thing)})
    assert isinstance(thing, Pod | Service | NetworkPolicy)
    if thing.namespace not in world.namespaces and thing.namespace not in _ALWAYS_THERE:
        raise ActionError(
            f"{type(thing).__name__} {thing} cannot be applied: there is no namespace "
            f"{thing.namespace!r}. Apply the Namespace first."
        )
    return world.with_(**{home: _put(getattr(world, home), thing.key, thing)})


def _delete(world: World, action: Delete) -> World:
    if action.kind not in _BY_NAME:
        raise ActionError(
            f"{action.kind!r} is no kind that can be deleted; known: {', '.join(_BY_NAME)}"
        )
    home, namespaced = _BY_NAME[action.kind]
    mapping = getattr(world, home)
    key = (action.namespace, action.name) if namespaced else action.name
    if not namespaced and action.namespace:
        raise ActionError(
            f"a {action.kind} lives in no namespace, but {action.namespace!r} is given"
        )
    if key not in mapping:
        raise _missing(action.kind, action.namespace, action.name, mapping)
    changes: dict[str, Any] = {home: {k: v for k, v in mapping.items() if k != key}}
    if action.kind == "Namespace":
        for inner in ("pods", "services", "policies"):
            changes[inner] = {k: v for k, v in getattr(world, inner).items() if k[0] != action.name}
    if action.kind == "Node":  # the garbage collector takes the pods that were bound to it
        changes["pods"] = {k: pod for k, pod in world.pods.items() if pod.node != action.name}
    return world.with_(**changes)


def _relabel(world: World, action: Relabel) -> World:
    if action.kind == "Namespace":
        old = world.namespaces.get(action.name)
        if old is None:
            raise _missing("Namespace", "", action.name, world.namespaces)
        if action.labels.get(NAMESPACE_NAME_LABEL, action.name) != action.name:
            raise ActionError(
                f"the label {NAMESPACE_NAME_LABEL} of namespace {action.name!r} cannot be "
                f"changed: the API server keeps it at the namespace's name"
            )
        namespace = replace(old, labels=_relabelled(old.labels, action.labels))
        return world.with_(namespaces=_put(world.namespaces, action.name, namespace))
    if action.kind == "Pod":
        key = (action.namespace, action.name)
        pod = world.pods.get(key)
        if pod is None:
            raise _missing("Pod", *key, world.pods)
        changed = replace(pod, labels=_relabelled(pod.labels, action.labels))
        return world.with_(pods=_put(world.pods, key, changed))
    raise ActionError(f"only a Pod or a Namespace can be relabelled, not {action.kind!r}")


def _relabelled(old: Mapping[str, str], new: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**old, **new}
    return {key: value for key, value in merged.items() if value is not None}


def _finish(world: World, action: Finish) -> World:
    key = (action.namespace, action.name)
    pod = world.pods.get(key)
    if pod is None:
        raise _missing("Pod", *key, world.pods)
    if action.phase not in (Phase.SUCCEEDED, Phase.FAILED):
        raise ActionError(f"a pod finishes as Succeeded or Failed, not as {action.phase}")
    if not pod.live:
        raise ActionError(f"pod {pod} has finished already ({pod.phase})")
    done = replace(pod, phase=action.phase, ready=False, ips=())
    return world.with_(pods=_put(world.pods, key, done))


def _missing(kind: str, namespace: str, name: str, there: Mapping[Any, Any]) -> ActionError:
    names = sorted("/".join(key) if isinstance(key, tuple) else key for key in there)
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    wanted = f"{namespace}/{name}" if namespace else name
    return ActionError(f"there is no {kind} {wanted}; there is: {shown or 'none at all'}")
