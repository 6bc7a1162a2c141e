"""Waiting until a cluster can be used, and saying what is not ready where it never is.

All of it is asked of the API; nothing sleeps longer than it takes to ask again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import Api, ApiError, path
from harness.labs.cluster.pods import NO_IMAGE, is_ready
from harness.labs.kind.recipe import Rollout

Json = dict[str, Any]

SECONDS = 300.0
"""For all images of a CNI to be pulled, and its pods to start."""
LENIENT_SECONDS = 20.0
"""For what is not required, once all that is required is there."""
_PAUSE = 0.25
_LOG_LINES = 8
_PODS_TOLD = 6


class Waiter:
    """Waits on one cluster. ``pulls``: images may still come over the network; else a container
    that has none is told at once."""

    def __init__(self, api: Api, *, seconds: float = SECONDS, pulls: bool = True) -> None:
        self.api = api
        self.seconds = seconds
        self.pulls = pulls
        self.lenient_seconds = LENIENT_SECONDS

    # -- nodes -------------------------------------------------------------------------------

    def nodes(self) -> None:
        """Until every node is Ready."""

        def late() -> list[str]:
            return [
                f"{item['metadata']['name']}: {message}"
                for item in self._items("Node")
                if (message := _not_ready(item))
            ]

        left = self._until(late)
        if left:
            raise LabError(
                f"{len(left)} nodes are not Ready after {self.seconds:g} s",
                hint="a node is Ready when its CNI has written its configuration",
                detail="\n".join(f"  {line}" for line in left),
            )

    # -- workloads ---------------------------------------------------------------------------

    def rollouts(self, wanted: Sequence[Rollout]) -> list[str]:
        """Until workloads are rolled out. Returns a note for each that is not and need not be."""
        required = [one for one in wanted if one.required]
        left = self._until(lambda: [one for one in required if self._lacks(one)], required)
        if left:
            first = left[0]
            raise LabError(
                f"{first} is not rolled out after {self.seconds:g} s: {self._lacks(first)}",
                detail="\n".join(line for one in left for line in self.story(one)),
            )
        others = [one for one in wanted if not one.required]
        left = self._until(
            lambda: [one for one in others if self._lacks(one)],
            seconds=min(self.lenient_seconds, self.seconds),
        )
        notes = []
        for one in left:
            last = self._last_event(one)
            notes.append(f"{one} is not rolled out: {self._lacks(one)}{last and f'; {last}'}")
        return notes

    def _lacks(self, one: Rollout) -> str:
        """What a workload lacks to be rolled out; empty if nothing."""
        item = self._find(one)
        if item is None:
            return "it does not exist"
        status, generation = item.get("status") or {}, item["metadata"].get("generation", 0)
        if status.get("observedGeneration", 0) < generation:
            return "its controller has not seen it yet"
        if one.kind == "DaemonSet":
            wanted = status.get("desiredNumberScheduled", 0)
            current = status.get("updatedNumberScheduled", 0)
            there = status.get("numberAvailable", 0)
        else:
            wanted = (item.get("spec") or {}).get("replicas", 1)
            current = status.get("updatedReplicas", 0)
            there = status.get("availableReplicas", 0)
        if wanted == 0:
            return "it has no pods to run"
        if current < wanted or there < wanted:
            return f"{there} of {wanted} pods are available"
        return ""

    def _find(self, one: Rollout) -> Json | None:
        with contextlib.suppress(ApiError):
            return self.api.find(one.kind, one.namespace, one.name)
        return None

    # -- what is told ------------------------------------------------------------------------

    def story(self, one: Rollout) -> list[str]:
        """The pods of a workload: their states, last events and last log lines."""
        lines = [f"  {one}: {self._lacks(one) or 'rolled out'}"]
        for pod in self._pods(one)[:_PODS_TOLD]:
            if not is_ready(pod):
                lines += self._pod_story(pod)
        return lines

    def unsteady(self, rollouts: Sequence[Rollout]) -> list[str]:
        """Of these workloads, the pods that are not ready, or have been started again: a line for
        each, and why. What enforces policies, or routes packets, may have stopped by itself."""
        lines = []
        for pod in (pod for one in rollouts for pod in self._pods(one)):
            again = sum(one.get("restartCount") or 0 for one in _containers(pod))
            if is_ready(pod) and not again:
                continue
            story = self._pod_story(pod)
            ready = "" if is_ready(pod) else ", not ready"
            times = "once" if again == 1 else f"{again} times"
            lines += [f"{story[0].strip()}{ready}, started again {times}", *story[1:]]
        return lines

    def _pod_story(self, pod: Json) -> list[str]:
        meta, status = pod["metadata"], pod.get("status") or {}
        node = (pod.get("spec") or {}).get("nodeName", "no node")
        said = [f"{status.get('phase')}", *_states(pod)]
        lines = [f"    {meta['name']} on {node}: {'; '.join(said)}"]
        for event in self._events(meta["namespace"], meta["name"])[-2:]:
            lines.append(f"      event: {event}")
        for container in _containers(pod):
            begins = "waiting" in container.get("state", {}) and not container.get("restartCount")
            if not (container.get("ready") or begins):
                said = self._log(meta, container)
                lines += [f"      {container['name']}: {line}" for line in said]
        return lines

    def _log(self, meta: Json, container: Json) -> list[str]:
        where = path("Pod", meta["namespace"], meta["name"]) + "/log"
        params = {"container": container["name"], "tailLines": str(_LOG_LINES)}
        running = "running" in container.get("state", {})
        if not running and container.get("restartCount"):
            params["previous"] = "true"
        with contextlib.suppress(LabError):
            return self.api.text(where, params).splitlines()
        return []

    def _events(self, namespace: str, name: str) -> list[str]:
        with contextlib.suppress(ApiError):
            chosen = f"involvedObject.name={name}"
            items = self.api.list("Event", namespace, fieldSelector=chosen)["items"]
            items.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
            return [f"{one.get('reason')}: {one.get('message', '').strip()}" for one in items]
        return []

    def _last_event(self, one: Rollout) -> str:
        events = [e for pod in self._pods(one) for e in self._events(one.namespace, _name(pod))]
        return f"last event: {events[-1]}" if events else ""

    def _pods(self, one: Rollout) -> list[Json]:
        item = self._find(one)
        labels = ((item or {}).get("spec") or {}).get("selector", {}).get("matchLabels") or {}
        if not labels:
            return []
        chosen = ",".join(f"{key}={value}" for key, value in labels.items())
        with contextlib.suppress(ApiError):
            found: list[Json] = self.api.list("Pod", one.namespace, labelSelector=chosen)["items"]
            return found
        return []

    # -- loops -------------------------------------------------------------------------------

    def _until(
        self,
        left: Callable[[], Sequence[Any]],
        rollouts: Sequence[Rollout] = (),
        seconds: float | None = None,
    ) -> Sequence[Any]:
        """Ask until nothing is left, or time is up; what is left then. An API that does not answer
        for a moment is asked again."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while True:
            trouble: ApiError | None = None
            found: Sequence[Any] = ()
            try:
                found = left()
            except ApiError as error:
                if error.status in (401, 403):
                    raise
                trouble = error
            if not found and trouble is None:
                return ()
            if not self.pulls:
                self._no_image(rollouts)
            if time.monotonic() > deadline:
                if trouble is not None:
                    raise trouble
                return found
            time.sleep(_PAUSE)

    def _no_image(self, rollouts: Sequence[Rollout]) -> None:
        for one in rollouts:
            for pod in self._pods(one):
                for state in _states(pod):
                    if state.split(": ")[1].split()[0] in NO_IMAGE:
                        raise LabError(
                            f"{one} has no image: {_name(pod)}: {state}",
                            hint="bring its archive along in --lab-images",
                        )

    def _items(self, kind: str) -> list[Json]:
        found: list[Json] = self.api.list(kind)["items"]
        return found


def _not_ready(node: Json) -> str:
    for one in node.get("status", {}).get("conditions") or ():
        if one["type"] == "Ready":
            return "" if one["status"] == "True" else str(one.get("message") or one.get("reason"))
    return "its kubelet has not said anything yet"


def _containers(pod: Json) -> list[Json]:
    """The status of each container, those that run before the others first."""
    status = pod.get("status") or {}
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _states(pod: Json) -> list[str]:
    """``CONTAINER: REASON message`` of each container that is not running."""
    found = []
    for one in _containers(pod):
        state = one.get("state") or {}
        detail = state.get("waiting") or state.get("terminated") or {}
        reason = detail.get("reason") or ""
        if detail and reason not in ("Completed", "PodInitializing"):
            found.append(f"{one['name']}: {reason} {detail.get('message', '')}".strip())
    return [one for one in found if ": " in one]


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])
