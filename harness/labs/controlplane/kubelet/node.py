"""One hollow node: its Node object, its lease, and its pods."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from harness.labs.base import LabError
from harness.labs.controlplane.dialer import Dialer
from harness.labs.controlplane.kubelet import status
from harness.labs.controlplane.kubelet.client import MERGE, ApiStatusError, Client
from harness.labs.controlplane.kubelet.pod import IPS_ANNOTATION, PodWorker
from harness.labs.controlplane.kubelet.runtime import Runtime
from harness.labs.controlplane.programs import KUBELET_PORT
from harness.labs.netns import addresses as ip
from harness.model.world import Node

Json = dict[str, Any]

_LEASE_SECONDS = 40
_RENEW_SECONDS = 10
_POLL = 0.02
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_PODS = 500
"""As many pods as a node takes: more than its IPv4 pod CIDR has addresses for."""


class HollowNode:
    """What a kubelet is for one node of the lab. Lives in one event loop."""

    def __init__(
        self,
        node: Node,
        client: Client,
        runtime: Runtime,
        dialer: Dialer,
        *,
        version: str,
        taints: Sequence[Json] = (),
        service_env: Mapping[str, str],
    ) -> None:
        self.name = node.name
        self.ips = node.ips
        self.labels = dict(node.labels)
        self.client = client
        self.runtime = runtime
        self.dialer = dialer
        self.version = version
        self.taints = list(taints)
        self.service_env = dict(service_env)
        self.families = tuple(dict.fromkeys(ip.family_of(one) for one in node.ips))
        self.workers: dict[str, PodWorker] = {}  # by uid
        self.faults: list[str] = []
        self._ranges: dict[int, ip.Range] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._by_key: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._conditions: list[Json] = []

    # -- the Node object ---------------------------------------------------------------------

    async def register(self) -> None:
        """Create the Node, not ready yet: there is no pod network without a pod CIDR.

        It has the older labels from the beginning, which the node lifecycle controller would add:
        an update of a node that is just being given its range lets the allocator look at it twice,
        and pass a range over.
        """
        self._conditions = status.conditions((), self._wanted(ready=False))
        labels = {
            "kubernetes.io/hostname": self.name,
            **{f"{prefix}kubernetes.io/os": "linux" for prefix in ("", "beta.")},
            **{f"{prefix}kubernetes.io/arch": _processor() for prefix in ("", "beta.")},
            **self.labels,
        }
        body: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"taints": self.taints} if self.taints else {},
            "status": self._status(),
        }
        try:
            await self.client.insist("POST", "/api/v1/nodes", body)
        except ApiStatusError as error:
            if error.status != 409:
                raise

    async def wait_for_pod_cidrs(self) -> tuple[str, ...]:
        """As the controller manager hands them out."""
        while True:
            node = await self.client.insist("GET", f"/api/v1/nodes/{self.name}")
            cidrs = node["spec"].get("podCIDRs") or ()
            if len(cidrs) >= len(self.families):
                self._ranges = {
                    ip.family_of(cidr.partition("/")[0]): ip.Range(cidr, kept=ip.ASKED_FOR)
                    for cidr in cidrs
                }
                return tuple(cidrs)
            await asyncio.sleep(_POLL)

    async def report_ready(self) -> None:
        """The pod network is there: pods may come."""
        self._conditions = status.conditions(self._conditions, self._wanted(ready=True))
        await self.client.insist(
            "PATCH",
            f"/api/v1/nodes/{self.name}/status",
            {"status": self._status()},
            content_type=MERGE,
        )

    def _wanted(self, *, ready: bool) -> list[tuple[str, bool, str, str]]:
        return [
            ("MemoryPressure", False, "KubeletHasSufficientMemory", ""),
            ("DiskPressure", False, "KubeletHasNoDiskPressure", ""),
            ("PIDPressure", False, "KubeletHasSufficientPID", ""),
            (
                "Ready",
                ready,
                "KubeletReady" if ready else "KubeletNotReady",
                "" if ready else "the pod network waits for the node's pod CIDR",
            ),
        ]

    def _status(self) -> Json:
        size = {"cpu": "64", "memory": "256Gi", "pods": str(_PODS), "ephemeral-storage": "100Gi"}
        stamp = status.now()
        found: Json = {
            "capacity": size,
            "allocatable": size,
            "conditions": [{**one, "lastHeartbeatTime": stamp} for one in self._conditions],
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in self.ips),
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "nodeInfo": {
                "architecture": _processor(),
                "bootID": "",
                "containerRuntimeVersion": "hollow://1",
                "kernelVersion": os.uname().release,
                "kubeProxyVersion": "",
                "kubeletVersion": f"v{self.version}",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "netpol embedded lab",
                "systemUUID": "",
            },
        }
        if tuple(int(part) for part in self.version.split(".")[:2]) >= (1, 36):
            # So that the API server hands WebSockets on as they are (no SPDY is spoken here).
            found["declaredFeatures"] = ["ExtendWebSocketsToKubelet"]
        return found

    async def renew_lease(self) -> None:
        """Renew the lease for good: without it the node is tainted."""
        path = f"{_LEASES}/{self.name}"
        while True:
            spec = {
                "holderIdentity": self.name,
                "leaseDurationSeconds": _LEASE_SECONDS,
                "renewTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            lease: Json = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            pause = 1.0
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ApiStatusError):
                try:
                    await self.client.request("PATCH", path, {"spec": spec}, content_type=MERGE)
                except ApiStatusError as error:
                    if error.status != 404:
                        raise
                    await self.client.request("POST", _LEASES, lease)
                pause = _RENEW_SECONDS
            await asyncio.sleep(pause)

    # -- pods --------------------------------------------------------------------------------

    async def follow_pods(self) -> None:
        """Make real what is bound here, for good."""
        selector = f"spec.nodeName={self.name}"
        async for kind, data in self.client.follow("/api/v1/pods", selector):
            if kind == "LISTED":
                for uid in self.workers.keys() - data.keys():
                    self.workers[uid].gone()
                for pod in data.values():
                    self._take(pod)
            elif kind == "DELETED":
                worker = self.workers.get(data["metadata"]["uid"])
                if worker is not None:
                    worker.gone()
            else:
                self._take(data)

    def _take(self, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self.workers:
            self.workers[uid].update(pod)
            return
        over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if over and not pod["metadata"].get("deletionTimestamp"):
            return  # it ended before this kubelet came
        worker = self.workers[uid] = PodWorker(self, pod)
        task = asyncio.create_task(self._run(worker, self._by_key.get(worker.key)))
        self._tasks[uid] = self._by_key[worker.key] = task

    async def _run(self, worker: PodWorker, before: asyncio.Task[None] | None) -> None:
        if before is not None:  # of the same name, taken from the API by force and still ending
            await asyncio.wait({before})
        try:
            await worker.run()
        except Exception as error:
            self.faults.append(f"pod {'/'.join(worker.key)}: {type(error).__name__}: {error}")
            await self.client.event(worker.json, "Failed", f"hollow kubelet: {error!r}")
        finally:
            self.workers.pop(worker.uid, None)
            task = self._tasks.pop(worker.uid, None)
            if self._by_key.get(worker.key) is task:
                self._by_key.pop(worker.key, None)

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of this name that is there."""
        return next((w for w in self.workers.values() if w.key == (namespace, name)), None)

    async def stop(self) -> None:
        """Leave everything as it is."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- addresses ---------------------------------------------------------------------------

    def take_addresses(self, worker: PodWorker) -> tuple[str, ...]:
        """Addresses for a pod, one a family, as host-local hands them out. Raises LabError."""
        if worker.host_network:
            return self.ips
        owner = f"pod {'/'.join(worker.key)} ({worker.uid[:8]})"
        asked = (worker.json["metadata"].get("annotations") or {}).get(IPS_ANNOTATION, "")
        taken: list[str] = []
        try:
            for address in filter(None, asked.split(",")):
                found = self._ranges.get(ip.family_of(address))
                if found is None or address not in found:
                    raise LabError(f"{address} is none of node {self.name}'s addresses")
                taken.append(found.claim(address, owner))
            for family in self.families if not asked else ():
                taken.append(self._ranges[family].take(owner))
        except LabError:
            for address in taken:
                self._ranges[ip.family_of(address)].release(address)
            raise
        return tuple(taken)

    def release_addresses(self, worker: PodWorker) -> None:
        """They are free again."""
        for address in worker.ips:
            self._ranges[ip.family_of(address)].release(address)

    def listener(self) -> list[socket.socket]:
        """Listening sockets on the node's addresses for the kubelet's own API."""
        return [self.dialer.listen(self.name, one, KUBELET_PORT) for one in self.ips]


def _processor() -> str:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return names.get(platform.machine(), platform.machine())
