"""A pod's status as a kubelet reports it: pure functions of what its containers do."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


def now() -> str:
    """The present time as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class ContainerState:
    """One container. ``kind``: ``main``, ``init`` or ``sidecar``.

    ``state``: ``waiting``, ``running`` or ``terminated``. ``reason`` and ``message`` belong to
    the first and the last of them.
    """

    name: str
    image: str
    kind: str = "main"
    state: str = "waiting"
    reason: str = "ContainerCreating"
    message: str = ""
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    ready: bool = False
    restarts: int = 0
    last: Json | None = None
    id: str = ""

    def as_json(self) -> Json:
        """A ``ContainerStatus``."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": f"hollow://{self.id}" if self.id else "",
            "ready": self.ready,
            "started": self.state == "running",
            "restartCount": self.restarts,
            "state": {self.state: self.details()},
            **({"lastState": {"terminated": self.last}} if self.last else {}),
        }

    def details(self) -> Json:
        """What the API has below the name of the state."""
        if self.state == "running":
            return {"startedAt": self.started_at}
        found: Json = {"reason": self.reason}
        if self.message:
            found["message"] = self.message
        if self.state == "terminated":
            found.update(
                exitCode=self.exit_code, startedAt=self.started_at, finishedAt=self.finished_at
            )
        return found


def phase(containers: Sequence[ContainerState], restart_policy: str) -> str:
    """Pending, Running, Succeeded or Failed (documentation: "Pod phase")."""
    init = [one for one in containers if one.kind == "init"]
    main = [one for one in containers if one.kind == "main"]
    if restart_policy == "Never" and any(
        one.state == "terminated" and one.exit_code != 0 for one in init
    ):
        return "Failed"
    if any(one.state != "terminated" or one.exit_code != 0 for one in init):
        return "Pending"
    if all(one.state == "waiting" and not one.restarts for one in main):
        return "Pending"
    if any(one.state == "waiting" and not one.restarts for one in main):
        return "Pending"
    over = [one for one in main if one.state == "terminated"]
    if len(over) < len(main) or restart_policy == "Always":
        return "Running"
    if all(one.exit_code == 0 for one in over):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def pod_status(
    pod: Mapping[str, Any],
    containers: Sequence[ContainerState],
    *,
    ips: Sequence[str],
    host_ips: Sequence[str],
    started_at: str,
    trouble: str = "",
) -> Json:
    """The whole ``status`` of a pod; conditions that others have set stay. ``trouble``: why it has
    no sandbox yet."""
    policy = pod["spec"].get("restartPolicy", "Always")
    word = phase(containers, policy)
    over = word in ("Succeeded", "Failed")
    initialized = all(
        one.state == "terminated" and one.exit_code == 0 for one in containers if one.kind == "init"
    )
    serving = [one for one in containers if one.kind != "init"]
    ready = word == "Running" and all(one.ready for one in serving)
    unready = [one.name for one in serving if not one.ready]
    reason = "PodCompleted" if word == "Succeeded" else "PodFailed" if over else ""
    if not ready and not over:
        reason = "ContainersNotReady"
    message = f"containers with unready status: [{' '.join(unready)}]" if unready else ""
    wanted = [
        ("PodReadyToStartContainers", bool(ips) and not over, "", trouble),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        ("Ready", ready, reason, "" if over else message),
        ("ContainersReady", ready, reason, "" if over else message),
    ]
    found: Json = {
        "phase": word,
        "conditions": conditions(pod.get("status", {}).get("conditions") or (), wanted),
        "hostIP": host_ips[0],
        "hostIPs": [{"ip": one} for one in host_ips],
        "startTime": started_at,
        "containerStatuses": [one.as_json() for one in containers if one.kind == "main"],
        "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
    }
    init = [one.as_json() for one in containers if one.kind != "main"]
    if init:
        found["initContainerStatuses"] = init
    if ips:
        found["podIP"] = ips[0]
        found["podIPs"] = [{"ip": one} for one in ips]
    return found


def conditions(
    old: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, bool, str, str]]
) -> list[Json]:
    """Conditions brought up to date: (type, whether it holds, reason, message)."""
    found = {one["type"]: dict(one) for one in old}
    for kind, holds, reason, message in wanted:
        value = "True" if holds else "False"
        before = found.get(kind)
        same = before is not None and before.get("status") == value
        since = before["lastTransitionTime"] if before and same else now()
        found[kind] = {"type": kind, "status": value, "lastTransitionTime": since}
        found[kind].update({k: v for k, v in (("reason", reason), ("message", message)) if v})
    return list(found.values())
