"""Addresses for a world that no lab has resolved yet, so that the oracle can speak of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from harness.model.flow import Endpoint, EndpointKind
from harness.model.world import External, Node, World

#: Nodes as every lab names them, and the outside host that every lab begins with.
NODES = ("control-plane", "worker", "worker2")
OUTSIDE = External("outside", ("203.0.113.10", "2001:db8:113::a"))


def presume(world: World) -> World:
    """The world with nodes, an outside host and both families, as a lab would fill it in.

    What the world itself says (addresses, nodes) is kept. Pods are spread over the nodes in the
    order of their names. The addresses are made up: nothing may rest on which they are.
    """
    nodes = dict(world.nodes)
    if not nodes:
        for n, name in enumerate(NODES, 1):
            nodes[name] = Node(
                name,
                (f"192.168.240.{n}", f"fd00:240::{n}"),
                (f"10.240.{n}.0/24", f"fd00:10:240:{n}::/64"),
            )
    names = list(nodes)
    numbers = count(10)
    pods = {}
    for i, (key, pod) in enumerate(sorted(world.pods.items())):
        node = pod.node or names[i % len(names)]
        place = names.index(node) + 1 if node in names else 1
        ips = pod.ips
        if not ips and pod.live:
            n = next(numbers)
            ips = (
                nodes[node].ips
                if pod.host_network and node in nodes
                else (f"10.240.{place}.{n % 240 + 10}", f"fd00:10:240:{place}::{n:x}")
            )
        pods[key] = replace(pod, node=node, ips=ips)
    numbers = count(10)
    services = {}
    for key, service in sorted(world.services.items()):
        ips = service.cluster_ips
        if not ips and not service.headless:
            n = next(numbers)
            ips = (f"10.96.{n // 250}.{n % 250 + 1}", f"fd00:10:96::{n:x}")
        services[key] = replace(service, cluster_ips=ips)
    return world.with_(
        nodes=nodes,
        pods=pods,
        services=services,
        externals={OUTSIDE.name: OUTSIDE, **world.externals},
    )


def lab_made(endpoint: Endpoint) -> bool:
    """Whether only a lab knows what the endpoint's name means (its nodes' names are its own)."""
    return endpoint.kind is EndpointKind.NODE
