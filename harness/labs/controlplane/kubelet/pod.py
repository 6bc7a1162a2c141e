"""One pod on a hollow node, from its binding to its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from harness.labs.base import LabError
from harness.labs.controlplane.kubelet import environment, images, ready, status
from harness.labs.controlplane.kubelet.client import MERGE, ApiStatusError
from harness.labs.controlplane.kubelet.runtime import Log, ended
from harness.labs.controlplane.kubelet.status import ContainerState
from harness.labs.netns.client import Process
from harness.labs.netns.furnish import directory
from harness.model.read_objects import PAGE_ANNOTATION
from harness.model.world import Pod, Workload

if TYPE_CHECKING:
    from harness.labs.controlplane.kubelet.node import HollowNode

Json = dict[str, Any]

IPS_ANNOTATION = "netpol-harness/ips"
"""Addresses that a pod asks for, separated by commas; Calico's annotation has the same purpose."""

_SETTLE = 0.5
"""Seconds that the first report waits for containers to be ready: most are, and one will do."""
_BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
_RETRY = 1.0
_STARTUP_PAUSE = 0.1
"""Seconds between startup probes: a kubelet's least is one, which nobody needs to wait for."""


class Container:
    """A container of a pod: its state, its output and its process."""

    def __init__(self, spec: Mapping[str, Any], kind: str) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state = ContainerState(self.name, spec.get("image", ""), kind)
        self.log = Log()
        self.process: Process | None = None
        self.env: dict[str, str] = {}
        self.made = False  # its box exists
        self.run = images.Run((), {})

    @property
    def running(self) -> bool:
        return self.state.state == "running"


