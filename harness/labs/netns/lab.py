"""The embedded lab: nodes, pods and outside hosts out of namespaces, in about a second."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.labs.base import Evidence, LabError
from harness.labs.netns import addresses as ip
from harness.labs.netns import fabric as fabrics
from harness.labs.netns.client import Completed, Holder
from harness.labs.netns.fabric import FABRICS, Fabric
from harness.labs.netns.shell import NetnsShell
from harness.labs.netns.topology import Topology, node_box
from harness.model import transition
from harness.model.actions import Action, Apply, Delete, Finish
from harness.model.flow import Cell, Endpoint, EndpointKind
from harness.model.world import External, Namespace, Node, Pod, Service, World

NODES = ("control-plane", "worker", "worker2")
OUTSIDE = "outside"
"""The host outside of the cluster that every lab begins with."""


class NetnsLab:
    """Implements :class:`harness.labs.base.Lab` out of namespaces."""

    name = "netns"

    def __init__(
        self,
        run_dir: Path,
        *,
        fabric: str | Fabric = "routed",
        families: Sequence[int] = (4,),
        nodes: Sequence[str] = NODES,
    ) -> None:
        self.fabric = FABRICS[fabric] if isinstance(fabric, str) else fabric
        self.families = tuple(families)
        self.node_names = tuple(nodes)
        self.run_dir = run_dir
        self.features: frozenset[str] = frozenset()
        self.missing: Mapping[str, str] = {}
        self.world = World()
        self._ranges: dict[tuple[str, int], ip.Range] = {}
        self._outside = {f: ip.Range(ip.OUTSIDE_CIDRS[f], first=10) for f in self.families}
        self._holder: Holder | None = None
        self._topology: Topology | None = None

    @property
    def holder(self) -> Holder:
        """The process that holds the namespaces. LabError before :meth:`up`."""
        if self._holder is None:
            raise LabError("the embedded lab is not up")
        return self._holder

    @property
    def topology(self) -> Topology:
        """What there is of the network."""
        if self._topology is None:
            raise LabError("the embedded lab is not up")
        return self._topology

    def up(self) -> None:
        """Make the nodes and the outside host."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._holder = Holder(self.run_dir / "lab.log")
        try:
            self._topology = Topology(self._holder, self.fabric, self.families)
            self._start()
        except BaseException:
            self.down()
            raise

    def _start(self) -> None:
        nodes = [
            Node(
                name,
                tuple(ip.at(ip.NODE_CIDRS[family], index + 2) for family in self.families),
                ip.pod_cidrs(self.families, index),
                {"kubernetes.io/hostname": name},
            )
            for index, name in enumerate(self.node_names)
        ]
        for node in nodes:
            for cidr in node.pod_cidrs:
                family = ip.family_of(cidr.partition("/")[0])
                self._ranges[node.name, family] = ip.Range(cidr)
        self.topology.nameservers = tuple(
            ip.at(ip.SERVICE_CIDRS[family], ip.DNS_INDEX) for family in self.families
        )
        self.topology.start(nodes)
        self.holder.run("", ["busybox", "--install", "-s", "/run/netpol/bin"])
        namespaces = ("default", "kube-system")
        self.world = World(
            namespaces={name: Namespace(name) for name in namespaces},
            nodes={node.name: node for node in nodes},
        )
        self.apply([Apply(External(OUTSIDE))])

    def down(self) -> None:
        """End everything."""
        if self._holder is not None:
            self._holder.close()
        self._holder = None
        self._topology = None

    # -- changes -----------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> float:
        """See :class:`harness.labs.base.Lab`."""
        started = time.monotonic()
        fresh: list[Pod] = []
        for action in actions:
            before = self.world
            after = transition.step(before, self._completed(action))
            gone = [
                pod
                for key, pod in before.pods.items()
                if pod.live and (key not in after.pods or not after.pods[key].live)
            ]
            if gone:
                self._create(fresh)
                fresh = []
                self.topology.remove_pods(gone)
                for pod in gone:
                    self._release(pod)
            self.world = after
            match action:
                case Apply(object=Pod() as pod) if pod.key not in before.pods:
                    fresh.append(after.pods[pod.key])
                case Apply(object=External() as external):
                    self.topology.add_external(after.externals[external.name])
                case Delete(kind="External"):
                    self.topology.remove_external(action.name)
        self._create(fresh)
        return started

    def _create(self, pods: Sequence[Pod]) -> None:
        if pods:
            self.topology.make_pods(pods)
            self.topology.plug(pods)

    def _completed(self, action: Action) -> Action:
        """The action with what this lab decides: nodes and addresses."""
        match action:
            case Apply(object=Pod() as pod):
                known = self.world.pods.get(pod.key)
                if known and known.live:
                    return Apply(replace(pod, node=known.node, ips=known.ips))
                return Apply(self._placed(pod))
            case Apply(object=External() as external) if not external.ips:
                ips = tuple(self._outside[f].take(external.name) for f in self.families)
                return Apply(replace(external, ips=ips))
        return action

    def _placed(self, pod: Pod) -> Pod:
        node = self.world.nodes[pod.node] if pod.node else self._schedule(pod)
        if pod.host_network:
            return replace(pod, node=node.name, ips=node.ips)
        owner = str(pod)
        if pod.ips:
            for address in pod.ips:
                self._ranges[node.name, ip.family_of(address)].claim(address, owner)
            return replace(pod, node=node.name)
        ips = tuple(self._ranges[node.name, family].take(owner) for family in self.families)
        return replace(pod, node=node.name, ips=ips)

    def _schedule(self, pod: Pod) -> Node:
        """The worker with the fewest pods, or the one whose range has the address asked for."""
        workers = list(self.world.nodes.values())[1:] or list(self.world.nodes.values())
        if pod.ips:
            for node in self.world.nodes.values():
                if pod.ips[0] in self._ranges[node.name, ip.family_of(pod.ips[0])]:
                    return node
        counts = dict.fromkeys((node.name for node in workers), 0)
        for other in self.world.pods.values():
            if other.live and other.node in counts:
                counts[other.node] += 1
        return min(workers, key=lambda node: counts[node.name])

    def _release(self, pod: Pod) -> None:
        assert pod.node is not None
        for address in () if pod.host_network else pod.ips:
            self._ranges[pod.node, ip.family_of(address)].release(address)

    # -- looks -------------------------------------------------------------------------------

    def resolve(self, world: World) -> World:
        """See :class:`harness.labs.base.Lab`."""
        pods = {
            key: replace(pod, node=known.node, ips=known.ips, phase=known.phase)
            if (known := self.world.pods.get(key))
            else pod
            for key, pod in world.pods.items()
        }
        return world.with_(
            namespaces={**self.world.namespaces, **world.namespaces},
            pods=pods,
            nodes=self.world.nodes,
            externals=self.world.externals,
        )

    def box(self, endpoint: Endpoint) -> str:
        """The box that an endpoint is."""
        if endpoint.kind == EndpointKind.SERVICE:
            raise LabError(f"{endpoint} is a Service: nothing runs in it")
        return str(endpoint)

    def shell(self, client: Endpoint) -> NetnsShell:
        """See :class:`harness.labs.base.Lab`."""
        return NetnsShell(self.holder, self.box(client), str(client))

    def exec(
        self, where: Endpoint, argv: Sequence[str], text: str = "", timeout: float = 30.0
    ) -> Completed:
        """Run a command in a pod, a node or an outside host to its end."""
        return self.holder.run(self.box(where), argv, text, timeout)

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        """See :class:`harness.labs.base.Lab`."""
        return ()

    def facts(self) -> Mapping[str, Any]:
        """See :class:`harness.labs.base.Lab`."""
        return {"lab": self.name, "kernel": os.uname().release, "fabric": self.fabric.name}
