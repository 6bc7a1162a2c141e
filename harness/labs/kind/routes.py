"""A pod network of kind's own parts, without policies and without an image to pull.

Pods by the plugins ``ptp`` and ``host-local``, which are in kind's node image, addresses out of the
node's own CIDRs, and on each node a route for every other node's: layer 3, as kindnet does it.
What leaves the cluster is masqueraded; between pods, and between pods and nodes, nothing is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.labs.base import LabError
from harness.labs.kind.runtime import Runtime
from harness.model.world import Node

CONFIG = "/etc/cni/net.d/10-netpol.conflist"
TABLE = "inet netpol-lab"


def make(runtime: Runtime, nodes: Sequence[Node], pod_subnets: Sequence[str]) -> None:
    """Set it up on every node. Raises LabError."""
    for node in nodes:
        if not node.pod_cidrs:
            raise LabError(
                f"node {node.name} has no pod CIDR",
                hint="the controller manager hands them out: its log tells why it did not",
            )
    for node in nodes:
        mtu = runtime.exec(node.name, ["cat", "/sys/class/net/eth0/mtu"]).out.strip()
        for line in routes(node, nodes):
            runtime.exec(node.name, line)
        runtime.exec(node.name, ["nft", "-f", "-"], stdin=masquerade(nodes, pod_subnets))
        # Last: with it the kubelet takes the network for ready.
        text = conflist(node.pod_cidrs, int(mtu) if mtu.isdecimal() else 1500)
        runtime.exec(node.name, ["tee", CONFIG], stdin=text)


def conflist(cidrs: Sequence[str], mtu: int) -> str:
    """The CNI configuration of a node with these CIDRs."""
    defaults = ["::/0" if ":" in cidr else "0.0.0.0/0" for cidr in cidrs]
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": one} for one in defaults],
        "ranges": [[{"subnet": cidr}] for cidr in cidrs],
    }
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": "netpol",
            "plugins": [
                {"type": "ptp", "ipMasq": False, "mtu": mtu, "ipam": ipam},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        indent=2,
    )


def routes(node: Node, nodes: Sequence[Node]) -> list[list[str]]:
    """Commands: a route for each CIDR of every other node, by its address of that family."""
    found = []
    for other in nodes:
        if other.name == node.name:
            continue
        for cidr in other.pod_cidrs:
            six = ":" in cidr
            way = next((ip for ip in other.ips if (":" in ip) == six), None)
            if way is not None:
                ip = ["ip", "-6"] if six else ["ip"]
                found.append([*ip, "route", "replace", cidr, "via", way])
    return found


def masquerade(nodes: Sequence[Node], pod_subnets: Sequence[str]) -> str:
    """What nft reads: pods speak to pods and nodes as themselves, to all others as their node."""
    lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    lines += ["  chain leaving {", "    type nat hook postrouting priority srcnat; policy accept;"]
    for family, version in (("ip", 4), ("ip6", 6)):
        pods = [one for one in pod_subnets if (":" in one) == (version == 6)]
        ips = [ip for node in nodes for ip in node.ips if (":" in ip) == (version == 6)]
        if pods:
            subnets, others = ", ".join(pods), ", ".join([*pods, *ips])
            lines.append(
                f"    {family} saddr {{ {subnets} }} {family} daddr != {{ {others} }} masquerade"
            )
    return "\n".join([*lines, "  }", "}", ""])
