"""From what a step asks (:class:`~harness.scenarios.scenario.Probes`) to the cells themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address

from harness.labs.server import DEFAULT_PORT, NODE_SERVER_PORT
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.policy import Protocol
from harness.model.routing import listens
from harness.model.world import ContainerPort, Phase, Pod, Service, Workload, World
from harness.scenarios.scenario import Probes

#: Where the lab keeps what is its own (the DNS server): in no matrix unless it is named.
SYSTEM_NAMESPACE = "kube-system"

_USUAL_VIA = {
    EndpointKind.POD: Via.POD_IP,
    EndpointKind.NODE: Via.NODE_IP,
    EndpointKind.EXTERNAL: Via.EXTERNAL_IP,
    EndpointKind.SERVICE: Via.SERVICE_IP,
}
_CELL = re.compile(
    r"(?P<source>\S+)\s*->\s*(?P<target>\S+):(?P<port>\d+)(?:/(?P<protocol>[A-Za-z]+))?"
    r"(?:\s+by\s+(?P<via>[a-z-]+))?(?P<v6>\s+\(IPv6\))?"
)


class CellError(ValueError):
    """The text names no cell; the message shows the form."""


def parse_cell(text: str) -> Cell:
    """The cell that ``x/a -> y/b:80``, ``x/a -> svc:y/web:80/TCP by service-name (IPv6)`` names.

    The inverse of ``str(Cell)``; protocol (TCP), path (``by``) and family may be left out.
    Endpoints may hold ``*`` (see :func:`matching`). Raises :class:`CellError`.
    """
    found = _CELL.fullmatch(text.strip())
    if found is None:
        raise CellError(
            f"{text!r} names no cell: write SOURCE -> TARGET:PORT, then, where it matters, "
            f"/UDP, 'by {'|'.join(Via)}' and '(IPv6)'"
        )
    try:
        source = Endpoint.parse(found["source"])
        target = Endpoint.parse(found["target"])
        protocol = Protocol((found["protocol"] or "TCP").upper())
        via = Via(found["via"]) if found["via"] else _USUAL_VIA[target.kind]
    except ValueError as wrong:
        raise CellError(f"{text!r}: {wrong}") from None
    port = int(found["port"])
    if not 0 < port < 65536:
        raise CellError(f"{text!r}: {port} is no port; ports are 1 to 65535")
    return Cell(source, target, port, protocol, via, 6 if found["v6"] else 4)


def matching(pattern: Endpoint, endpoint: Endpoint) -> bool:
    """Whether an endpoint is one that the pattern (``x/*``, ``node:*``, ``*/*``) means."""
    return (
        pattern.kind is endpoint.kind
        and fnmatchcase(endpoint.namespace, pattern.namespace)
        and fnmatchcase(endpoint.name, pattern.name)
    )


def matches_cell(pattern: Cell, cell: Cell) -> bool:
    """Whether a cell is one that the pattern's endpoints mean; all else has to be equal."""
    return (
        (pattern.port, pattern.protocol, pattern.via, pattern.family)
        == (cell.port, cell.protocol, cell.via, cell.family)
        and matching(pattern.source, cell.source)
        and matching(pattern.target, cell.target)
    )


def pod_endpoint(pod: Pod) -> Endpoint:
    return Endpoint(EndpointKind.POD, pod.namespace, pod.name)


def cells(world: World, probes: Probes, features: frozenset[str]) -> list[Cell]:
    """The cells to ask in ``world``, in a stable order and each once.

    ``world`` may be resolved by a lab or not yet (then addresses are taken to be there).
    ``features`` are the lab's: cells of a family or protocol that it lacks are not made. Left out
    as well: a pod to its own address (it cannot be blocked, semantics rule 10), targets without
    an address of the family, clients that run no client, ports that the target does not declare.
    """
    made: dict[Cell, None] = {}
    families = [f for f in probes.families if f"ipv{f}" in features]
    ports = [(n, p) for n, p in probes.ports if p is Protocol.TCP or p.lower() in features]
    sources = list(_clients(world, probes.sources, features))
    for via in probes.vias:
        if via is Via.SERVICE_NAME and "dns" not in features:
            continue
        for target, port, protocol, family in _targets(world, probes, via, ports, families):
            for source in sources:
                cell = Cell(source, target, port, protocol, via, family)
                if source != target and _can_ask(world, cell):
                    made[cell] = None
    for cell in probes.extra:
        if possible(cell, features):
            for one in _named(world, cell, features):
                made[one] = None
    return list(made)


