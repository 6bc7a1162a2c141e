"""The embedded lab as a Kubernetes cluster: real control plane and proxies, hollow kubelets."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.labs.base import Evidence, LabError, Shell, processors_here
from harness.labs.cluster import objects, stream
from harness.labs.cluster.lab import ClusterLab
from harness.labs.cluster.objects import Images
from harness.labs.cluster.spread import FanOut
from harness.labs.controlplane import binaries as binaries_
from harness.labs.controlplane import crds
from harness.labs.controlplane.acts import Acts, see
from harness.labs.controlplane.apply import apply_all
from harness.labs.controlplane.engines import ApiEngine, ApiEngines
from harness.labs.controlplane.forward import Forwarder
from harness.labs.controlplane.kubelet.hollow import HollowKubelets
from harness.labs.controlplane.kubelet.images import DNS_HOSTS, DNS_IMAGE
from harness.labs.controlplane.plane import ControlPlane
from harness.labs.netns import addresses as ip
from harness.labs.netns import detect, dns
from harness.labs.netns import evidence as evidence_
from harness.labs.netns import services as services_
from harness.labs.netns.client import Completed, Holder, Process
from harness.labs.netns.fabric import FABRICS, Fabric
from harness.labs.netns.lab import NODES, OUTSIDE
from harness.labs.netns.shell import NetnsShell
from harness.labs.netns.topology import Topology, external_box, node_box, stream_module
from harness.model.actions import Action, Apply
from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.manifest import to_manifest
from harness.model.routing import nodes_of
from harness.model.world import External, Node, Service, World

PROXIES = ("kube-proxy", "lab")
PROXY_MODES = ("iptables", "nftables")
Json = dict[str, Any]

_ACCOUNT_SECONDS = 30.0
_SERVICE_SECONDS = 60.0
_POLL = 0.02
_LOG_CHARACTERS = 20_000


class EmbeddedClusterLab(ClusterLab):
    """Implements :class:`harness.labs.base.Lab`: ``--lab netns --lab-api``.

    ``run_dir`` takes logs; all else lives and dies with the lab. ``binaries`` are the control
    plane's programs (found if None are given). ``proxy``: ``kube-proxy`` in ``proxy_mode``, or
    ``lab``. ``manifests`` (CRDs and the like) are applied when the API serves; ``engine`` runs in
    each node from then on, with ``dataplane`` filled in. ``direct``: shells into pods by the lab's
    own way, which is faster; else by exec streams through API server and kubelet, as on any
    cluster.
    """

    name = "netns"
    processors = processors_here()  # its clients run on this machine

    def __init__(
        self,
        run_dir: Path,
        *,
        run: str = "lab",
        fabric: str | Fabric = "routed",
        families: Sequence[int] = (4,),
        nodes: Sequence[str] = NODES,
        binaries: binaries_.Binaries | None = None,
        proxy: str = "kube-proxy",
        proxy_mode: str = "iptables",
        direct: bool = True,
        engine: ApiEngine | None = None,
        dataplane: str = "iptables",
        manifests: Sequence[Json] = (),
        fan_out: FanOut | None = None,
    ) -> None:
        if proxy not in PROXIES or proxy_mode not in PROXY_MODES:
            raise LabError(
                f"no proxy {proxy!r} in mode {proxy_mode!r}: take one of {', '.join(PROXIES)}; "
                f"kube-proxy's modes are {', '.join(PROXY_MODES)}"
            )
        super().__init__(None, run=run, ask_ips=True, fan_out=fan_out)
        self.run_dir = run_dir
        self.fabric = FABRICS[fabric] if isinstance(fabric, str) else fabric
        self.families = tuple(families)
        self.node_names = tuple(nodes)
        self.proxy = proxy
        self.proxy_mode = proxy_mode
        self.direct = direct
        self.dataplane = dataplane
        self.engines: ApiEngines | None = None
        self.acts: Acts | None = None
        """Whether a policy acted before the lab was up, where the engine asks for that."""
        self._engine = engine
        self._manifests = tuple(manifests)
        self._binaries = binaries
        self._holder: Holder | None = None
        self._topology: Topology | None = None
        self._plane: ControlPlane | None = None
        self._kubelets: HollowKubelets | None = None
        self._forwarders: list[Forwarder] = []
        self._outside: dict[int, ip.Range] = {}
        self.seconds: dict[str, float] = {}

    # -- parts -------------------------------------------------------------------------------

    @property
    def holder(self) -> Holder:
        """The process that holds the namespaces. LabError before :meth:`up`."""
        if self._holder is None:
            raise LabError("the embedded lab is not up")
        return self._holder

    @property
    def topology(self) -> Topology:
        """What there is of the network. LabError before :meth:`up`."""
        if self._topology is None:
            raise LabError("the embedded lab is not up")
        return self._topology

    @property
    def plane(self) -> ControlPlane:
        """The control plane: its API as any user, kubeconfigs, processes. LabError before up."""
        if self._plane is None:
            raise LabError("the embedded lab is not up")
        return self._plane

    @property
    def kubelets(self) -> HollowKubelets:
        """The hollow kubelets. LabError before :meth:`up`."""
        if self._kubelets is None:
            raise LabError("the embedded lab is not up")
        return self._kubelets

    # -- up and down -------------------------------------------------------------------------

    def up(self) -> None:
        """Everything, in seconds (:attr:`seconds` by phase). Raises LabError."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.down()
            raise

    def _start(self) -> None:
        clock = time.monotonic
        begun = clock()
        with ThreadPoolExecutor(1) as pool:
            finding = pool.submit(lambda: self._binaries or binaries_.find())
            nodes = self._make_nodes()
            binaries = finding.result()
        self.seconds["nodes made"] = clock() - begun
        self._plane = ControlPlane(
            self.holder, nodes, binaries, families=self.families, logs=self.run_dir / "api"
        )
        if self._plane.settings.version < (1, 36):
            # Its API server would translate the newer protocol to SPDY.
            self.protocols = (stream.V4,)
        self._plane.start()
        self.seconds.update(self._plane.phases.seconds)
        at = clock()
        self._kubelets = HollowKubelets(
            self._plane, self.topology, nodes, direct=self.proxy == "lab"
        )
        self._kubelets.start()
        self._api = self._plane.api()
        self._api.check = self.check  # which knows of kubelets and the holder as well
        self.seconds["nodes ready"] = clock() - at
        at = clock()
        self._start_services()
        self.seconds["DNS and proxies started"] = clock() - at
        self.seconds["ready for pods"] = clock() - begun
        at = clock()
        self._start_engines()
        self._wait_for_services()
        self.seconds["Services answer"] = clock() - at
        if self.engines is not None:
            at = clock()
            self.engines.wait_ready()
            self.seconds["engines ready"] = clock() - at
        at = clock()
        self._outside = {f: ip.Range(ip.OUTSIDE_CIDRS[f], first=10) for f in self.families}
        self.connect()
        self.apply([Apply(OUTSIDE)])
        if not self.direct:
            self.workers.take(0)
        self.seconds["connected"] = clock() - at
        if self._engine is not None and self._engine.probe:
            at = clock()
            self.acts = see(self)
            self.seconds["a policy acts"] = clock() - at
        self.seconds["all"] = clock() - begun

    def _make_nodes(self) -> list[Node]:
        self._holder = Holder(self.run_dir / "lab.log")
        self.images = Images("nginx", "busybox", stream_module(self._holder))
        self._topology = Topology(self._holder, self.fabric, self.families)
        self._topology.nameservers = self._dns_ips()
        nodes = [
            Node(
                name,
                tuple(ip.at(ip.NODE_CIDRS[family], index + 2) for family in self.families),
                (),  # the controller manager hands them out
            )
            for index, name in enumerate(self.node_names)
        ]
        self._topology.start(nodes)
        self._holder.request("write", path=DNS_HOSTS, text="")
        self._holder.run("", ["busybox", "--install", "-s", "/run/netpol/bin"])
        return nodes

    def _dns_ips(self) -> tuple[str, ...]:
        return tuple(ip.at(ip.SERVICE_CIDRS[family], ip.DNS_INDEX) for family in self.families)

    def _start_services(self) -> None:
        """The DNS server's pod and Service, the proxies, and what follows the API for them."""
        api = self.api
        api.merge(
            "Node",
            "",
            self.node_names[0],
            {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}},
        )
        server = dns.pod(self.node_names[0])
        pod = to_manifest(server)
        pod.pop("status", None)
        for container in pod["spec"]["containers"]:
            container["image"] = DNS_IMAGE
        pod["spec"]["priorityClassName"] = "system-cluster-critical"
        deadline = time.monotonic() + _ACCOUNT_SECONDS
        # "default" of both namespaces: pods can be made from here on.
        while not all(api.find("ServiceAccount", n, "default") for n in ("default", "kube-system")):
            self.check()
            if time.monotonic() > deadline:
                raise LabError(
                    "kube-controller-manager has made no service accounts within "
                    f"{_ACCOUNT_SECONDS:g} s",
                    hint=f"its log is {self.run_dir / 'api' / 'kube-controller-manager.log'}",
                )
            time.sleep(_POLL)
        api.create(objects.service(dns.service(self._dns_ips()), self.families))
        api.create(pod)
        self.kubelets.follow_services(proxy=self.proxy == "lab", dns=server.key)
        if self.proxy == "kube-proxy":
            self.plane.start_proxies(self.proxy_mode)

    def _start_engines(self) -> None:
        manifests = list(self._manifests)
        with contextlib.suppress(binaries_.BinariesError):  # abilities() tells what is missing
            manifests.insert(0, crds.find())
        apply_all(self.api, manifests)
        if self._engine is not None:
            self.engines = ApiEngines(
                self.plane, self._engine, dataplane=self.dataplane, logs=self.run_dir
            )
            self.engines.prepare(self.api)
            for name in self.node_names:
                self.engines.start(name)

    def _wait_for_services(self) -> None:
        """Until the DNS server's Service answers from every node: proxies work, and names do."""
        deadline = time.monotonic() + _SERVICE_SECONDS
        left = [(node, address) for node in self.node_names for address in self._dns_ips()]
        while left:
            self.check()
            try:
                self.plane.dialer.connect(*left[0], dns.PORT, timeout=1.0).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        f"the DNS server does not answer at {left[0][1]} from node {left[0][0]} "
                        f"after {_SERVICE_SECONDS:g} s: {error}",
                        hint=f"the proxies' logs are in {self.run_dir / 'api'}",
                        detail=self.told_of_dns(),
                    ) from None
                time.sleep(_POLL)
            else:
                left.pop(0)

    def told_of_dns(self) -> str:
        """How far one gets without its Service: the server at its pod's own addresses, by node."""
        pod = self.api.find("Pod", *dns.pod(self.node_names[0]).key) or {}
        status = pod.get("status", {})
        known = [one["ip"] for one in status.get("podIPs") or ()]
        phase, addresses = status.get("phase", "there is none"), ", ".join(known) or "no address"
        lines = [f"  its pod: {phase}, {addresses}"]
        for address in known:
            for node in self.node_names:
                try:
                    self.plane.dialer.connect(node, address, dns.PORT, timeout=1.0).close()
                    lines.append(f"  {address} from {node}: it answers")
                except OSError as error:
                    lines.append(f"  {address} from {node}: {error}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raises LabError if a program, a kubelet, an engine or the lab as a whole is not well."""
        if not self.holder.alive:
            raise LabError(
                "the embedded lab is gone: its holder process has died",
                detail=self.holder.complaints(),
            )
        self.plane.check()
        self.kubelets.check()
        if self.engines is not None:
            self.engines.check()

    def down(self) -> None:
        """End everything: the kernel takes it away with the lab's last process."""
        self.workers.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for forwarder in self._forwarders:
            forwarder.close()
        self._forwarders = []
        if self.engines is not None:
            self.engines.abandon()
            self.engines = None
        if self._kubelets is not None:
            self._kubelets.stop()
        if self._plane is not None:
            self._plane.abandon()
        if self._holder is not None:
            self._holder.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
        self._kubelets = self._plane = self._holder = self._topology = self._api = None

    def forward(self, port: int = 0) -> Forwarder:
        """Open a port on 127.0.0.1 for the API, until the lab goes down."""
        made = Forwarder(self.plane.dial, port)
        self._forwarders.append(made)
        return made

    # -- what other clusters cannot do ------------------------------------------------------

    def abilities(self) -> tuple[frozenset[str], Mapping[str, str]]:
        """As the lab without an API; ClusterNetworkPolicy only where the server has the CRD."""
        features, missing = detect.lab_features(self.fabric, self.families, proxy=True, dns=True)
        own, lacks = super().abilities()
        if "cluster-network-policy" not in own:
            missing["cluster-network-policy"] = (
                f"{lacks['cluster-network-policy']}: `make api-binaries` gets its CRD"
            )
            features -= {"cluster-network-policy"}
        missing.pop("api", None)
        return features | {"api"}, missing

    def wait_for_services(self, services: Sequence[Service]) -> None:
        """Until the rules of all nodes name these Services' addresses and those of their pods."""
        super().wait_for_services(services)
        wanted: set[str] = set()
        for service in services:
            backends = self.endpoints(service) if service.selector else frozenset()
            if backends and not service.headless:
                wanted |= {*backends, *service.cluster_ips}
        deadline = time.monotonic() + _SERVICE_SECONDS
        left = list(self.node_names) if wanted else []
        while left:
            rules = self._proxy_rules(left[0])
            lacks = sorted(one for one in wanted if not _names(rules, one))
            if not lacks:
                left.pop(0)
                continue
            self.check()
            if time.monotonic() > deadline:
                raise LabError(
                    f"the proxy of node {left[0]} has not taken in all changes within "
                    f"{_SERVICE_SECONDS:g} s: it lacks {', '.join(lacks)}"
                )
            time.sleep(_POLL)

    def _proxy_rules(self, node: str) -> str:
        """What the proxy of a node has in the kernel."""
        commands = {
            ("lab", 4): f"nft list table {services_.TABLE}",
            ("kube-proxy/iptables", 4): "iptables-save -t nat",
            ("kube-proxy/iptables", 6): "ip6tables-save -t nat",
            ("kube-proxy/nftables", 4): "nft list table ip kube-proxy",
            ("kube-proxy/nftables", 6): "nft list table ip6 kube-proxy",
        }
        which = "lab" if self.proxy == "lab" else f"kube-proxy/{self.proxy_mode}"
        texts = []
        for (name, family), command in commands.items():
            if name == which and (name == "lab" or family in self.families):
                texts.append(self.holder.run(node_box(node), command.split(), timeout=60).out)
        return "\n".join(texts)

    def add_external(self, external: External) -> External:
        """A host outside of the cluster."""
        ips = external.ips or tuple(self._outside[f].take(external.name) for f in self.families)
        made = replace(external, ips=ips)
        self.topology.add_external(made)
        return made

    def remove_external(self, name: str) -> None:
        """Take an outside host away."""
        self.topology.remove_external(name)

    def box(self, endpoint: Endpoint) -> str:
        """Where processes of an endpoint run in the lab."""
        match endpoint.kind:
            case EndpointKind.NODE:
                return node_box(endpoint.name)
            case EndpointKind.EXTERNAL:
                return external_box(endpoint.name)
            case EndpointKind.POD:
                pod = self.world.pods.get((endpoint.namespace, endpoint.name))
                container = objects.client_container(pod) if pod else ""
                if not container:
                    raise LabError(f"there is no pod {endpoint}")
                return f"{endpoint}/{container}"
        raise LabError(f"{endpoint} is a Service: nothing runs in it")

    def shell(self, client: Endpoint) -> Shell:
        """See :class:`harness.labs.base.Lab`."""
        if client.kind is EndpointKind.POD and not self.direct:
            return super().shell(client)
        return NetnsShell(self.holder, self.box(client), str(client))

    def gather(self, clients: Sequence[Endpoint]) -> None:
        """See :class:`ClusterLab`: pods alone have exec streams."""
        if not self.direct:
            super().gather([one for one in clients if one.kind is EndpointKind.POD])

    def exec(
        self, where: Endpoint, argv: Sequence[str], text: str = "", timeout: float = 30.0
    ) -> Completed:
        """Run a command in a pod, a node or an outside host to its end."""
        return self.holder.run(self.box(where), argv, text, timeout)

    def start(
        self,
        where: Endpoint | None,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Process:
        """Leave a process running in a node, a pod, an outside host, or the fabric (None).

        Its output goes to ``log``; ``files`` (path -> text) are seen in that place alone.
        """
        box = self.box(where) if where else ""
        if files:
            self.holder.request("place", box=box, files=dict(files))
        with log.open("ab") as out, open(os.devnull, "rb") as null:
            return self.holder.spawn(
                box, argv, stdin=null.fileno(), stdout=out.fileno(), stderr=out.fileno(), env=env
            )

    def apply(self, actions: Sequence[Action]) -> float:
        """See :class:`harness.labs.base.Lab`; raises LabError also if a program has died."""
        self.check()
        return super().apply(actions)

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`: rules, sets and connections of the nodes."""
        nodes = nodes_of(world, cells, self.node_names)
        found = evidence_.data_planes(self.holder, nodes, self.families)
        if self.engines is not None:
            for node in nodes:
                log = self.engines.log(node)
                text = log.read_text(errors="replace")[-_LOG_CHARACTERS:] if log.exists() else ""
                found.append(Evidence("the engine's log", node, str(log), text))
                found += self.engines.evidence(node)
        return (*(one for one in found if one.text.strip()), *super().evidence(world, cells))

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        plane = self.plane
        return {
            **super().facts(),
            "kernel": os.uname().release,
            "fabric": self.fabric.name,
            "api": str(plane.settings.binaries),
            "proxy": f"kube-proxy, {self.proxy_mode}" if self.proxy == "kube-proxy" else "lab",
            "kubelet": "hollow: pods are namespaces, images are programs of this machine",
            "dataplane": self.dataplane if self._engine else "none",
            **({"fan_out": "the lab's own shells"} if self.direct else {}),
            **self._engine_facts(),
            "start_seconds": {name: round(one, 3) for name, one in self.seconds.items()},
            "tools": detect.tool_versions(),
        }

    def _engine_facts(self) -> dict[str, Any]:
        """What runs in the nodes, and what became of it."""
        if self.engines is None:
            return {"engine": "none", "engines_ended": []}
        facts: dict[str, Any] = {
            **self.engines.engine.about,
            "engine": self.engines.command_line(),
            "engines_ended": self.engines.ended(),
        }
        if self.engines.deaths:
            facts["engine_deaths"] = [str(death) for death in self.engines.deaths]
        if self.acts is not None:
            facts["engine_acts"] = str(self.acts)
            if self.acts.wrong:
                facts["engine_warning"] = str(self.acts)
        return facts


def _names(rules: str, address: str) -> bool:
    """Whether rules name this very address, and not just one that begins with it."""
    end = r"(?![\w:.])" if ":" in address else r"(?![\w.])"
    return re.search(r"(?<![\w:.])" + re.escape(address) + end, rules) is not None
