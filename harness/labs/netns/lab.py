"""The embedded lab: nodes, pods, Services and policy engines out of namespaces, in a second."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.labs.base import Evidence, LabError, processors_here
from harness.labs.netns import addresses as ip
from harness.labs.netns import detect, dns, services
from harness.labs.netns import evidence as evidence_
from harness.labs.netns.change import Change
from harness.labs.netns.client import Completed, Holder, Process
from harness.labs.netns.engine import Engine, argv_for
from harness.labs.netns.fabric import FABRICS, Fabric
from harness.labs.netns.placement import Placement
from harness.labs.netns.shell import NetnsShell
from harness.labs.netns.topology import Topology, node_box
from harness.labs.server import DEFAULT_PORT
from harness.model.actions import Action, Apply
from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.manifest import to_manifest
from harness.model.policy import Protocol
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Node,
    Pod,
    World,
)

NODES = ("control-plane", "worker", "worker2")
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
OUTSIDE = External(
    "outside",
    ports=(ContainerPort(DEFAULT_PORT), ContainerPort(DEFAULT_PORT, Protocol.UDP)),
)
"""The host outside of the cluster that every lab begins with."""


class NetnsLab:
    """Implements :class:`harness.labs.base.Lab` out of namespaces.

    ``run_dir`` takes logs, and nothing else is written outside of the lab's own namespaces.
    ``fabric`` is the pod network (``routed``, ``overlay``, ``bridged``, or a
    :class:`~harness.labs.netns.fabric.Fabric` with interface names of one's own). ``engine`` is
    the command line of a policy engine, one process a node; ``{node}``, ``{dataplane}`` and
    ``{python}`` are filled in. With ``protocol`` it speaks :mod:`harness.labs.netns.engine`: it is
    told of changes, and a new pod's link stays down until its node's engine has it in force.
    ``proxy`` and ``dns`` can be left to others (a real kube-proxy, a real control plane).
    """

    name = "netns"
    processors = processors_here()  # its clients run on this machine

    def __init__(
        self,
        run_dir: Path,
        *,
        fabric: str | Fabric = "routed",
        families: Sequence[int] = (4,),
        nodes: Sequence[str] = NODES,
        engine: Sequence[str] | None = None,
        engine_env: Mapping[str, str] | None = None,
        protocol: bool = True,
        dataplane: str = "iptables",
        proxy: bool = True,
        with_dns: bool = True,
    ) -> None:
        self.run_dir = run_dir
        self.fabric = _fabric(fabric)
        self.families = tuple(families)
        self.node_names = tuple(nodes)
        self.dataplane = dataplane
        self.world = World()
        self.engines: dict[str, Engine] = {}
        self._engine = tuple(engine or ())
        self._engine_env = dict(engine_env or {})
        self._protocol = protocol and bool(engine)
        self._proxy = proxy
        self._dns = with_dns and proxy
        self.features: frozenset[str]
        self.missing: Mapping[str, str]
        self.features, self.missing = detect.lab_features(
            self.fabric, self.families, proxy=proxy, dns=self._dns
        )
        self.features |= {"lax-cidrs"}  # no API server that would refuse them
        self._seq = 0
        self._rules: dict[str, services.Rules] = {}
        self._names = ""
        self.last_ips: dict[tuple[str, str], tuple[str, ...]] = {}  # of pods that have finished
        self.own: set[tuple[str, str]] = set()  # pods and Services that the lab itself made
        self._holder: Holder | None = None
        self._topology: Topology | None = None
        self._placement: Placement | None = None

    @property
    def holder(self) -> Holder:
        """The process that holds the namespaces. LabError before :meth:`up`."""
        if self._holder is None:
            raise LabError("the embedded lab is not up")
        return self._holder

    @property
    def placement(self) -> Placement:
        """Who gets which node and address. LabError before :meth:`up`."""
        if self._placement is None:
            raise LabError("the embedded lab is not up")
        return self._placement

    @property
    def topology(self) -> Topology:
        """What there is of the network. LabError before :meth:`up`."""
        if self._topology is None:
            raise LabError("the embedded lab is not up")
        return self._topology

    # -- up and down -------------------------------------------------------------------------

    def up(self) -> None:
        """Make the nodes, the DNS server and the outside host; start the engines."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._holder = Holder(self.run_dir / "lab.log")
        try:
            self._start(self._holder)
        except LabError as error:
            # Only now, because trying all that a kernel might lack takes its time.
            lack = detect.lacking(self._holder, self.fabric, self.families, proxy=self._proxy)
            self.down()
            raise lack or error from error
        except BaseException:
            self.down()
            raise

    def _start(self, holder: Holder) -> None:
        nodes = [
            Node(
                name,
                tuple(ip.at(ip.NODE_CIDRS[family], index + 2) for family in self.families),
                ip.pod_cidrs(self.families, index),
                {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            )
            for index, name in enumerate(self.node_names)
        ]
        self._placement = Placement(nodes, self.families)
        self._topology = Topology(holder, self.fabric, self.families)
        dns_ips = tuple(ip.at(ip.SERVICE_CIDRS[family], ip.DNS_INDEX) for family in self.families)
        self._topology.nameservers = dns_ips if self._dns else ()
        self._topology.start(nodes)
        self.world = World(
            namespaces={name: Namespace(name) for name in NAMESPACES},
            nodes={node.name: node for node in nodes},
        )
        for name in self.node_names if self._engine else ():
            self.start_engine(name)  # while they come up, the rest is made
        self._topology.run("", ["busybox", "--install", "-s", "/run/netpol/bin"])
        own: list[Action] = [Apply(OUTSIDE)]
        if self._dns:
            server, service = dns.pod(nodes[0].name), dns.service(dns_ips)
            own += [Apply(server), Apply(service)]
            self.own = {server.key, service.key}
        self.apply(own)
        self.wait_for_engines(self.node_names)

    def down(self) -> None:
        """End everything: the kernel takes the namespaces away with their last process."""
        for engine in self.engines.values():
            engine.abandon()
        if self._holder is not None:
            self._holder.close()
        for engine in self.engines.values():
            engine.close()
        self.engines = {}
        self._holder = self._topology = None
        # What it was told is gone with it: it can be brought up again.
        self._rules.clear()
        self.last_ips.clear()
        self.own.clear()
        self._names = ""

    # -- engines -----------------------------------------------------------------------------

    def start_engine(self, node: str) -> Engine:
        """Start the engine of a node, again if need be, and tell it all that there is."""
        if node in self.engines:
            self.engines[node].close()
        known = {"node": node, "dataplane": self.dataplane, "python": sys.executable}
        filled = argv_for(self._engine, known)
        log = self.run_dir / f"engine-{node}.log"
        engine = self.engines[node] = Engine(self.holder, node, filled, log, self._engine_env)
        if self._protocol:
            listed = [("ADDED", thing) for thing in _objects(self.world)]
            engine.send(self.written_down([*listed, ("SYNCED", None)]), self._seq)
        return engine

    def _manifest(self, thing: Any) -> dict[str, Any]:
        """As the API would show it: a pod that has finished keeps the address it had."""
        if isinstance(thing, Pod) and not thing.live:
            thing = replace(thing, ips=self.last_ips.get(thing.key, ()))
        return to_manifest(thing)

    def written_down(self, events: Sequence[tuple[str, Any]]) -> bytes:
        """Events as engines read them; empty where nobody listens."""
        if not self._protocol:
            return b""
        lines = []
        for kind, thing in events:
            self._seq += 1
            event = {"seq": self._seq, "type": kind}
            if thing is not None:
                event["object"] = self._manifest(thing)
            lines.append(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        return b"".join(lines)

    def tell(self, data: bytes) -> None:
        """Send events to the engines of all nodes."""
        for engine in self.engines.values() if data else ():
            engine.send(data, self._seq)

    def wait_for_engines(self, nodes: Collection[str | None]) -> None:
        """Wait until these nodes' engines have all that they were told in force."""
        for name, engine in self.engines.items() if self._protocol else ():
            if name in nodes:
                engine.wait()

    # -- changes -----------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> float:
        """See :class:`harness.labs.base.Lab`. Raises LabError, and ActionError of the model."""
        change = Change(self)
        try:
            for action in actions:
                change.take(action)
        finally:  # what came before an impossible action is done
            change.finish()
        return change.started

    def forget(self, pods: Sequence[Pod]) -> None:
        """Pods that could not be made: what there is of them goes, as if they never had been."""
        self.topology.remove_pods(pods, whole=False)
        left = dict(self.world.pods)
        for pod in pods:
            left.pop(pod.key, None)
            self.placement.release(pod)
        self.world = self.world.with_(pods=left)

    def follow_services(self) -> None:
        """Bring the nodes' rules and the DNS server's names up to the present world."""
        if self._proxy:
            self._on_nodes(self._follow_on)
        names = dns.hosts(self.world)
        if self._dns and names != self._names:
            self._names = names
            box = next(f"{ns}/{name}" for ns, name in self.own if (ns, name) in self.world.pods)
            self.holder.request("write", path=dns.hosts_file(box), text=names)
            self.holder.request("notify", box=box, signal=1, until=dns.loaded(box))

    def _follow_on(self, name: str) -> None:
        new = services.rules(self.world, name, self.families)
        for piece in services.commands(self._rules.get(name), new):
            self.topology.nft(name, piece)
        self._rules[name] = new

    def _on_nodes(self, do: Any) -> None:
        with ThreadPoolExecutor(len(self.node_names)) as pool:
            list(pool.map(do, self.node_names))

    # -- looks -------------------------------------------------------------------------------

    def resolve(self, world: World) -> World:
        """See :class:`harness.labs.base.Lab`: adds the lab's own objects, too."""
        pods = {key: pod for key, pod in self.world.pods.items() if key in self.own}
        for key, pod in world.pods.items():
            known = self.world.pods.get(key)
            pods[key] = (
                replace(pod, node=known.node, ips=known.ips, uid=known.uid) if known else pod
            )
        found = {key: item for key, item in self.world.services.items() if key in self.own}
        for key, service in world.services.items():
            mine = self.world.services.get(key)
            found[key] = (
                replace(service, cluster_ips=mine.cluster_ips, ports=mine.ports)
                if mine
                else service
            )
        return world.with_(
            namespaces={
                **{name: self.world.namespaces[name] for name in NAMESPACES},
                **world.namespaces,
            },
            pods=pods,
            services=found,
            nodes={**world.nodes, **self.world.nodes},
            externals={**world.externals, **self.world.externals},
        )

    def shell(self, client: Endpoint) -> NetnsShell:
        """See :class:`harness.labs.base.Lab`."""
        return NetnsShell(self.holder, self.box(client), str(client))

    def box(self, endpoint: Endpoint) -> str:
        """Where processes of an endpoint run in the lab. Raises LabError for a Service."""
        if endpoint.kind == EndpointKind.SERVICE:
            raise LabError(f"{endpoint} is a Service: nothing runs in it")
        return str(endpoint)

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

        Its output goes to ``log``. ``files`` (path -> text) are seen by it and by all else in
        that place, and by nobody outside of it.
        """
        box = self.box(where) if where else ""
        if files:
            self.holder.request("place", box=box, files=dict(files))
        with log.open("ab") as out, open(os.devnull, "rb") as null:
            return self.holder.spawn(
                box,
                argv,
                stdin=null.fileno(),
                stdout=out.fileno(),
                stderr=out.fileno(),
                env=env,
            )

    def evidence(
        self,
        world: World,  # noqa: ARG002 - the lab knows its own
        cells: Sequence[Cell],
    ) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`."""
        return evidence_.collect(self, cells)

    def check(self) -> None:
        """See :class:`harness.labs.base.Lab`."""
        if not self.holder.alive:
            raise LabError(
                "the embedded lab is gone: its holder process has died",
                detail=self.holder.complaints(),
            )
        for engine in self.engines.values() if self._protocol else ():
            engine.check()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        return {
            "lab": self.name,
            "kernel": os.uname().release,
            "fabric": self.fabric.name,
            "families": [f"ipv{family}" for family in self.families],
            "nodes": list(self.node_names),
            "dataplane": self.dataplane if self._engine else "none",
            "engine": " ".join(self._engine) or "none",
            "engines_ended": sorted(n for n, engine in self.engines.items() if not engine.alive),
            "proxy": "lab" if self._proxy else "none",
            "tools": detect.tool_versions(),
        }


_LISTED = ("namespaces", "nodes", "services", "pods", "policies", "cluster_policies")


def _objects(world: World) -> Iterator[Any]:
    for home in _LISTED:
        yield from getattr(world, home).values()


def _fabric(fabric: str | Fabric) -> Fabric:
    if isinstance(fabric, Fabric):
        return fabric
    if fabric not in FABRICS:
        raise LabError(f"there is no fabric {fabric!r}; there is: {', '.join(FABRICS)}")
    return FABRICS[fabric]


__all__ = ["NODES", "OUTSIDE", "NetnsLab", "node_box"]
