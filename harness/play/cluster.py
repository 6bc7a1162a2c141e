"""A playground with a Kubernetes API: manifests go to the server, and what is there is its word."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import ApiError, namespaced
from harness.labs.cluster.pods import is_ready
from harness.labs.cluster.snapshot import snapshot
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import external_box, node_box
from harness.model.flow import Endpoint, EndpointKind
from harness.model.manifest import Loaded, from_manifest
from harness.model.world import World
from harness.play.ground import Ground
from harness.play.home import PlayError

Json = dict[str, Any]
_CLIENT = "client"
_SECONDS = 60.0
_POLL = 0.05
_HOPELESS = ("CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")


class ClusterGround(Ground):
    """The same with the API server as the one that knows: ``kubectl`` may have changed all."""

    lab: EmbeddedClusterLab

    def world(self) -> World:
        """See :meth:`Ground.world`."""
        self.lab.check()
        things = [from_manifest(one) for one in snapshot(self.lab.api)]
        return Loaded(things).world().with_(externals=self.lab.world.externals)

    def box(self, endpoint: Endpoint) -> str:
        """See :meth:`Ground.box`: of a pod the container ``client``, or the first."""
        match endpoint.kind:
            case EndpointKind.NODE:
                return node_box(endpoint.name)
            case EndpointKind.EXTERNAL:
                return external_box(endpoint.name)
            case EndpointKind.POD:
                pod = self.lab.api.get("Pod", endpoint.namespace, endpoint.name)
                names = [one["name"] for one in pod["spec"]["containers"]]
                return f"{endpoint}/{_CLIENT if _CLIENT in names else names[0]}"
        raise LabError(f"{endpoint} is a Service: nothing runs in it")

    def apply(self, manifests: Sequence[Json]) -> list[str]:
        """By server-side apply, as they are written; returns when their workloads are ready.
        A namespace that is only named is made. Raises LabError."""
        placed = [_placed(one) for one in manifests]
        for one in placed:
            self._see_to(_namespace(one))
            self.lab.api.apply(one)
        self._wait([one for one in placed if one["kind"] in _READY])
        return [f"apply {_title(one)}" for one in placed]

    def delete(self, manifests: Sequence[Json]) -> list[str]:
        """Raises LabError."""
        told = []
        for one in map(_placed, reversed(manifests)):
            try:
                self.lab.api.delete(one["kind"], _namespace(one), one["metadata"]["name"])
                told.append(f"delete {_title(one)}")
            except ApiError as error:
                if error.status != 404:
                    raise
                told.append(f"not there: {_title(one)}")
        return told

    def _see_to(self, namespace: str) -> None:
        """Its service account is made a moment after a namespace, and no pod before."""
        if not namespace:
            return
        api = self.lab.api
        if api.find("Namespace", "", namespace) is None:
            meta = {"name": namespace}
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        deadline = time.monotonic() + _SECONDS
        while api.find("ServiceAccount", namespace, "default") is None:
            self._patience(deadline, f"namespace {namespace} has no service account")

    def _wait(self, workloads: Sequence[Json]) -> None:
        """Until these are ready. What holds a pod up is told as soon as it is known."""
        deadline = time.monotonic() + _SECONDS
        for one in workloads:
            kind, name, namespace = one["kind"], one["metadata"]["name"], _namespace(one)
            while not _READY[kind](self.lab.api.get(kind, namespace, name)):
                for pod in self.lab.api.list("Pod", namespace)["items"]:
                    if trouble := _trouble(pod):
                        raise PlayError(
                            f"Pod {namespace}/{pod['metadata']['name']} does not start: {trouble}",
                            hint="this lab's images are nginx and busybox, and a busybox needs a "
                            "command that stays (sleep infinity)",
                        )
                self._patience(deadline, f"{_title(one)} is not ready")

    def _patience(self, deadline: float, what: str) -> None:
        self.lab.check()
        if time.monotonic() > deadline:
            raise PlayError(f"{what} after {_SECONDS:g} s", hint="`kubectl describe` tells more")
        time.sleep(_POLL)


def _trouble(pod: Json) -> str:
    """Why a pod will not become ready by itself, or ""."""
    for one in pod.get("status", {}).get("containerStatuses") or ():
        waiting = one["state"].get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            return f"container {one['name']}: {waiting['reason']}, {waiting.get('message', '')}"
    return ""


def _rolled_out(workload: Json) -> bool:
    status, wanted = workload.get("status", {}), workload["spec"].get("replicas", 1)
    current = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return bool(current and status.get("updatedReplicas", 0) >= wanted <= _available(status))


def _available(status: Json) -> int:
    return int(status.get("availableReplicas") or 0)


def _everywhere(daemons: Json) -> bool:
    status = daemons.get("status", {})
    current = status.get("observedGeneration", 0) >= daemons["metadata"]["generation"]
    return bool(current and status.get("numberReady", 0) >= status["desiredNumberScheduled"])


_READY = {
    "Pod": is_ready,
    "Deployment": _rolled_out,
    "StatefulSet": _rolled_out,
    "DaemonSet": _everywhere,
}


def _placed(manifest: Json) -> Json:
    """With its namespace, as kubectl sends it. Raises LabError for a kind that is not known."""
    if not namespaced(manifest["kind"]):
        return manifest
    meta = {"namespace": "default", **manifest["metadata"]}
    return {**manifest, "metadata": meta}


def _namespace(manifest: Json) -> str:
    """The namespace that it lives in; "" for what lives in none."""
    return str(manifest["metadata"].get("namespace") or "")


def _title(manifest: Json) -> str:
    namespace, name = _namespace(manifest), manifest["metadata"]["name"]
    return f"{manifest['kind']} {namespace}/{name}" if namespace else f"{manifest['kind']} {name}"
