"""What the status of a pod says, or of a node: the API's objects as they come. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

#: Why a container waits that has no image, and will not get one by itself.
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


def is_ready(thing: Json | None) -> bool:
    """Whether the Ready condition of a pod or a node is true."""
    conditions = ((thing or {}).get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def states(pod: Json | None) -> list[Json]:
    """The state of each of a pod's containers."""
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or ()
    return [one["state"] for one in statuses]


def has_ended(pod: Json | None) -> bool:
    """Whether a container has ended that should run: the run's pods are never started again. A
    kubelet that refuses a pod (a host port that is taken, say) fails it without any container."""
    failed = ((pod or {}).get("status") or {}).get("phase") == "Failed"
    return failed or any("terminated" in state for state in states(pod))
