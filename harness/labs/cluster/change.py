"""One ``apply`` of a lab with an API: what is sent, in which order, and what is waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.labs.base import LabError
from harness.labs.cluster import objects
from harness.labs.cluster.api import ApiError
from harness.model import transition
from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.manifest import from_manifest, to_manifest
from harness.model.world import External, Namespace, Node, Pod, Service, World

if TYPE_CHECKING:
    from harness.labs.cluster.lab import ClusterLab

Key = tuple[str, str]

#: Namespaces that clusters have by themselves: they are relabelled, never made or taken away.
SYSTEM = ("default", "kube-node-lease", "kube-public", "kube-system")
_GRACE = 1


class Change:
    """One ``apply``: actions in order; pods are made side by side, and waited for at the end."""

    def __init__(self, lab: ClusterLab) -> None:
        self.lab = lab
        self.started = 0.0
        self.batch: dict[Key, Pod] = {}  # not yet sent
        self.made: dict[Key, Pod] = {}
        self.gone: dict[Key, str] = {}
        self.services: set[Key] = set()
        self.namespaces: set[str] = set()  # in which pods have changed

    def take(self, action: Action) -> None:
        lab = self.lab
        before = lab.world
        after = transition.step(before, action)
        match action:
            case Apply(object=Pod() as pod):
                self._apply_pod(before.pods.get(pod.key), pod)
            case _:
                self._flush()
                after = self._other(action, before, after)
        lab.world = after

    def finish(self) -> None:
        self._flush()
        if self.gone:
            self.lab.wait_gone(self.gone)
        if self.made:
            self.lab.wait_ready(list(self.made.values()))
        touched = self._touched()
        if touched:
            self.lab.wait_for_services(touched)
        self._begin()

    def _touched(self) -> list[Service]:
        """Services that were applied, or whose backends have come, gone or been relabelled."""
        return [
            service
            for key, service in self.lab.world.services.items()
            if key in self.services or (service.selector and key[0] in self.namespaces)
        ]

    def _begin(self) -> None:
        self.started = self.started or time.monotonic()

    def _flush(self) -> None:
        """Send the pods that wait."""
        if not self.batch:
            return
        self._begin()
        clashing = {key: uid for key, uid in self.gone.items() if key in self.batch}
        if clashing:
            self.lab.wait_gone(clashing)
        lab = self.lab
        lab.parallel([partial(lab.create_pod, pod) for pod in self.batch.values()])
        self.made.update(self.batch)
        self.namespaces |= {namespace for namespace, _ in self.batch}
        self.batch = {}

    def _apply_pod(self, old: Pod | None, pod: Pod) -> None:
        if not pod.live:
            raise LabError(f"pod {pod} cannot be applied as {pod.phase}: apply it, then finish it")
        if old is not None and pod.key in self.batch:
            self._flush()
        if old is None or pod.key in self.gone:
            self.batch[pod.key] = pod
            return
        if replace(old, labels=pod.labels) == pod:
            self._flush()
            self._relabel("Pod", *pod.key, objects.label_change(old.labels, pod.labels))
            return
        self._flush()
        self._delete_pod(pod.key)
        self.batch[pod.key] = pod

    def _delete_pod(self, key: Key) -> None:
        self._begin()
        data = self.lab.watch.get(key)
        self.made.pop(key, None)
        self.namespaces.add(key[0])
        if data is not None:
            self.gone[key] = data["metadata"]["uid"]
        with _unless_gone():
            self.lab.api.delete("Pod", *key, gracePeriodSeconds=_GRACE)

    def _relabel(self, kind: str, namespace: str, name: str, labels: Mapping[str, Any]) -> None:
        self._begin()
        self.namespaces.add(namespace)
        if labels:
            change = {"metadata": {"labels": dict(labels)}}
            self.lab.api.merge(kind, namespace, name, change)

    def _other(self, action: Action, before: World, after: World) -> World:
        """Everything that is not a new pod; the world with what the server has filled in."""
        lab = self.lab
        match action:
            case Apply(object=Namespace() as item):
                self._apply_namespace(item, before)
            case Apply(object=Service() as item):
                self._begin()
                manifest = objects.labelled(
                    objects.service(item, lab.families), lab.marks(item.namespace)
                )
                answer = {"kind": "Service", **lab.api.apply(manifest)}
                served = from_manifest(answer)
                self.services.add(item.key)
                known = replace(item, cluster_ips=served.cluster_ips, ports=served.ports)
                return after.with_(services={**after.services, item.key: known})
            case Apply(object=Node() as item):
                self._apply_node(item, before)
                node = before.nodes[item.name]
                known_node = replace(node, labels=item.labels)
                return after.with_(nodes={**after.nodes, item.name: known_node})
            case Apply(object=External() as item):
                made = lab.add_external(item)
                return after.with_(externals={**after.externals, item.name: made})
            case Apply(object=item):
                self._begin()
                marks = lab.marks(getattr(item, "namespace", ""))
                lab.api.apply(objects.labelled(to_manifest(item), marks))
            case Delete():
                self._delete(action, before)
            case Relabel(kind=kind, namespace=namespace, name=name, labels=labels):
                self._relabel(kind, namespace, name, labels)
            case Finish(namespace=namespace, name=name, phase=phase):
                if (namespace, name) in self.made:
                    lab.wait_ready([self.made.pop((namespace, name))])
                self._begin()
                self.namespaces.add(namespace)
                lab.finish_pod(before.pods[namespace, name], phase)
        return after

    def _apply_namespace(self, item: Namespace, before: World) -> None:
        lab = self.lab
        lab.wait_for_namespace(item.name)
        self._begin()
        if item.name in SYSTEM:
            old = before.namespaces.get(item.name, Namespace(item.name))
            change = objects.label_change(old.labels, item.labels)
            self._relabel("Namespace", "", item.name, change)
            return
        lab.api.apply(objects.labelled(to_manifest(item), lab.marks(item.name)))

    def _apply_node(self, item: Node, before: World) -> None:
        if item.name not in before.nodes:
            raise LabError(
                f"node {item.name} cannot join; the cluster's nodes are {', '.join(before.nodes)}"
            )
        change = objects.label_change(before.nodes[item.name].labels, item.labels)
        self._relabel("Node", "", item.name, change)

    def _delete(self, action: Delete, before: World) -> None:
        lab = self.lab
        if action.kind == "External":
            lab.remove_external(action.name)
            return
        if action.kind == "Pod":
            self._delete_pod((action.namespace, action.name))
            return
        self._begin()
        if action.kind == "Namespace":
            there = lab.api.find("Namespace", "", action.name)
            if there is not None:
                lab.dying[action.name] = there["metadata"]["uid"]
            lab.workers.forget(action.name)
        with _unless_gone():
            lab.api.delete(action.kind, action.namespace, action.name)
        if action.kind == "Namespace":
            # The namespace controller does so too, but only after five seconds.
            for key in before.pods:
                if key[0] == action.name:
                    self._delete_pod(key)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """What is not there need not be deleted."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