def possible(cell: Cell, features: frozenset[str]) -> bool:
    """Whether a lab with these features can ask such cells at all."""
    return (
        f"ipv{cell.family}" in features
        and (cell.protocol is Protocol.TCP or cell.protocol.lower() in features)
        and (cell.via is not Via.SERVICE_NAME or "dns" in features)
        and (cell.source.kind is not EndpointKind.NODE or "node-client" in features)
        and (
            "external" in features
            or EndpointKind.EXTERNAL not in (cell.source.kind, cell.target.kind)
        )
    )


def _named(world: World, pattern: Cell, features: frozenset[str]) -> Iterator[Cell]:
    """The cells that an extra cell stands for: itself, or, where its target is a pattern, those
    whose target listens there."""
    picked = [
        e
        for e in _pick(_everybody(world), (pattern.target,))
        if _in_matrix(e.namespace, (pattern.target,))
    ]
    for source in _clients(world, (pattern.source,), features):
        for target in picked:
            cell = Cell(source, target, pattern.port, pattern.protocol, pattern.via, pattern.family)
            named = (source, target) == (pattern.source, pattern.target)
            if not named and not (_can_ask(world, cell) and _has_family(world, cell)):
                continue
            if target == pattern.target or (source != target and listens(world, cell) is not False):
                yield cell


def _has_family(world: World, cell: Cell) -> bool:
    """Whether the target has an address of the cell's family; Services are taken to have one."""
    target = cell.target
    match target.kind:
        case EndpointKind.POD:
            return _has(world.pods[target.namespace, target.name].ips, cell.family)
        case EndpointKind.NODE:
            return _has(world.nodes[target.name].ips, cell.family)
        case EndpointKind.EXTERNAL:
            return _has(world.externals[target.name].ips, cell.family)
        case EndpointKind.SERVICE:
            return True


def _everybody(world: World) -> Iterator[Endpoint]:
    for pod in world.pods.values():
        if pod.live:
            yield pod_endpoint(pod)
    for service in world.services.values():
        yield Endpoint(EndpointKind.SERVICE, service.namespace, service.name)
    for name in world.nodes:
        yield Endpoint(EndpointKind.NODE, "", name)
    for name in world.externals:
        yield Endpoint(EndpointKind.EXTERNAL, "", name)


def _pick(all_of_them: Iterable[Endpoint], wanted: tuple[Endpoint, ...]) -> Iterator[Endpoint]:
    return (e for e in sorted(all_of_them) if any(matching(w, e) for w in wanted))


def _clients(
    world: World, wanted: tuple[Endpoint, ...] | None, features: frozenset[str]
) -> Iterator[Endpoint]:
    for endpoint in _pick(_everybody(world), wanted or (Endpoint(EndpointKind.POD, "*", "*"),)):
        match endpoint.kind:
            case EndpointKind.POD:
                pod = world.pods[endpoint.namespace, endpoint.name]
                if not _in_matrix(pod.namespace, wanted):
                    continue
                if pod.workload is not Workload.SERVER and pod.phase is Phase.RUNNING:
                    yield endpoint
            case EndpointKind.NODE:
                if "node-client" in features:
                    yield endpoint
            case EndpointKind.EXTERNAL:
                if "external" in features:
                    yield endpoint
            case EndpointKind.SERVICE:
                pass


def _in_matrix(namespace: str, wanted: tuple[Endpoint, ...] | None) -> bool:
    """The system's own namespace is in the matrix only where its name is written out."""
    return namespace != SYSTEM_NAMESPACE or any(
        w.namespace == SYSTEM_NAMESPACE for w in wanted or ()
    )


