"""Where a cell leads: endpoints by name, a Service's ready backends, who listens.

Nothing in here knows of policies. Source: the Services page of the Kubernetes documentation and
the API reference of ``Service``.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.model import cidr
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.policy import Protocol
from harness.model.world import External, Node, Phase, Pod, Service, Workload, World

DNS_NAMESPACE, DNS_SERVICE = "kube-system", "kube-dns"

End = Pod | Node | External


class UnknownEndpointError(LookupError):
    """A cell names somebody who is not in the world."""

    def __str__(self) -> str:
        return str(self.args[0])


def find(world: World, endpoint: Endpoint) -> End:
    """The pod, node or outside host. Raises :class:`UnknownEndpointError`."""
    match endpoint.kind:
        case EndpointKind.POD:
            found: End | None = world.pods.get((endpoint.namespace, endpoint.name))
        case EndpointKind.NODE:
            found = world.nodes.get(endpoint.name)
        case EndpointKind.EXTERNAL:
            found = world.externals.get(endpoint.name)
        case EndpointKind.SERVICE:
            raise UnknownEndpointError(
                f"{endpoint} is a Service: it is no client, and as a target it is asked by "
                f"{Via.SERVICE_IP} or {Via.SERVICE_NAME}"
            )
    if found is None:
        raise UnknownEndpointError(f"there is no {endpoint} in this world")
    return found


def named(end: End) -> str:
    """An end as its Endpoint is written."""
    match end:
        case Pod():
            return str(end)
        case Node():
            return f"node:{end.name}"
        case External():
            return f"external:{end.name}"


def find_service(world: World, endpoint: Endpoint) -> Service:
    """The Service. Raises :class:`UnknownEndpointError`."""
    service = world.services.get((endpoint.namespace, endpoint.name))
    if endpoint.kind is not EndpointKind.SERVICE or service is None:
        raise UnknownEndpointError(f"there is no Service {endpoint} in this world")
    return service


def address(ips: tuple[str, ...], family: int) -> str | None:
    """The first address of that family."""
    return next((ip for ip in ips if cidr.family(ip) == family), None)


def nodes_of(world: World, cells: Iterable[Cell], nodes: Iterable[str]) -> list[str]:
    """Those of ``nodes``, in their order, whose rules decide these cells; of a Service, the nodes
    of its ready pods."""
    names: set[str | None] = set()
    for end in {end for cell in cells for end in (cell.source, cell.target)}:
        match end.kind:
            case EndpointKind.NODE:
                names.add(end.name)
            case EndpointKind.POD:
                pod = world.pods.get((end.namespace, end.name))
                names.add(pod.node if pod else None)
            case EndpointKind.SERVICE:
                service = world.services.get((end.namespace, end.name))
                names |= {pod.node for pod in world.backends(service)} if service else set()
    return [name for name in nodes if name in names]


def absent(pod: Pod, family: int) -> str:
    """The reason code for which the pod cannot be an end of a flow, or "". A running pod without
    any address has one that is not known (files do not say it)."""
    if not pod.live:
        return "not-running"
    if pod.terminating:
        return "terminating"
    if pod.ips:
        return "" if address(pod.ips, family) else "no-address"
    return "no-address" if pod.phase is Phase.PENDING else ""


def endpoints(
    world: World, service: Service, port: int, protocol: Protocol, family: int
) -> list[tuple[Pod, int]] | None:
    """Ready backends with their own port numbers; None: the Service has no such port.

    A target port by name is each pod's own; a pod without that name is no backend.
    """
    offered = next(
        (own for own in service.ports if own.port == port and own.protocol is protocol), None
    )
    if offered is None:
        return None
    backends = [pod for pod in world.backends(service) if not absent(pod, family)]
    if isinstance(offered.target_port, int):
        return [(pod, offered.target_port) for pod in backends]
    return [
        (pod, own.port)
        for pod in backends
        for own in pod.ports
        if own.name == offered.target_port and own.protocol is protocol
    ]


def listens(world: World, cell: Cell) -> bool | None:
    """Whether somebody is known to listen where the cell leads; None: nobody says.

    The oracle says what policies allow, so cells at closed ports must not be made of it: a pod
    that declares ports listens on those, one that declares none may listen on any. Raises
    :class:`UnknownEndpointError`.
    """
    match cell.via:
        case Via.SERVICE_IP | Via.SERVICE_NAME:
            service = find_service(world, cell.target)
            if service.headless:
                where: list[tuple[Pod, int]] = [(pod, cell.port) for pod in world.backends(service)]
            else:
                where = endpoints(world, service, cell.port, cell.protocol, cell.family) or []
        case Via.NODE_PORT:
            where = [(pod, port) for pod, port, _ in node_port(world, cell)]
        case _:
            target = find(world, cell.target)
            if isinstance(target, Pod):
                where = [(target, cell.port)]
            elif isinstance(target, External) and target.ports:
                return any(
                    own.port == cell.port and own.protocol is cell.protocol for own in target.ports
                )
            else:
                return None
    answers = [_pod_listens(pod, port, cell.protocol) for pod, port in where]
    if not answers or False in answers:
        return False
    return None if None in answers else True


def _pod_listens(pod: Pod, port: int, protocol: Protocol) -> bool | None:
    if pod.workload is Workload.CLIENT or not pod.live:
        return False
    if not pod.ports:
        return None
    return any(own.port == port and own.protocol is protocol for own in pod.ports)


def node_port(world: World, cell: Cell) -> list[tuple[Pod, int, bool]]:
    """Who answers on a node's port: a hostPort of a pod on it, else a NodePort Service's backends.

    Each with its own port and whether an outside client's address is kept on the way (hostPort,
    or ``externalTrafficPolicy: Local``, where only the node's own pods answer).
    """
    node = find(world, cell.target)
    if not isinstance(node, Node):
        raise UnknownEndpointError(
            f"{cell}: a node port is asked of a node; write node:NAME as the target"
        )
    for _, pod in sorted(world.pods.items()):
        if pod.node == node.name and not absent(pod, cell.family):
            for own in pod.ports:
                if own.host_port == cell.port and own.protocol is cell.protocol:
                    return [(pod, own.port, True)]
    for _, service in sorted(world.services.items()):
        for offered in service.ports:
            if offered.node_port == cell.port and offered.protocol is cell.protocol:
                local = service.external_traffic_policy == "Local"
                found = endpoints(world, service, offered.port, cell.protocol, cell.family) or []
                return [
                    (pod, port, local)
                    for pod, port in found
                    if not local or pod.node == node.name or _is_on(world, cell.source, node)
                ]
    return []


def _is_on(world: World, source: Endpoint, node: Node) -> bool:
    """Whether a client is the node or one of its pods: to kube-proxy, who comes from anywhere else
    is outside, and ``externalTrafficPolicy: Local`` keeps it to the node's own pods."""
    if source.kind is EndpointKind.POD:
        pod = world.pods.get((source.namespace, source.name))
        return pod is not None and pod.node == node.name
    return source.kind is EndpointKind.NODE and source.name == node.name
