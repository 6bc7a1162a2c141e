"""A reading of the compiled form, for tests: what a data plane has to make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.enforcer import ranges
from harness.enforcer.compiled import ANY, Compiled, Ports, Row
from harness.enforcer.compiler import Compiler
from harness.model.flow import Cell, EndpointKind
from harness.model.policy import Direction, Protocol
from harness.model.world import Pod, World

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
    ends = []
    for end in (cell.source, cell.target):
        match end.kind:
            case EndpointKind.POD:
                ends.append(world.pods[end.namespace, end.name])
            case EndpointKind.NODE:
                ends.append(world.nodes[end.name])
            case _:
                ends.append(world.externals[end.name])
    source, target = (address_of(world, end, cell.family) for end in ends)
    here, there = (end.node if isinstance(end, Pod) else getattr(end, "name", None) for end in ends)
    out = into = True
    if isinstance(ends[0], Pod) and not ends[0].host_network and ends[0].node:
        out = passes(compiled[ends[0].node], Direction.EGRESS, source, target, source, target, cell)
    if isinstance(ends[1], Pod) and not ends[1].host_network and ends[1].node:
        from_own_node = here == there and not (
            isinstance(ends[0], Pod) and not ends[0].host_network
        )
        into = from_own_node or passes(
            compiled[ends[1].node], Direction.INGRESS, target, source, source, target, cell
        )
    return out and into


def address_of(world: World, end: object, family: int) -> str:
    ips: tuple[str, ...] = end.ips  # type: ignore[attr-defined]
    if isinstance(end, Pod) and end.host_network and end.node:
        ips = world.nodes[end.node].ips
    return next((ip for ip in ips if ranges.family_of(ip) == family), "")


def passes(
    compiled: Compiled,
    direction: Direction,
    own: str,
    peer: str,
    source: str,
    target: str,
    cell: Cell,
) -> bool:
    del source
    for pod in compiled.pods.values():
        if own in pod.addresses:
            targets = pod.targets(direction)
            return targets is None or any(
                row_holds(compiled, row, peer, target, cell)
                for one in targets
                for row in compiled.targets[one]
            )
    return True


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
