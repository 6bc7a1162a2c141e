"""All hollow kubelets of a lab: one event loop in a thread of the lab's process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

from aiohttp import web

from harness.labs.base import LabError
from harness.labs.controlplane.follow import Follower
from harness.labs.controlplane.kubelet import streams
from harness.labs.controlplane.kubelet.client import ApiStatusError, Client
from harness.labs.controlplane.kubelet.node import HollowNode
from harness.labs.controlplane.kubelet.runtime import Runtime
from harness.labs.controlplane.plane import ControlPlane
from harness.labs.controlplane.programs import PORT
from harness.labs.netns import addresses as ip
from harness.labs.netns.client import Process
from harness.labs.netns.topology import Topology
from harness.model.world import Node

START_SECONDS = 120.0
_LOOK_SECONDS = 0.25
_SHUTDOWN_SECONDS = 1.0
_LINGER_SECONDS = 0.05
"""Until transports that are being closed are closed: asyncio has no call that waits for TLS."""
CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


class HollowKubelets:
    """A kubelet for each node; the first is the control plane's and takes no ordinary pods.

    ``direct``: containers are told the API server's own address in the place of its Service's,
    where no proxy knows that Service, which has no selector.
    """

    def __init__(
        self,
        plane: ControlPlane,
        topology: Topology,
        nodes: Sequence[Node],
        *,
        direct: bool = False,
    ) -> None:
        self.plane = plane
        self.direct = direct
        self.topology = topology
        self.given = tuple(nodes)
        self.nodes: dict[str, HollowNode] = {}
        self._runtime = Runtime(topology)
        self._runners: list[web.AppRunner] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._faults: list[str] = []
        self._follower: Follower | None = None
        self._admin: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="hollow-kubelets", daemon=True)
        self._thread.start()

    def start(self) -> list[Node]:
        """Register the nodes; returns them with their pod CIDRs once they are ready for pods.

        ``topology.assign`` is called with them. Raises LabError.
        """
        nodes: list[Node] = self._call(self._start(), START_SECONDS)
        return nodes

    def follow_services(self, *, proxy: bool, dns: tuple[str, str]) -> None:
        """Do what of Services is the lab's: :class:`~harness.labs.controlplane.follow.Follower`.

        ``dns``: namespace and name of the DNS server's pod.
        """
        self._call(self._follow_services(proxy, dns), START_SECONDS)

    def check(self) -> None:
        """Raises LabError if a kubelet has come upon something that it cannot handle."""
        faults = self._faults + [fault for node in self.nodes.values() for fault in node.faults]
        faults += self._follower.faults if self._follower else []
        if faults:
            raise LabError("a hollow kubelet has failed", detail="\n".join(faults[:10]))

    def stop(self) -> None:
        """Leave everything as it is; the lab's end takes the pods away."""
        with contextlib.suppress(LabError):
            self._call(self._stop(), 10.0, check=False)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()

    # -- in the loop -------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Any, seconds: float, *, check: bool = True) -> Any:
        """What ``work`` returns. ``check``: give up as soon as the control plane is not sound."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        deadline = time.monotonic() + seconds
        try:
            while not wait([future], _LOOK_SECONDS).done and time.monotonic() < deadline:
                if check:
                    self.plane.check()
            return future.result(0)
        except LabError:
            future.cancel()
            raise
        except TimeoutError:  # ours, or that of a request
            future.cancel()
            if check:
                self.plane.check()
            raise LabError(f"the hollow kubelets have not answered within {seconds:g} s") from None
        except ApiStatusError as error:
            raise LabError(f"a hollow kubelet was refused by the API server: {error}") from None

    async def _start(self) -> list[Node]:
        plane = self.plane
        service = ip.at(ip.SERVICE_CIDRS[plane.settings.families[0]], 1)
        host, port = (plane.settings.address, str(PORT)) if self.direct else (service, "443")
        environment = {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }
        for index, node in enumerate(self.given):
            client = Client(
                plane.settings.server,
                plane.authority.certificate,
                plane.node_tokens[node.name],
                self._sockets(node.name),
            )
            alone = len(self.given) == 1
            self.nodes[node.name] = HollowNode(
                node,
                client,
                self._runtime,
                plane.dialer,
                version=plane.settings.binaries.version,
                taints=[CONTROL_PLANE_TAINT] if index == 0 and not alone else [],
                service_env=environment,
            )
        nodes = list(self.nodes.values())
        for one in nodes:
            await self._listen(one)
        await self._runtime.off_loop(plane.wait_for_controllers)
        ready = []
        # One after the other: the controller manager gives ranges in the order of its choice to
        # nodes that come at once, and scenarios name addresses of the second node's range.
        for given, one in zip(self.given, nodes, strict=True):
            await one.register()
            self._start_task(one.renew_lease())
            ready.append(replace(given, pod_cidrs=await one.wait_for_pod_cidrs()))
        await self._runtime.off_loop(self.topology.assign, ready)
        await asyncio.gather(*(one.report_ready() for one in nodes))
        for one in nodes:
            self._start_task(one.follow_pods())
        return ready

    async def _follow_services(self, proxy: bool, dns: tuple[str, str]) -> None:
        plane = self.plane
        self._admin = Client(
            plane.settings.server,
            plane.authority.certificate,
            plane.admin_token,
            self._sockets(plane.node.name),
        )

        def server() -> Process | None:
            workers = (node.find(*dns) for node in self.nodes.values())
            worker = next((one for one in workers if one), None)
            container = worker.container("") if worker else None
            return container.process if container and container.state.ready else None

        self._follower = Follower(
            self._admin,
            self.topology,
            self._runtime,
            plane.settings.families,
            proxy=proxy,
            server=server,
        )
        self._start_task(self._follower.run())

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that runs for good; its end is a fault."""
        task = asyncio.create_task(work)
        self._tasks.append(task)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._faults.append(f"{task.get_coro()}: {type(error).__name__}: {error}")

        task.add_done_callback(ended)

    def _sockets(self, node: str) -> Callable[[int], socket.socket]:
        return lambda family: self.plane.dialer.open_on(node, family)

    async def _listen(self, node: HollowNode) -> None:
        pair = self.plane.authority.issue(node.name, names=[node.name], addresses=node.ips)
        context = streams.tls(self.plane.authority.certificate, pair)
        runner = web.AppRunner(
            streams.application(node), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await runner.setup()
        self._runners.append(runner)
        for listening in node.listener():
            await web.SockSite(runner, listening, ssl_context=context, backlog=128).start()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.stop() for one in self.nodes.values()))
        self._runtime.close()
        for runner in self._runners:
            await runner.cleanup()
        for client in (self._admin, *(one.client for one in self.nodes.values())):
            if client is not None:
                await client.close()
        await self._loop.shutdown_asyncgens()  # watches that were left in the middle
        await asyncio.sleep(_LINGER_SECONDS)