def _targets(
    world: World,
    probes: Probes,
    via: Via,
    ports: list[tuple[int, Protocol]],
    families: list[int],
) -> Iterator[tuple[Endpoint, int, Protocol, int]]:
    everybody = (
        _pick(_everybody(world), probes.targets) if probes.targets else sorted(_everybody(world))
    )
    for endpoint in everybody:
        if not _in_matrix(endpoint.namespace, probes.targets):
            continue
        match via, endpoint.kind:
            case Via.POD_IP, EndpointKind.POD:
                pod = world.pods[endpoint.namespace, endpoint.name]
                if pod.workload is Workload.CLIENT or pod.phase is not Phase.RUNNING:
                    continue
                offered = [
                    (n, p, f)
                    for n, p in ports
                    if (n, p) in _served(pod.ports)
                    for f in families
                    if _has(pod.ips, f)
                ]
            case ((Via.SERVICE_IP | Via.SERVICE_NAME), EndpointKind.SERVICE):
                service = world.services[endpoint.namespace, endpoint.name]
                own = {(p.port, p.protocol) for p in service.ports}
                offered = [
                    (n, p, f)
                    for n, p in ports
                    if (n, p) in own
                    for f in _service_families(service, via, families)
                ]
            case Via.NODE_IP, EndpointKind.NODE:
                ips = world.nodes[endpoint.name].ips
                offered = [
                    (n, p, f)
                    for n, p in ports
                    if (n, p) in _node_serves(world, endpoint.name)
                    for f in families
                    if _has(ips, f)
                ]
            case Via.NODE_PORT, EndpointKind.NODE:
                ips = world.nodes[endpoint.name].ips
                offered = [
                    (n, p, f)
                    for n, p in _node_ports(world, endpoint.name)
                    for f in families
                    if _has(ips, f)
                ]
            case Via.EXTERNAL_IP, EndpointKind.EXTERNAL:
                external = world.externals[endpoint.name]
                offered = [
                    (n, p, f)
                    for n, p in ports
                    if (n, p) in _served(external.ports)
                    for f in families
                    if _has(external.ips, f)
                ]
            case _:
                continue
        for port, protocol, family in offered:
            yield endpoint, port, protocol, family


def _served(declared: tuple[ContainerPort, ...]) -> set[tuple[int, Protocol]]:
    """What a server listens on: what it declares, or, as nginx does, 80."""
    return {(p.port, p.protocol) for p in declared} or {(DEFAULT_PORT, Protocol.TCP)}


def _node_serves(world: World, node: str) -> set[tuple[int, Protocol]]:
    """What listens on a node's own address: the node's server, and pods on its network."""
    found = {(NODE_SERVER_PORT, Protocol.TCP), (NODE_SERVER_PORT, Protocol.UDP)}
    for pod in world.pods.values():
        if pod.host_network and pod.node == node and pod.phase is Phase.RUNNING:
            found |= _served(pod.ports)
    return found


def _node_ports(world: World, node: str) -> Iterator[tuple[int, Protocol]]:
    """Services' node ports, which every node offers, and the hostPorts of the node's own pods."""
    for _, service in sorted(world.services.items()):
        for offered in service.ports:
            if offered.node_port:
                yield offered.node_port, offered.protocol
    for _, pod in sorted(world.pods.items()):
        if pod.node == node and pod.phase is Phase.RUNNING:
            for own in pod.ports:
                if own.host_port:
                    yield own.host_port, own.protocol


def _service_families(service: Service, via: Via, families: list[int]) -> list[int]:
    if service.headless:
        # Resolved to the pods' own addresses: a client takes the first that it is given.
        return families[:1] if via is Via.SERVICE_NAME else []
    usable = [f for f in families if _has(service.cluster_ips, f)]
    return usable[:1] if via is Via.SERVICE_NAME else usable


def _has(ips: tuple[str, ...], family: int) -> bool:
    """Whether there is an address of the family; addresses not given yet are taken to be there."""
    return not ips or any(ip_address(ip).version == family for ip in ips)


def _can_ask(world: World, cell: Cell) -> bool:
    """Whether the source has an address of the cell's family, and knows names where it needs to."""
    match cell.source.kind:
        case EndpointKind.POD:
            pod = world.pods[cell.source.namespace, cell.source.name]
            if pod.host_network:
                return cell.via is not Via.SERVICE_NAME
            return _has(pod.ips, cell.family)
        case EndpointKind.NODE:
            return cell.via is not Via.SERVICE_NAME and _has(
                world.nodes[cell.source.name].ips, cell.family
            )
        case _:
            return cell.via not in (Via.SERVICE_NAME, Via.SERVICE_IP) and _has(
                world.externals[cell.source.name].ips, cell.family
            )
