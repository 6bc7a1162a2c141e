"""From the world that is up to the world that a scenario begins with, by the smallest difference.

Worlds are compared as they were asked for, without what a lab fills in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from harness.model.actions import Action, Apply, Delete, Relabel
from harness.model.policy import Labels
from harness.model.world import Namespace, Pod, World

#: Every cluster has them; the API server lets nobody delete them.
IMMORTAL = ("default", "kube-node-lease", "kube-public", "kube-system")


def without_policies(world: World) -> World:
    """The same world, everything open."""
    return world.with_(policies={}, cluster_policies={})


def changes(current: World, wanted: World) -> list[Action]:
    """The actions that lead from one to the other.

    Policies go first and come last, so that nothing is denied in between that is open in both.
    What has other labels is relabelled; a pod or outside host that differs in more is made anew.
    Namespaces that no cluster is without stay, emptied and with their own labels only.
    """
    stay = {name: Namespace(name) for name in IMMORTAL if name in current.namespaces}
    wanted = wanted.with_(namespaces={**stay, **wanted.namespaces})
    return [*_gone(current, wanted), *_made(current, wanted)]


def _gone(current: World, wanted: World) -> Iterator[Action]:
    for name in current.cluster_policies:
        if name not in wanted.cluster_policies:
            yield Delete("ClusterNetworkPolicy", "", name)
    doomed = current.namespaces.keys() - wanted.namespaces.keys()
    for key in current.policies:
        if key not in wanted.policies and key[0] not in doomed:
            yield Delete("NetworkPolicy", *key)
    for name in current.namespaces:
        if name in doomed:
            yield Delete("Namespace", "", name)  # with all that is in it
    for key in current.services:
        if key not in wanted.services and key[0] not in doomed:
            yield Delete("Service", *key)
    for key, pod in current.pods.items():
        if key[0] not in doomed and not _same_pod(pod, wanted.pods.get(key)):
            yield Delete("Pod", *key)
    for name, external in current.externals.items():
        if wanted.externals.get(name) != external:
            yield Delete("External", "", name)


def _made(current: World, wanted: World) -> Iterator[Action]:
    for name, external in wanted.externals.items():
        if current.externals.get(name) != external:
            yield Apply(external)
    for name, namespace in wanted.namespaces.items():
        old = current.namespaces.get(name)
        if old is None:
            yield Apply(namespace)
        elif old.labels != namespace.labels:
            yield Relabel("Namespace", "", name, _difference(old.labels, namespace.labels))
    for key, pod in wanted.pods.items():
        old_pod = current.pods.get(key)
        if old_pod is None or not _same_pod(old_pod, pod):
            yield Apply(pod)
        elif old_pod.labels != pod.labels:
            yield Relabel("Pod", *key, _difference(old_pod.labels, pod.labels))
    for key, service in wanted.services.items():
        if current.services.get(key) != service:
            yield Apply(service)
    for key, policy in wanted.policies.items():
        if current.policies.get(key) != policy:
            yield Apply(policy)
    for name, cluster_policy in wanted.cluster_policies.items():
        if current.cluster_policies.get(name) != cluster_policy:
            yield Apply(cluster_policy)


def _same_pod(old: Pod, new: Pod | None) -> bool:
    return new is not None and replace(old, labels=new.labels) == new


def _difference(old: Labels, new: Labels) -> Mapping[str, str | None]:
    gone: dict[str, str | None] = {key: None for key in old if key not in new}
    return gone | {key: value for key, value in new.items() if old.get(key) != value}
