"""A reading of the compiled form, for tests: what a data plane has to make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.enforcer import ranges
from harness.enforcer.compiled import ANY, Compiled, Layer, Ports, Row, Way
from harness.enforcer.compiler import Compiler
from harness.model.cluster_policy import RuleAction
from harness.model.flow import Cell, EndpointKind
from harness.model.policy import Direction, Protocol
from harness.model.world import External, Node, Pod, World

PROFILE = {
    "ipblock-pod": "match",
    "ipblock-service": "no-match",
    "host-network-subject": "open",
    "host-network-peer": "address",
    "pod-to-own-node": "address",
    "pod-to-node": "address",
    "node-to-pod": "address",
    "hairpin": "allow",
}


def objects_of(world: World) -> list[object]:
    return [
        *world.namespaces.values(),
        *world.nodes.values(),
        *world.pods.values(),
        *world.policies.values(),
        *world.cluster_policies.values(),
    ]


def compiled_for(node: str, objects: Iterable[object]) -> Compiled:
    compiler = Compiler(node)
    for thing in objects:
        compiler.put(thing)  # type: ignore[arg-type]
    return compiler.snapshot()


def verdict(world: World, compiled: Mapping[str, Compiled], cell: Cell) -> bool:
    """Does the cell (between pods, nodes and outside hosts) get through?"""
    ends: list[Pod | Node | External] = []
    for end in (cell.source, cell.target):
        match end.kind:
            case EndpointKind.POD:
                ends.append(world.pods[end.namespace, end.name])
            case EndpointKind.NODE:
                ends.append(world.nodes[end.name])
            case _:
                ends.append(world.externals[end.name])
    source, target = (address_of(end, cell.family) for end in ends)
    here, there = (end.node if isinstance(end, Pod) else getattr(end, "name", None) for end in ends)
    out = into = True
    if isinstance(ends[0], Pod) and not ends[0].host_network and ends[0].node:
        out = passes(compiled[ends[0].node], Direction.EGRESS, source, target, target, cell)
    if isinstance(ends[1], Pod) and not ends[1].host_network and ends[1].node:
        from_own_node = here == there and not (
            isinstance(ends[0], Pod) and not ends[0].host_network
        )
        into = from_own_node or passes(
            compiled[ends[1].node], Direction.INGRESS, target, source, target, cell
        )
    return out and into


def address_of(end: Pod | Node | External, family: int) -> str:
    return next((ip for ip in end.ips if ranges.family_of(ip) == family), "")


def realistic(world: World) -> World:
    """A pod on its node's network has its node's addresses. It has no names for ports here: that
    an address alone cannot have any is the enforcer's reading, the oracle's is another one."""
    pods = {
        key: replace(pod, ips=world.nodes[pod.node].ips, ports=())
        if pod.host_network and pod.node
        else pod
        for key, pod in world.pods.items()
    }
    return world.with_(pods=pods)


def passes(
    compiled: Compiled, direction: Direction, own: str, peer: str, target: str, cell: Cell
) -> bool:
    for pod in compiled.pods.values():
        if own in pod.addresses:
            way = pod.way(direction)
            return way is None or way_passes(compiled, way, peer, target, cell)
    return True


def way_passes(compiled: Compiled, way: Way, peer: str, target: str, cell: Cell) -> bool:
    decided = tier_decides(compiled, way.admin, peer, target, cell)
    if decided is None and way.targets is not None:
        return any(
            row_holds(compiled, row, peer, target, cell)
            for one in way.targets
            for row in compiled.targets[one].values()
        )
    if decided is None:
        decided = tier_decides(compiled, way.baseline, peer, target, cell)
    return decided is not False


def tier_decides(
    compiled: Compiled, layers: tuple[Layer, ...], peer: str, target: str, cell: Cell
) -> bool | None:
    for layer in layers:
        for step in compiled.layers[layer]:
            if row_holds(compiled, step.row, peer, target, cell):
                return None if step.action is RuleAction.PASS else step.action is RuleAction.ACCEPT
    return None


def row_holds(compiled: Compiled, row: Row, peer: str, target: str, cell: Cell) -> bool:
    family = cell.family
    if row.peers is not ANY:
        number = int(ranges.ipaddress.ip_address(peer))
        in_block = any(a <= number <= b for a, b in row.peers.blocks.of(family))
        in_pods = bool(row.peers.pods) and peer in compiled.pod_sets[row.peers.pods].of(family)
        if not in_block and not in_pods:
            return False
    return not isinstance(row.ports, Ports) or port_holds(
        compiled, row.ports, target, family, cell.protocol, cell.port
    )


def port_holds(
    compiled: Compiled, ports: Ports, target: str, family: int, protocol: Protocol, port: int
) -> bool:
    return any(s.protocol == protocol and s.first <= port <= s.last for s in ports.spans) or any(
        name[0] == protocol and (target, port) in compiled.named_ports[name].of(family)
        for name in ports.names
    )