class PodWorker:
    """Makes a pod real, reports what becomes of it, and takes it away again."""

    def __init__(self, node: HollowNode, pod: Json) -> None:
        self.node = node
        self.json = pod
        self.uid: str = pod["metadata"]["uid"]
        self.key: tuple[str, str] = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.ips: tuple[str, ...] = ()
        spec = pod["spec"]
        self.policy: str = spec.get("restartPolicy", "Always")
        self.host_network = bool(spec.get("hostNetwork"))
        self.containers = [
            *(
                Container(one, "sidecar" if one.get("restartPolicy") == "Always" else "init")
                for one in spec.get("initContainers") or ()
            ),
            *(Container(one, "main") for one in spec["containers"]),
        ]
        self.started_at = status.now()
        self._deletion = asyncio.Event()
        self._gone = False  # from the API
        self._dirty = asyncio.Event()
        self._settled = asyncio.Event()
        self._trouble = ""
        self._connected = False
        if pod["metadata"].get("deletionTimestamp"):
            self._deletion.set()

    # -- what the API tells ------------------------------------------------------------------

    def update(self, pod: Json) -> None:
        """The object has changed."""
        self.json = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deletion.set()

    def gone(self) -> None:
        """The object is not there any more."""
        self._gone = True
        self._deletion.set()

    def container(self, name: str) -> Container | None:
        """By name; the first main one for an empty name."""
        if not name:
            return next(one for one in self.containers if one.state.kind == "main")
        return next((one for one in self.containers if one.name == name), None)

    def box(self, container: Container) -> str:
        return f"{self.key[0]}/{self.key[1]}/{container.name}"

    @property
    def model(self) -> Pod:
        """As the lab's topology knows it: a bare sandbox."""
        return Pod(
            *self.key,
            node=self.node.name,
            ips=self.ips,
            host_network=self.host_network,
            workload=Workload.CLIENT,
        )

    # -- the life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns when nothing is left of the pod."""
        reporter = asyncio.create_task(self._report_changes())
        work = asyncio.create_task(self._work())
        deletion = asyncio.create_task(self._deletion.wait())
        try:
            await asyncio.wait({work, deletion}, return_when=asyncio.FIRST_COMPLETED)
            if not deletion.done():
                if (error := work.exception()) is not None:
                    raise error
                await self._disconnect()  # it is over; its object stays
                await deletion
            await self._terminate(work)
            await self._disconnect()
            reporter.cancel()
            await self._remove_object()
        finally:
            for task in (reporter, work, deletion):
                task.cancel()
            await asyncio.gather(reporter, work, deletion, return_exceptions=True)

    async def _work(self) -> None:
        """The containers' lives; returns when all have ended for good."""
        await self._connect()
        sidecars = []
        for one in self.containers:
            if one.state.kind == "init":
                await self._keep(one)
                if one.state.exit_code != 0:
                    self._settled.set()
                    self._changed()
                    return
            elif one.state.kind == "sidecar":
                sidecars.append(asyncio.create_task(self._keep(one)))
                await ready.until(self._is_running(one))
        mains = [
            asyncio.create_task(self._keep(one))
            for one in self.containers
            if one.state.kind == "main"
        ]
        try:
            await asyncio.gather(*mains)
        finally:
            for task in (*mains, *sidecars):
                task.cancel()
            await asyncio.gather(*mains, *sidecars, return_exceptions=True)
        for one in self.containers:
            if one.state.kind == "sidecar" and one.running:
                await self._stop(one)

    def _is_running(self, one: Container) -> Any:
        async def running() -> bool:
            return one.running

        return running

    async def _connect(self) -> None:
        """Address and network namespace; tried again for as long as it fails."""
        while True:
            try:
                if not self.ips:
                    self.ips = self.node.take_addresses(self)
                making = asyncio.ensure_future(self.node.runtime.make_sandbox(self.model))
                try:
                    await asyncio.shield(making)
                except asyncio.CancelledError:
                    # The pod is deleted meanwhile. What is being made has to be taken away.
                    with contextlib.suppress(LabError):
                        await making
                        self._connected = True
                    raise
                self._connected = True
                self._trouble = ""
                return
            except LabError as error:
                self._give_back()
                self._trouble = error.message
                self._changed()
                await self.node.client.event(self.json, "FailedCreatePodSandBox", error.message)
                await asyncio.sleep(_RETRY)

    async def _disconnect(self) -> None:
        """Everything but the object; its addresses are free from here on."""
        if self._connected:
            names = [one.name for one in self.containers if one.made]
            await self._insist(lambda: self.node.runtime.remove_sandbox(self.model, names))
            for one in self.containers:
                one.made = False
            self._connected = False
        self._give_back()

    async def _insist(self, call: Any) -> None:
        try:
            await call()
        except LabError as error:
            await self.node.client.event(self.json, "FailedKillPod", error.message)

    def _give_back(self) -> None:
        if self.ips and not self.host_network:
            self.node.release_addresses(self)
        self.ips = self.ips if self.host_network else ()

    # -- one container -----------------------------------------------------------------------

    async def _keep(self, one: Container) -> None:
        """Run a container, again as often as its policy says."""
        while True:
            if not await self._start(one):
                await asyncio.Event().wait()  # an image that is not there will not come
            assert one.process is not None
            probing = asyncio.create_task(self._watch_readiness(one))
            try:
                code = await ended(one.process)
            finally:
                probing.cancel()
            self._ended(one, code)
            await self._insist(lambda: self.node.runtime.drop_container(self.model, one.name))
            one.made = False
            if not self._again(one, code):
                return
            one.state.last = one.state.details()
            pause = _BACKOFF[min(one.state.restarts, len(_BACKOFF) - 1)]
            one.state.restarts += 1
            if pause:
                one.state.state, one.state.reason = "waiting", "CrashLoopBackOff"
                one.state.message = f"back-off {pause:g}s restarting failed container={one.name}"
                self._changed()
                await asyncio.sleep(pause)

    def _again(self, one: Container, code: int) -> bool:
        if one.state.kind == "sidecar":
            return True
        if one.state.kind == "init":
            return code != 0 and self.policy != "Never"
        return self.policy == "Always" or (self.policy == "OnFailure" and code != 0)

    async def _start(self, one: Container) -> bool:
        """False: there is no program for its image."""
        while True:
            try:
                one.env = await environment.of(self, one.spec)
                run = images.run_of(
                    "/".join(self.key),
                    one.spec,
                    one.env,
                    home=directory(self.box(one)),
                    families=self.node.families,
                    stream_module=self.node.runtime.stream_module,
                    page=(self.json["metadata"].get("annotations") or {}).get(PAGE_ANNOTATION),
                )
                files = {**run.files, **await environment.mounts(self, one.spec)}
                await self.node.runtime.make_container(self.model, one.name, files)
                one.made = True
                one.log = Log()
                one.process = await self.node.runtime.spawn_logged(
                    self.box(one), run.argv, one.env, one.log
                )
            except images.UnknownImageError as error:
                one.state.reason, one.state.message = "ErrImagePull", str(error)
                self._settled.set()
                self._changed()
                await self.node.client.event(self.json, "Failed", str(error))
                return False
            except (environment.NotYetError, LabError) as error:
                one.state.reason = "CreateContainerConfigError"
                one.state.message = getattr(error, "message", "") or str(error)
                self._settled.set()
                self._changed()
                await self.node.client.event(self.json, "Failed", one.state.message)
                await asyncio.sleep(_RETRY)
                continue
            one.run = run
            state = one.state
            state.state, state.reason, state.message = "running", "", ""
            state.started_at, state.id = status.now(), uuid.uuid4().hex
            self._changed()
            return True

    def _ended(self, one: Container, code: int) -> None:
        state = one.state
        state.state, state.ready, state.exit_code = "terminated", False, code
        state.reason = "Completed" if code == 0 else "Error"
        state.finished_at = status.now()
        self._settled.set()
        self._changed()

    async def _stop(self, one: Container) -> None:
        assert one.process is not None
        grace = float(self.json["spec"].get("terminationGracePeriodSeconds", 30))
        with contextlib.suppress(LabError):
            await self.node.runtime.off_loop(one.process.signal, signal.SIGTERM)
        try:
            code = await asyncio.wait_for(ended(one.process), grace)
        except TimeoutError:
            code = 137
        self._ended(one, code)

    # -- readiness ---------------------------------------------------------------------------

    async def _watch_readiness(self, one: Container) -> None:
        startup, probe = one.spec.get("startupProbe"), one.spec.get("readinessProbe")
        await ready.until(lambda: self._answers(one))
        if startup is not None:
            await ready.until(lambda: self._probe(one, startup), _STARTUP_PAUSE)
        if probe is None:
            self._set_ready(one, True)
            return
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            self._set_ready(one, await self._probe(one, probe))
            await asyncio.sleep(probe.get("periodSeconds", 10) if one.state.ready else 1)

    def _set_ready(self, one: Container, value: bool) -> None:
        if one.state.ready != value:
            one.state.ready = value
            self._changed()
        if all(other.state.ready for other in self.containers if other.state.kind != "init"):
            self._settled.set()

    async def _answers(self, one: Container) -> bool:
        """Whether all ports that the program must serve are served."""
        address = self.ips[0] if self.ips else "127.0.0.1"
        sockets = self._sockets(one)
        for port in one.run.tcp:
            if not await ready.tcp(sockets, address, port):
                return False
        for port in one.run.udp:
            if not await ready.udp(sockets, address, port):
                return False
        return True

    def _sockets(self, one: Container) -> ready.Sockets:
        assert one.process is not None
        namespace = f"/proc/{one.process.pid}/ns/net"
        return lambda family, kind: self.node.dialer.open(namespace, family, kind)

    async def _probe(self, one: Container, probe: Json) -> bool:
        try:
            return await self._probed(one, probe)
        except LabError:  # the container has just ended
            return False

    async def _probed(self, one: Container, probe: Json) -> bool:
        seconds = float(probe.get("timeoutSeconds", 1))
        address = self.ips[0]
        if "exec" in probe:
            log = Log()
            argv = probe["exec"]["command"]
            process = await self.node.runtime.spawn_logged(self.box(one), argv, one.env, log)
            try:
                return await asyncio.wait_for(ended(process), seconds) == 0
            except TimeoutError:
                return False
            finally:
                await self.node.runtime.off_loop(process.close)
        for kind in ("tcpSocket", "httpGet"):
            if kind in probe:
                port = _port(one.spec, probe[kind]["port"])
                host = probe[kind].get("host") or address
                if kind == "tcpSocket":
                    return await ready.tcp(self._sockets(one), host, port, seconds)
                path = probe[kind].get("path", "/")
                return await ready.http(self._sockets(one), host, port, path, host, seconds)
        return True  # grpc: not looked at

    # -- the end -----------------------------------------------------------------------------

    async def _terminate(self, work: asyncio.Task[None]) -> None:
        """Ask all processes to end, and wait for them as long as the object's grace says."""
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        grace = self.json["metadata"].get("deletionGracePeriodSeconds")
        left = [one for one in self.containers if one.running and one.process is not None]
        if not left or self._gone:
            return
        for one in left:
            assert one.process is not None
            one.state.ready = False
            with contextlib.suppress(LabError):
                await self.node.runtime.off_loop(one.process.signal, signal.SIGTERM)
        waits = [asyncio.create_task(ended(one.process)) for one in left if one.process]
        await asyncio.wait(waits, timeout=float(30 if grace is None else grace))
        for one, wait in zip(left, waits, strict=True):
            self._ended(one, wait.result() if wait.done() else 137)
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _remove_object(self) -> None:
        if self._gone:
            return
        namespace, name = self.key
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self.uid},
        }
        with contextlib.suppress(ApiStatusError):  # somebody else has been faster
            await self.node.client.insist(
                "DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body
            )

    # -- reports -----------------------------------------------------------------------------

    def _changed(self) -> None:
        self._dirty.set()

    async def _report_changes(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), _SETTLE)
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._report()
            except ApiStatusError as error:
                if error.status in (404, 409):
                    return  # the object is gone, or another of the same name is there
                self._dirty.set()
                await asyncio.sleep(_RETRY)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._dirty.set()
                await asyncio.sleep(_RETRY)

    async def _report(self) -> None:
        namespace, name = self.key
        body = {
            "metadata": {"uid": self.uid},
            "status": status.pod_status(
                self.json,
                [one.state for one in self.containers],
                ips=self.ips or _known_ips(self.json),
                host_ips=self.node.ips,
                started_at=self.started_at,
                trouble=self._trouble,
            ),
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self.json = await self.node.client.request("PATCH", path, body, content_type=MERGE)


def _known_ips(pod: Json) -> tuple[str, ...]:
    """The addresses that a pod has had: its object keeps them when it is over."""
    return tuple(one["ip"] for one in pod.get("status", {}).get("podIPs") or ())


def _port(container: Mapping[str, Any], port: int | str) -> int:
    if isinstance(port, int):
        return port
    for one in container.get("ports") or ():
        if one.get("name") == port:
            return int(one["containerPort"])
    return 0
