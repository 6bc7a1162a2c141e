"""A lab on a cluster with an API, however it came up: kind, kubeconfig, or the embedded one."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from harness.labs import server
from harness.labs.base import Evidence, LabError, Shell
from harness.labs.cluster import objects, stream
from harness.labs.cluster.api import Api, ApiError, path
from harness.labs.cluster.change import SYSTEM, Change
from harness.labs.cluster.fanout import Workers
from harness.labs.cluster.objects import RUN_LABEL, Images
from harness.labs.cluster.pods import has_ended, is_ready
from harness.labs.cluster.spread import FanOut
from harness.labs.cluster.watch import PodWatch
from harness.model.actions import Action, Apply
from harness.model.fields import STRICT_CIDRS_SINCE
from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.manifest import from_manifest
from harness.model.policy import Protocol
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Node,
    Phase,
    Pod,
    Service,
    Workload,
    World,
)

Json = dict[str, Any]
Key = tuple[str, str]

#: All that runs make, in the order in which it is deleted: what is in a namespace goes with it, but
#: some is in namespaces that are not the run's.
KINDS = ("Namespace", "ClusterNetworkPolicy", "Job", "NetworkPolicy", "Service", "Pod")
#: A Job leaves its pods behind unless it is told otherwise.
_DELETE = {"Job": {"propagationPolicy": "Background"}}
READY_SECONDS = 120.0
_GONE_SECONDS = 120.0
_ACCOUNT_SECONDS = 30.0
_ENDPOINTS_SECONDS = 60.0
_PAUSE = 0.05
_PARALLEL = 8


class ClusterLab:
    """Implements :class:`harness.labs.base.Lab` through a Kubernetes API.

    ``run`` marks everything that is made (:data:`RUN_LABEL`); :meth:`down` deletes just that.
    ``protocols``: WebSocket subprotocols of exec streams, the best first. ``ask_ips``: the cluster
    gives pods the addresses that they ask for (the embedded lab's kubelets do). ``api`` is None
    where it comes up later (a subclass sets it in :meth:`up`). ``fan_out``: whether clients are
    probed by workers inside of the cluster.
    """

    name = "cluster"

    def __init__(
        self,
        api: Api | None,
        *,
        run: str,
        images: Images | None = None,
        protocols: Sequence[str] = (stream.V5, stream.V4),
        ask_ips: bool = False,
        ready_seconds: float = READY_SECONDS,
        fan_out: FanOut | None = None,
    ) -> None:
        self._api: Api | None = api
        self.run = run
        self.images = images or Images()
        self.protocols = tuple(protocols)
        self.ask_ips = ask_ips
        self.ready_seconds = ready_seconds
        self.features: frozenset[str] = frozenset()
        self.missing: Mapping[str, str] = {}
        self.families: tuple[int, ...] = (4,)
        self.world = World()
        self.version = ""
        self._watch: PodWatch | None = None
        self.dying: dict[str, str] = {}  # namespaces that were deleted: name -> uid
        self._own: set[Key] = set()
        self._pool: ThreadPoolExecutor | None = None
        self.workers = Workers(self, fan_out or FanOut())

    @property
    def api(self) -> Api:
        """The cluster's API. LabError before the lab is up."""
        if self._api is None:
            raise LabError("the cluster is not up")
        return self._api

    @property
    def watch(self) -> PodWatch:
        """The run's pods as the server has them. LabError before :meth:`up`."""
        if self._watch is None:
            raise LabError("the cluster is not connected: call up() first")
        return self._watch

    @property
    def selector(self) -> str:
        """A label selector for all that this lab makes."""
        return f"{RUN_LABEL}={self.run}"

    def marks(self, namespace: str) -> dict[str, str]:
        """The labels of what is made in (or as) this namespace."""
        del namespace  # the same in all of them here
        return {RUN_LABEL: self.run}

    # -- up and down -------------------------------------------------------------------------

    @property
    def node_namespace(self) -> str:
        """Where the pods are that stand for nodes."""
        return f"netpol-{self.run}"

    def up(self) -> None:
        """See what the cluster is, and make what stands for its nodes. Raises LabError."""
        self.connect()
        self.make_node_clients()
        self.workers.take(0)  # what cannot be had is told before any test

    def connect(self) -> None:
        """See what the cluster is; make nothing."""
        self.version = self.api.request("GET", "/version")["gitVersion"].removeprefix("v")
        nodes = {
            item["metadata"]["name"]: from_manifest({"kind": "Node", **item})
            for item in self.api.list("Node")["items"]
        }
        self.families = _families(nodes.values())
        self.world = World(namespaces={name: Namespace(name) for name in SYSTEM}, nodes=nodes)
        self._find_dns()
        self.features, self.missing = self.abilities()
        self._watch = PodWatch(self.api, self.selector)
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="cluster")

    @property
    def fan_out_name(self) -> str:
        """What the workers' Job is called, in :attr:`node_namespace`."""
        return "fan-out"

    def fan_out_marks(self) -> dict[str, str]:
        """The labels of what the fan-out makes."""
        return self.marks(self.node_namespace)

    def make_node_clients(self) -> None:
        """A pod on each node's own network: node clients, and servers that node targets have."""
        ports = tuple(
            ContainerPort(server.NODE_SERVER_PORT, protocol)
            for protocol in (Protocol.TCP, Protocol.UDP)
        )
        pods = [
            Pod(self.node_namespace, f"node-{name}", node=name, host_network=True, ports=ports)
            for name in self.world.nodes
        ]
        self.apply([Apply(Namespace(self.node_namespace)), *(Apply(pod) for pod in pods)])

    def down(self) -> None:
        """Delete everything that has the run's label, namespaces and all that is in them."""
        self.workers.close()
        try:
            if self._watch is not None:
                self._watch.close()
                self._delete_all()
        finally:
            self._watch = None
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _delete_all(self) -> None:
        self.delete(self.selector)

    def delete(self, selector: str) -> None:
        """Delete all that has these labels; what cannot be deleted stays."""
        for kind in KINDS:
            with contextlib.suppress(ApiError):
                for item in list(self.api.every(kind, labelSelector=selector)):
                    meta = item["metadata"]
                    if kind == "Namespace":
                        self.dying[meta["name"]] = meta["uid"]
                    with contextlib.suppress(ApiError):
                        where = kind, meta.get("namespace", ""), meta["name"]
                        self.api.delete(*where, **_DELETE.get(kind, {}))

    def abilities(self) -> tuple[frozenset[str], Mapping[str, str]]:
        """What can be tested here, and why the rest cannot."""
        found = {"ipv4"} if 4 in self.families else set()
        found |= {"ipv6"} if 6 in self.families else set()
        found |= {
            "services",
            "udp",
            "host-network",
            "node-client",
            "node-port",
            "host-port",
            "finish-pod",
        }
        missing = {
            "external": "this cluster lab has no host outside of the cluster",
            "sctp": "whether all nodes have SCTP is not known",
            "icmp": "clients send no echo requests here",
        }
        missing.update(
            {f"ipv{f}": f"the cluster has no IPv{f}" for f in (4, 6) if f not in self.families}
        )
        if self._own:
            found.add("dns")
        else:
            missing["dns"] = "there is no Service kube-dns in kube-system"
        if tuple(map(int, re.findall(r"\d+", self.version)[:2])) < STRICT_CIDRS_SINCE:
            found.add("lax-cidrs")
        else:
            missing["lax-cidrs"] = f"Kubernetes {self.version} refuses ranges with host bits"
        if self.ask_ips:
            found.add("address-reuse")
        else:
            missing["address-reuse"] = "pods of this cluster cannot ask for an address"
        try:
            self.api.list("ClusterNetworkPolicy", limit=1)
            found.add("cluster-network-policy")
        except ApiError as error:
            missing["cluster-network-policy"] = (
                "the cluster does not serve policy.networking.k8s.io/v1alpha2"
                if error.status == 404
                else error.message
            )
        return frozenset(found), missing

    def _find_dns(self) -> None:
        """The DNS server's Service and pods: policies speak of them."""
        service = self.api.find("Service", "kube-system", "kube-dns")
        if service is None:
            return
        pods = self.api.list("Pod", "kube-system", labelSelector="k8s-app=kube-dns")["items"]
        found = from_manifest({"kind": "Service", **service})
        known = [from_manifest({"kind": "Pod", **item}) for item in pods]
        self._own = {found.key, *(pod.key for pod in known)}
        self.world = self.world.with_(
            services={**self.world.services, found.key: found},
            pods={**self.world.pods, **{pod.key: pod for pod in known}},
        )

    # -- changes -----------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> float:
        """See :class:`harness.labs.base.Lab`. Raises LabError, and ActionError of the model."""
        change = Change(self)
        for action in actions:
            change.take(action)
        change.finish()
        return change.started

    def parallel(self, calls: Iterable[Callable[[], Any]]) -> list[Any]:
        """Several requests at once; the first error is raised after all have ended."""
        assert self._pool is not None
        futures = [self._pool.submit(call) for call in calls]
        return [future.result() for future in futures]

    def create_pod(self, pod: Pod) -> None:
        """Create a pod; a namespace that is new gets its service account a moment later."""
        if self.ask_ips and pod.ips and not pod.node:
            # The scheduler knows nothing of addresses: only one node can give this one.
            pod = replace(pod, node=_node_of(pod.ips[0], self.world.nodes.values()))
        manifest = objects.pod(
            pod,
            self.images,
            self.families,
            ask_ips=self.ask_ips,
            answers_as=self.answers_as(pod),
        )
        manifest = objects.labelled(manifest, self.marks(pod.namespace))
        deadline = time.monotonic() + _ACCOUNT_SECONDS
        while True:
            try:
                self.watch.note(self.api.create(manifest))
                return
            except ApiError as error:
                waits = error.status == 403 and "serviceaccount" in error.message
                if not waits or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def answers_as(self, pod: Pod) -> str:
        """What a pod's servers call themselves: the node that it stands for, or the pod."""
        return f"node:{pod.node}" if pod.namespace == self.node_namespace else str(pod)

    def wait_ready(self, pods: Sequence[Pod]) -> None:
        """Wait until pods run, listen and have addresses. Raises LabError with what is known."""
        keys = [pod.key for pod in pods]
        began = time.monotonic()

        def settled(known: dict[Key, Json]) -> bool:
            return all(_ready(known.get(key)) for key in keys) or any(
                has_ended(known.get(key)) for key in keys
            )

        self.watch.wait(settled, self.ready_seconds)
        late = [pod for pod in pods if not _ready(self.watch.get(pod.key))]
        if not late:
            return
        lines = [self.condition_of(pod) for pod in late[:10]]
        raise LabError(
            f"{len(late)} of {len(pods)} pods are not ready after {time.monotonic() - began:.0f} s",
            hint="`kubectl describe pod` tells more; images that cannot be pulled are the usual "
            "cause (--lab-images)",
            detail="\n".join(lines),
        )

    def condition_of(self, pod: Pod) -> str:
        """What the server says of a pod that is not ready: lines for people."""
        data = self.watch.get(pod.key)
        if data is None:
            return f"  {pod}: it does not exist"
        status = data.get("status", {})
        reasons = [
            f"{one['name']}: {state.get('reason')} {state.get('message', '')}".strip()
            for one in status.get("containerStatuses") or ()
            for state in [one["state"].get("waiting") or one["state"].get("terminated")]
            if state
        ]
        reasons += [
            f"{one['type']}: {one['message']}"
            for one in status.get("conditions") or ()
            if one["status"] == "False" and one.get("message")
        ]
        if status.get("reason"):  # the kubelet's own, of the whole pod
            reasons.insert(0, f"{status['reason']} {status.get('message', '')}".strip())
        node = data["spec"].get("nodeName", "no node")
        lines = [f"  {pod} on {node}: {status.get('phase')}; {'; '.join(reasons)}"]
        lines += [f"    {line}" for line in self._last_lines(data)]
        return "\n".join(lines)

    def _last_lines(self, data: Json) -> list[str]:
        """What the containers of a pod said that have ended."""
        meta = data["metadata"]
        where = path("Pod", meta["namespace"], meta["name"]) + "/log"
        lines: list[str] = []
        for one in data.get("status", {}).get("containerStatuses") or ():
            if "terminated" in one["state"]:
                with contextlib.suppress(LabError):
                    text = self.api.text(where, {"container": one["name"], "tailLines": "5"})
                    lines += [f"{one['name']}: {line}" for line in text.splitlines()]
        return lines

    def endpoints(self, service: Service) -> frozenset[str]:
        """Addresses of the pods that a Service should lead to, as the server knows the pods."""
        found: set[str] = set()
        for pod in self.world.backends(service):
            found.update(self._resolved(pod).ips)
        return frozenset(found)

    def wait_for_services(self, services: Sequence[Service]) -> None:
        """Wait until the EndpointSlices of these Services name the pods of the moment.

        What proxies make of them comes a moment later; no API tells.
        """
        left = {service.key: self.endpoints(service) for service in services if service.selector}
        deadline = time.monotonic() + _ENDPOINTS_SECONDS
        while True:
            for namespace in {key[0] for key in left}:
                known = _addresses(self.api.list("EndpointSlice", namespace)["items"])
                for key in [key for key in left if key[0] == namespace]:
                    if known.get(key[1], set()) == left[key]:
                        del left[key]
            if not left:
                return
            if time.monotonic() > deadline:
                names = ", ".join("/".join(key) for key in left)
                raise LabError(
                    f"the endpoints of Services are not those of their pods after "
                    f"{_ENDPOINTS_SECONDS:g} s: {names}"
                )
            time.sleep(_PAUSE)

    def wait_gone(self, uids: Mapping[Key, str]) -> None:
        """Wait until the API does not know these pods any more."""

        def gone(known: dict[Key, Json]) -> bool:
            return all(
                key not in known or known[key]["metadata"]["uid"] != uid
                for key, uid in uids.items()
            )

        if not self.watch.wait(gone, _GONE_SECONDS):
            left = ", ".join("/".join(key) for key in uids if self.watch.get(key))
            raise LabError(
                f"pods are still there {_GONE_SECONDS:g} s after they were deleted: {left}"
            )

    def wait_for_namespace(self, name: str) -> None:
        """A namespace that was deleted must be gone before another of its name is made."""
        uid = self.dying.pop(name, "")
        deadline = time.monotonic() + _GONE_SECONDS
        while uid:
            there = self.api.find("Namespace", "", name)
            if there is None or there["metadata"]["uid"] != uid:
                return
            if time.monotonic() > deadline:
                raise LabError(
                    f"namespace {name} is still there {_GONE_SECONDS:g} s after it was deleted",
                    detail="\n".join(
                        f"  {one['type']}: {one.get('message')}"
                        for one in there.get("status", {}).get("conditions") or ()
                        if one["status"] == "True"
                    ),
                )
            time.sleep(_PAUSE)

    def finish_pod(self, pod: Pod, phase: Phase) -> None:
        """Let a pod's containers end by themselves, with an exit code for the phase."""
        names = list(objects.containers_of(pod))
        if pod.workload is not Workload.SERVER:
            names.append(objects.client_container(pod))
        command = objects.finish_command(0 if phase is Phase.SUCCEEDED else 1)
        for name in names:
            with contextlib.suppress(LabError):  # it may end before it can say so
                stream.run(self.api, *pod.key, name, command, seconds=10, protocols=self.protocols)

        def over(known: dict[Key, Json]) -> bool:
            data = known.get(pod.key)
            return data is not None and data.get("status", {}).get("phase") == phase

        if not self.watch.wait(over, self.ready_seconds):
            raise LabError(f"pod {pod} has not become {phase}", detail=self.condition_of(pod))

    def add_external(self, external: External) -> External:
        """An outside host; what has none refuses."""
        raise LabError(
            f"outside host {external.name} cannot be made: {self.missing.get('external', '')}"
        )

    def remove_external(self, name: str) -> None:
        """Take an outside host away."""

    # -- looks -------------------------------------------------------------------------------

    def resolve(self, world: World) -> World:
        """See :class:`harness.labs.base.Lab`: adds the cluster's DNS server, too."""
        pods = {key: pod for key, pod in self.world.pods.items() if key in self._own}
        for key, pod in world.pods.items():
            pods[key] = self._resolved(pod)
        services = {k: item for k, item in self.world.services.items() if k in self._own}
        for key, service in world.services.items():
            mine = self.world.services.get(key)
            services[key] = (
                replace(service, cluster_ips=mine.cluster_ips, ports=mine.ports)
                if mine
                else service
            )
        system = {n: one for n, one in self.world.namespaces.items() if n in SYSTEM}
        return world.with_(
            namespaces={**system, **world.namespaces},
            pods=pods,
            services=services,
            nodes={**world.nodes, **self.world.nodes},
            externals={**world.externals, **self.world.externals},
        )

    def _resolved(self, pod: Pod) -> Pod:
        data = self.watch.get(pod.key)
        if data is None:
            return pod
        status = data.get("status", {})
        ips = tuple(one["ip"] for one in status.get("podIPs") or ()) if pod.live else ()
        return replace(pod, node=data["spec"].get("nodeName"), ips=ips, uid=data["metadata"]["uid"])

    def shell(self, client: Endpoint) -> Shell:
        """See :class:`harness.labs.base.Lab`: an exec stream, this machine's or a worker's."""
        key, container = self.container_of(client)
        if self._fans_out(key):
            return self.workers.shell(key, container)
        return stream.ExecShell(self.api, *key, container, protocols=self.protocols)

    def gather(self, clients: Sequence[Endpoint]) -> None:
        """Open the shells of many clients at once, if workers do it: :meth:`shell` has them then.
        Raises LabError."""
        found = [self.container_of(one) for one in clients if self._has_pod(one)]
        fanned = [one for one in found if self._fans_out(one[0])]
        if fanned:
            self.workers.gather(fanned)

    def container_of(self, client: Endpoint) -> tuple[Key, str]:
        """The pod and the container that a client's probes are sent from. Raises LabError."""
        key = self._pod_key(client)
        if not self._has_pod(client):
            raise LabError(f"there is no {client} to probe from")
        return key, objects.client_container(self.world.pods[key])

    def _pod_key(self, client: Endpoint) -> Key:
        if client.kind is EndpointKind.NODE:
            return self.node_namespace, f"node-{client.name}"
        return client.namespace, client.name

    def _has_pod(self, client: Endpoint) -> bool:
        there = client.kind in (EndpointKind.NODE, EndpointKind.POD)
        return there and self._pod_key(client) in self.world.pods

    def _fans_out(self, key: Key) -> bool:
        """Whether workers probe from a pod: they may enter the run's own namespaces alone."""
        return key[0] not in SYSTEM and self.workers.take(len(self.world.pods))

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`: what the API says of the pods in question."""
        found = []
        for key in sorted({k for cell in cells for k in _pods_of(cell)} & world.pods.keys()):
            pod = world.pods[key]
            try:
                text = self.api.text(path("Pod", *key), {"pretty": "true"})
            except LabError as error:
                text = f"(not to be had: {error})"
            found.append(Evidence(f"pod {pod}", pod.node or "", f"GET {path('Pod', *key)}", text))
        return tuple(found)

    def check(self) -> None:
        """See :class:`harness.labs.base.Lab`: whether the API server says that it is ready."""
        self.api.text("/readyz", timeout=10.0)

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        return {
            "lab": self.name,
            "kubernetes": self.version,
            "server": self.api.server,
            "families": [f"ipv{family}" for family in self.families],
            "nodes": list(self.world.nodes),
            "images": {"server": self.images.server, "client": self.images.client},
            "requests": self.api.requests,
            "fan_out": str(self.workers),
            **({"fan_out_warning": self.workers.note} if self.workers.note else {}),
        }


def _ready(pod: Json | None) -> bool:
    return is_ready(pod) and bool((pod or {})["status"].get("podIPs"))


def _addresses(slices: Iterable[Json]) -> dict[str, set[str]]:
    """Ready addresses by the name of the Service."""
    found: dict[str, set[str]] = {}
    for one in slices:
        name = (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name", "")
        for endpoint in one.get("endpoints") or ():
            if endpoint.get("conditions", {}).get("ready", True):
                found.setdefault(name, set()).update(endpoint["addresses"])
    return found


def _node_of(address: str, nodes: Iterable[Node]) -> str | None:
    """The node whose pod CIDRs hold an address."""
    wanted = ip_address(address)
    for node in nodes:
        if any(wanted in ip_network(cidr) for cidr in node.pod_cidrs):
            return node.name
    return None


def _families(nodes: Iterable[Node]) -> tuple[int, ...]:
    """The pod network's, in the order of the first node's pod CIDRs (or addresses)."""
    first = next(iter(nodes), None)
    cidrs = (first.pod_cidrs or first.ips) if first else ()
    return tuple(dict.fromkeys(6 if ":" in one else 4 for one in cidrs)) or (4,)


def _pods_of(cell: Cell) -> list[Key]:
    return [
        (end.namespace, end.name)
        for end in (cell.source, cell.target)
        if end.kind is EndpointKind.POD
    ]
