"""What a cluster decides by itself: a pod's node and addresses, a Service's addresses and ports."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from harness.labs.base import LabError
from harness.labs.netns import addresses as ip
from harness.labs.netns.addresses import ASKED_FOR, Range
from harness.labs.server import DEFAULT_PORT, NODE_SERVER_PORT
from harness.model.actions import Action, Apply, Delete
from harness.model.policy import Protocol
from harness.model.world import External, Node, Phase, Pod, Service, Workload, World

NODE_PORTS = range(30000, 32768)


class Placement:
    """Completes actions, and takes back what they were given."""

    def __init__(self, nodes: Sequence[Node], families: Sequence[int]) -> None:
        self.families = tuple(families)
        self._pods = {
            (node.name, ip.family_of(cidr.partition("/")[0])): Range(cidr, kept=ASKED_FOR)
            for node in nodes
            for cidr in node.pod_cidrs
        }
        self._services = {f: Range(ip.SERVICE_CIDRS[f], first=32) for f in families}
        self._outside = {f: Range(ip.OUTSIDE_CIDRS[f], first=10) for f in families}
        self._node_ports: Iterator[int] = itertools.cycle(NODE_PORTS)
        # Pods without an address of their own choosing go to workers, as with a tainted
        # control plane.
        self._workers = [node.name for node in nodes[1:] or nodes]

    def complete(self, world: World, action: Action) -> Action:
        """The action with all that the cluster decides filled in. Raises LabError."""
        match action:
            case Apply(object=Pod() as pod):
                return Apply(
                    self._waiting(world, pod) or self._again(world, pod) or self._place(world, pod)
                )
            case Delete(kind="Node"):
                raise LabError(
                    f"node {action.name} cannot leave: the embedded lab's nodes stay until it ends"
                )
            case Apply(object=Service() as service):
                return Apply(self._serve(world, service))
            case Apply(object=External() as external) if not external.ips:
                taken = tuple(self._outside[f].take(external.name) for f in self.families)
                return Apply(replace(external, ips=taken))
            case Apply(object=Node() as node):
                known_node = world.nodes.get(node.name)
                if known_node is None:
                    raise LabError(
                        f"node {node.name} cannot join: the embedded lab's nodes are made when it "
                        f"starts ({', '.join(world.nodes)})"
                    )
                return Apply(replace(known_node, labels=node.labels))
        return action

    def release(self, pod: Pod, keep: Collection[str] = ()) -> None:
        """A pod is gone: its addresses are free, but for those that its successor has."""
        for address in () if pod.host_network else pod.ips:
            if address not in keep:
                self._pods[pod.node or "", ip.family_of(address)].release(address)

    def release_service(self, service: Service) -> None:
        """A Service is gone: its addresses are free."""
        for address in service.cluster_ips:
            self._services[ip.family_of(address)].release(address)

    def _waiting(self, world: World, pod: Pod) -> Pod | None:
        """A pod that is pending has no address and no place yet."""
        if pod.phase is not Phase.PENDING:
            return None
        known = world.pods.get(pod.key)
        if known and known.phase is Phase.RUNNING:
            raise LabError(f"pod {pod} runs: it cannot become {pod.phase} again; delete it first")
        return replace(pod, ips=(), uid=_uid(pod, known))

    def _again(self, world: World, pod: Pod) -> Pod | None:
        """The pod as it is there already, if no more than labels or readiness are to change."""
        known = world.pods.get(pod.key)
        if known is None or known.phase is not Phase.RUNNING or not pod.live:
            return None
        node, ips = pod.node or known.node, pod.ips or known.ips
        if (node, set(ips)) != (known.node, set(known.ips)) or _shape(pod) != _shape(known):
            return None
        return replace(pod, node=node, ips=known.ips, uid=known.uid)

    def _place(self, world: World, pod: Pod) -> Pod:
        if not pod.live:
            raise LabError(f"pod {pod} cannot be applied as {pod.phase}: apply it, then finish it")
        node = self._schedule(world, pod)
        known = world.pods.get(pod.key)
        pending = known if known and known.phase is Phase.PENDING else None
        pod = replace(pod, node=node, uid=_uid(pod, pending))
        if pod.host_network:
            return replace(pod, ips=world.nodes[node].ips)
        if not pod.ips:
            return replace(
                pod, ips=tuple(self._pods[node, f].take(str(pod)) for f in self.families)
            )
        for address in pod.ips:
            found = self._pods.get((node, ip.family_of(address)))
            if found is None or address not in found:
                raise LabError(
                    f"pod {pod} asks for {address}, which is not one of node {node}'s "
                    f"({', '.join(world.nodes[node].pod_cidrs)})"
                )
            found.claim(address, str(pod))
        return pod

    def _schedule(self, world: World, pod: Pod) -> str:
        """The node named, else the one whose range has the address, else the emptiest worker."""
        if pod.node:
            if pod.node not in world.nodes:
                raise LabError(
                    f"pod {pod} asks for node {pod.node}; there is: {', '.join(world.nodes)}"
                )
            choice = [pod.node]
        elif pod.ips and not pod.host_network:
            family = ip.family_of(pod.ips[0])
            choice = [n for n in world.nodes if pod.ips[0] in self._pods[n, family]]
        else:
            choice = self._workers
        if not choice:
            raise LabError(f"pod {pod} asks for {pod.ips[0]}, which is in no node's pod CIDR")
        clashes = {name: _clash(world, pod, name) for name in choice}
        counts = dict.fromkeys((name for name in choice if not clashes[name]), 0)
        if not counts:
            raise LabError(f"pod {pod} finds no node: {'; '.join(clashes.values())}")
        for other in world.pods.values():
            if other.live and other.node in counts:
                counts[other.node] += 1
        return min(counts, key=lambda name: counts[name])

    def _serve(self, world: World, service: Service) -> Service:
        known = world.services.get(service.key)
        if not service.headless:
            ips = service.cluster_ips or (known.cluster_ips if known else ())
            if ips:
                for address in ips:
                    found = self._services.get(ip.family_of(address))
                    if found is None or address not in found:
                        ranges = ", ".join(r.cidr for r in self._services.values())
                        raise LabError(
                            f"Service {service} asks for {address}, which is not in {ranges}"
                        )
                    found.claim(address, str(service))
            else:
                ips = tuple(self._services[f].take(str(service)) for f in self.families)
            service = replace(service, cluster_ips=ips)
        if service.type in ("NodePort", "LoadBalancer"):
            had = {(p.port, p.protocol): p.node_port for p in known.ports} if known else {}
            ports = tuple(
                replace(
                    port,
                    node_port=port.node_port
                    or had.get((port.port, port.protocol))
                    or self._node_port(world),
                )
                for port in service.ports
            )
            service = replace(service, ports=ports)
        return service

    def _node_port(self, world: World) -> int:
        used = {port.node_port for service in world.services.values() for port in service.ports}
        return next(
            port for port in itertools.islice(self._node_ports, len(NODE_PORTS)) if port not in used
        )


def _uid(pod: Pod, known: Pod | None) -> str:
    return pod.uid or (known.uid if known else "") or str(uuid.uuid4())


def _shape(pod: Pod) -> tuple[object, ...]:
    """What cannot change in a pod that runs."""
    return pod.ports, pod.host_network, pod.workload, pod.page


def _clash(world: World, pod: Pod, node: str) -> str:
    """Why the pod's ports are not to be had on a node; empty if they are."""
    wanted = _node_ports(pod)
    if not wanted:
        return ""
    if any(port == NODE_SERVER_PORT for _, port in wanted):
        return f"port {NODE_SERVER_PORT} of {node} is the node's own"
    for other in world.pods.values():
        if other.node == node and other.live and other.key != pod.key:
            for protocol, port in sorted(wanted & _node_ports(other)):
                return f"port {port}/{protocol} of {node} is taken by {other}"
    return ""


def _node_ports(pod: Pod) -> set[tuple[Protocol, int]]:
    """What a pod takes of its node's ports."""
    if not pod.host_network:
        return {(own.protocol, own.host_port) for own in pod.ports if own.host_port}
    if pod.workload is Workload.CLIENT:
        return set()
    return {(own.protocol, own.port) for own in pod.ports} or {(Protocol.TCP, DEFAULT_PORT)}
