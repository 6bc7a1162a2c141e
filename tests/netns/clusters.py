"""Clusters of the embedded lab for tests: how one is started, and what tests ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from harness.labs.cluster.api import Api
from harness.labs.controlplane import binaries
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.flow import Endpoint

Found = TypeVar("Found")
Json = dict[str, Any]

#: An application in namespace ``shop``: two replicas, their Service, and who asks them.
SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: nginx, image: nginx, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: b, image: busybox, command: [sleep, infinity]}]}
"""

SECONDS = 60.0
"""For what takes a fraction of a second on a machine that is not busy."""


@contextmanager
def cluster_up(
    directory: Path, *, sound: bool = True, **options: Any
) -> Iterator[EmbeddedClusterLab]:
    """A cluster. Where the programs lack it fails, with what makes them (`make api-binaries`).

    ``sound``: all programs and kubelets must be well at the end.
    """
    options.setdefault("binaries", binaries.find())
    lab = EmbeddedClusterLab(directory, **options)
    lab.up()
    try:
        yield lab
        if sound:
            lab.check()
    finally:
        lab.down()


def eventually(look: Callable[[], Found | None], seconds: float = SECONDS) -> Found:
    """What ``look`` returns once it is true. Fails with the last of what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds:g} s"
        time.sleep(0.05)


def phase(api: Api, name: str, namespace: str = "default") -> str:
    """A pod's phase."""
    return str(api.get("Pod", namespace, name).get("status", {}).get("phase"))


def pod_manifest(name: str, image: str, *command: str, **spec: Any) -> Json:
    """A pod of one container, ``main``, in namespace ``default``."""
    container: Json = {"name": "main", "image": image}
    if command:
        container["command"] = list(command)
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **spec.pop("metadata", {})},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }


def wget(lab: EmbeddedClusterLab, client: str, url: str, seconds: int = 5) -> str:
    """What an URL gives to a client of the lab; empty if it does not answer."""
    argv = ["busybox", "timeout", str(seconds), "busybox", "wget", "-q", "-O", "-", url]
    return lab.exec(Endpoint.parse(client), argv).out
