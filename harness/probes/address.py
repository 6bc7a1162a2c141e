"""Where a cell's client has to dial, and who may answer there."""

from __future__ import annotations

from collections.abc import Callable

from harness.model import routing
from harness.model.flow import Cell, EndpointKind, Via
from harness.model.world import Pod, World


class NoAddressError(LookupError):
    """There is nothing to dial: the target has no address of the family, or is not there."""


def dial(
    world: World, cell: Cell, called: Callable[[str], str] = lambda namespace: namespace
) -> tuple[str, int]:
    """Host (an address, or a Service's name) and port. Raises :class:`NoAddressError`.

    Names are ``SERVICE.NAMESPACE``, short enough for every cluster's search path, whatever its
    domain is called. ``called``: a namespace's name in the cluster itself.
    """
    try:
        match cell.via:
            case Via.SERVICE_NAME:
                service = routing.find_service(world, cell.target)
                return f"{service.name}.{called(service.namespace)}", cell.port
            case Via.SERVICE_IP:
                ips = routing.find_service(world, cell.target).cluster_ips
            case _:
                ips = routing.find(world, cell.target).ips
    except routing.UnknownEndpointError as nobody:
        raise NoAddressError(str(nobody)) from None
    address = routing.address(ips, cell.family)
    if address is None:
        raise NoAddressError(f"{cell.target} has no IPv{cell.family} address")
    return address, cell.port


def answering(world: World, cell: Cell) -> frozenset[str] | None:
    """The names by which the right backends call themselves; None: any answer is right."""
    match cell.via:
        case Via.SERVICE_IP | Via.SERVICE_NAME:
            service = routing.find_service(world, cell.target)
            return frozenset(str(pod) for pod in world.backends(service))
        case Via.NODE_PORT:
            return frozenset(str(pod) for pod, _, _ in routing.node_port(world, cell))
        case _ if cell.target.kind is EndpointKind.POD:
            pod = routing.find(world, cell.target)
            if isinstance(pod, Pod) and pod.host_network:
                return None  # pods on one node's network share its ports
            return frozenset({str(cell.target)})
        case _:
            return None


def listeners(world: World, cell: Cell) -> tuple[tuple[Pod, int], ...]:
    """The pods behind a cell, each with its own port: who has to be alive for silence to mean a
    denial. Empty where no pod is behind it (nodes, outside hosts)."""
    match cell.via:
        case Via.SERVICE_IP | Via.SERVICE_NAME:
            service = routing.find_service(world, cell.target)
            if service.headless:
                return tuple((pod, cell.port) for pod in world.backends(service))
            found = routing.endpoints(world, service, cell.port, cell.protocol, cell.family)
            return tuple(found or ())
        case Via.NODE_PORT:
            return tuple((pod, port) for pod, port, _ in routing.node_port(world, cell))
        case _:
            target = routing.find(world, cell.target)
            return ((target, cell.port),) if isinstance(target, Pod) else ()
