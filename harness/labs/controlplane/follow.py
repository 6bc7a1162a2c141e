"""What of Services the lab does itself: names, hostPorts, all the rest where it is the proxy."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from harness.labs.base import LabError
from harness.labs.controlplane.kubelet.client import Client
from harness.labs.controlplane.kubelet.images import DNS_HOSTS
from harness.labs.controlplane.kubelet.runtime import Runtime
from harness.labs.netns import dns, services
from harness.labs.netns.client import Process
from harness.labs.netns.topology import Topology
from harness.model.manifest import ManifestError, from_manifest
from harness.model.world import Pod, Service, World

Json = dict[str, Any]
Key = tuple[str, str]


class Follower:
    """Follows the API's Services and pods, in the kubelets' event loop.

    ``proxy``: rules for all Services; else for hostPorts only, which kube-proxy leaves to a CNI's
    ``portmap``. ``server``: gives the DNS server's process, None while there is none.
    """

    def __init__(
        self,
        client: Client,
        topology: Topology,
        runtime: Runtime,
        families: Sequence[int],
        *,
        proxy: bool,
        server: Any,
    ) -> None:
        self._client = client
        self._topology = topology
        self._runtime = runtime
        self._families = tuple(families)
        self._proxy = proxy
        self._server = server
        self._services: dict[Key, Service] = {}
        self._pods: dict[Key, Pod] = {}
        self._news = asyncio.Event()
        self._names = ""
        self._rules: dict[str, services.Rules] = {}
        self.faults: list[str] = []

    async def run(self) -> None:
        """For good."""
        await asyncio.gather(
            self._follow("Service", "/api/v1/services", self._services),
            self._follow("Pod", "/api/v1/pods", self._pods),
            self._work(),
        )

    async def _follow(self, kind: str, path: str, known: dict[Key, Any]) -> None:
        async for event, data in self._client.follow(path):
            if event == "LISTED":
                known.clear()
                for item in data.values():
                    self._take(kind, known, item)
            elif event == "DELETED":
                known.pop((data["metadata"]["namespace"], data["metadata"]["name"]), None)
            else:
                self._take(kind, known, data)
            self._news.set()

    def _take(self, kind: str, known: dict[Key, Any], data: Json) -> None:
        try:
            found = from_manifest({**data, "kind": kind})
        except ManifestError as error:
            self.faults.append(str(error))
            return
        known[found.key] = found

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            world = World(services=dict(self._services), pods=dict(self._pods))
            try:
                await self._write_names(world)
                await self._write_rules(world)
            except LabError as error:
                self.faults.append(error.message)

    async def _write_names(self, world: World) -> None:
        names = dns.hosts(world)
        server: Process | None = self._server()
        if names == self._names or server is None:
            return
        self._names = names

        def write() -> None:
            self._topology.holder.request("write", path=DNS_HOSTS, text=names)
            server.signal(signal.SIGHUP)

        await self._runtime.off_loop(write)

    async def _write_rules(self, world: World) -> None:
        if not self._proxy:
            ported = {k: p for k, p in world.pods.items() if any(c.host_port for c in p.ports)}
            world = World(pods=ported)
        world = world.with_(nodes={n: node for n, (_, node) in self._topology.nodes.items()})
        jobs = []
        for node in self._topology.nodes:
            new = services.rules(world, node, self._families)
            old = self._rules.get(node)
            if new != (old or services.Rules()):
                pieces = list(services.commands(old, new))
                self._rules[node] = new
                jobs.append(self._runtime.off_loop(self._apply, node, pieces))
        await asyncio.gather(*jobs)

    def _apply(self, node: str, pieces: Sequence[str]) -> None:
        for piece in pieces:
            self._topology.nft(node, piece)
