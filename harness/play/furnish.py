"""A world out of somebody's manifests, made fit for a lab: its own nodes and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Container
from dataclasses import replace

from harness.desk.outside import USUAL, outside_hosts
from harness.labs.netns import addresses as ip
from harness.labs.server import DEFAULT_PORT
from harness.model.fast import Reach
from harness.model.flow import EndpointKind
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, External, Pod, Service, Workload, World
from harness.scenarios.cells import SYSTEM_NAMESPACE

#: Pods of one kind that are made: two, so that what they are to each other is seen as well.
OF_A_KIND = 2
#: Hosts outside of the cluster that are made at most.
MOST_OUTSIDE = 8


def fit(world: World, nodes: Container[str]) -> World:
    """The same pods, Services and policies, without what only another cluster has: its nodes, and
    the addresses that it gave. Pods that have ended are left out; those that declare no port
    serve the usual one."""
    return world.with_(
        nodes={},
        pods={key: _pod(pod, nodes) for key, pod in world.pods.items() if pod.live},
        services={key: _service(service) for key, service in world.services.items()},
    )


def _pod(pod: Pod, nodes: Container[str]) -> Pod:
    return replace(
        pod,
        node=pod.node if pod.node in nodes else None,
        ips=(),
        uid="",
        ports=pod.ports or (ContainerPort(DEFAULT_PORT),),
    )


def _service(service: Service) -> Service:
    return replace(
        service,
        cluster_ips=(),
        ports=tuple(replace(port, node_port=None) for port in service.ports),
    )


def portable(world: World) -> World:
    """Without what a lab has of its own or cannot have, as a live cluster holds it: the system's
    pods and Services, ports of nodes, Services that select nobody."""
    return world.with_(
        pods={
            key: replace(pod, ports=tuple(replace(port, host_port=None) for port in pod.ports))
            for key, pod in world.pods.items()
            if pod.namespace != SYSTEM_NAMESPACE
        },
        services={
            key: service
            for key, service in world.services.items()
            if service.selector and service.namespace != SYSTEM_NAMESPACE
        },
    )


def running(world: World) -> World:
    """Every pod running and ready, as its manifest wants it, and asking as well as serving:
    whoever has a policy wants to know of both."""
    return world.with_(
        pods={
            key: pod
            if pod.workload is Workload.CLIENT
            else replace(pod, workload=Workload.BOTH, ready=True, terminating=False)
            for key, pod in world.pods.items()
        }
    )


def few(world: World) -> World:
    """At most :data:`OF_A_KIND` of the pods that no policy and no Service can tell apart."""
    kept = {}
    groups = Reach(world, 4).table().groups
    for members in groups:
        seen: dict[object, int] = {}
        for member in members:
            pod = world.pods.get((member.namespace, member.name))
            if member.kind is not EndpointKind.POD or pod is None:
                continue
            behind = tuple(k for k, s in world.services.items() if pod in world.backends(s))
            seen[behind] = seen.get(behind, 0) + 1
            if seen[behind] <= OF_A_KIND:
                kept[pod.key] = pod
    return world.with_(pods={key: pod for key, pod in world.pods.items() if key in kept})


def with_outside(world: World, families: Collection[int]) -> World:
    """With a host for each kind of outside address that ipBlocks tell apart, where such a host
    can be: no address of the lab's own pods, nodes and Services, none that is nobody's."""
    ports = (ContainerPort(DEFAULT_PORT), ContainerPort(DEFAULT_PORT, Protocol.UDP))
    hosts = {}
    for family in families:
        for host in outside_hosts(world, family=family):
            address = host.ips[0]
            if address != USUAL[family] and _possible(address, family):
                hosts[address] = External(address, (address,), _asked_for(world) or ports)
    chosen = dict(list(hosts.items())[:MOST_OUTSIDE])
    return world.with_(externals={**world.externals, **chosen})


def _possible(address: str, family: int) -> bool:
    taken = (ip.CLUSTER_CIDRS, ip.SERVICE_CIDRS, ip.NODE_CIDRS, ip.OUTSIDE_CIDRS)
    it = ipaddress.ip_address(address)
    if any(it in ipaddress.ip_network(cidrs[family]) for cidrs in taken):
        return False
    nobodys = it.is_multicast or it.is_unspecified or it.is_loopback or it.is_link_local
    return not (nobodys or (it.version == 4 and it.is_reserved))


def _asked_for(world: World) -> tuple[ContainerPort, ...]:
    """The ports by number that egress rules name, so that outside hosts serve them."""
    found = {
        (port.port, port.protocol): None
        for policy in world.policies.values()
        for rule in policy.egress
        for port in rule.ports
        if isinstance(port.port, int)
    }
    return tuple(ContainerPort(number, protocol) for number, protocol in found)
