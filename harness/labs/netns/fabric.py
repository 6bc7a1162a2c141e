"""The three kinds of pod network, as batches for ``ip`` and ``bridge`` (pure text).

A fabric is two choices: how pods hang on their node, and how nodes carry each other's pods.

========= ======================= ================================ ==========================
name      pods                    nodes                            the seed's example
========= ======================= ================================ ==========================
routed    a veth each, proxy ARP  plain routes to pod CIDRs        Calico (layer 3)
overlay   ports of a bridge       VXLAN, static entries            Flannel
bridged   ports of a bridge       one switched segment             Weave (layer 2)
========= ======================= ================================ ==========================

Interface names can be set, because policy engines insist on theirs.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.labs.netns import addresses as ip
from harness.model.world import Node, Pod

ROOT = "fabric"
"""Name of the network namespace that holds the switches and the router between all."""
SWITCH = "switch-nodes"
SEGMENT = "switch-pods"
OUTSIDE = "switch-outside"

LONGEST_NAME = 15
"""Characters of an interface's name (IFNAMSIZ less one)."""
GATEWAY = {4: "169.254.1.1", 6: "fe80::ecee:eeff:feee:eeee"}
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
VNI = 1
GONE = 4711
"""The group of links that are being taken away."""
VXLAN_PORT = 8472
VXLAN_OVERHEAD = 50


@dataclass(frozen=True, slots=True)
class Fabric:
    """``pods``: ``veth`` or ``bridge``; ``nodes``: ``route``, ``vxlan`` or ``switch``.

    ``prefix`` begins the host end's name of each pod's link; the rest is the first 11 hex digits
    of sha1("NAMESPACE.POD"), which is how Calico finds a pod's link.
    """

    name: str
    pods: str
    nodes: str
    prefix: str = "cali"
    bridge: str = "cni0"
    vxlan: str = "flannel.1"
    uplink: str = "uplink0"

    @property
    def mtu(self) -> int:
        """Bytes of the pods' links."""
        return 1500 - (VXLAN_OVERHEAD if self.nodes == "vxlan" else 0)

    def link(self, namespace: str, pod: str) -> str:
        """Name of the node's end of a pod's link."""
        digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
        return f"{self.prefix}{digest[:11]}"[:LONGEST_NAME]

    def named(self, **names: str) -> Fabric:
        """The same fabric with other interface names."""
        return replace(self, **names)


FABRICS = {
    fabric.name: fabric
    for fabric in (
        Fabric("routed", pods="veth", nodes="route"),
        Fabric("overlay", pods="bridge", nodes="vxlan", prefix="veth"),
        Fabric("bridged", pods="bridge", nodes="switch", prefix="veth"),
    )
}

Lines = list[str]


def root_batch(families: Sequence[int]) -> Lines:
    """The switches, and the router (first address of each) between nodes and outside."""
    lines = ["link set lo up"]
    for n, bridge in enumerate((SWITCH, SEGMENT, OUTSIDE)):
        made = f"link add {bridge} address {_bridge_mac(0xFF00 + n)} type bridge mcast_snooping 0"
        lines += [made, f"link set {bridge} up"]
    for family in families:
        for bridge, cidr in ((SWITCH, ip.NODE_CIDRS), (OUTSIDE, ip.OUTSIDE_CIDRS)):
            mask = cidr[family].partition("/")[2]
            lines.append(f"addr add {ip.at(cidr[family], 1)}/{mask} dev {bridge}{_nodad(family)}")
    return lines


def node_batch(fabric: Fabric, index: int, node: Node, others: Sequence[tuple[int, Node]]) -> Lines:
    """A node's own links and its routes to the other nodes' pods."""
    lines = ["link set lo up"]
    lines += _cable("eth0", f"node{index}", 1500)
    for address in node.ips:
        family = ip.family_of(address)
        mask = ip.NODE_CIDRS[family].partition("/")[2]
        lines.append(f"addr add {address}/{mask} dev eth0{_nodad(family)}")
        lines.append(f"route add {_default(family)} via {ip.at(ip.NODE_CIDRS[family], 1)}")
    if fabric.pods == "bridge":
        lines.append(
            f"link add {fabric.bridge} address {_bridge_mac(index)} mtu {fabric.mtu} "
            f"type bridge mcast_snooping 0"
        )
        lines.append(f"link set {fabric.bridge} up")
    if fabric.nodes == "switch":
        lines += _cable(fabric.uplink, f"pods{index}", fabric.mtu)
        lines.append(f"link set {fabric.uplink} master {fabric.bridge}")
    if fabric.nodes == "vxlan":
        lines += _vxlan(fabric, index, node)
    return lines + pod_cidr_batch(fabric, node, others)


def pod_cidr_batch(fabric: Fabric, node: Node, others: Sequence[tuple[int, Node]]) -> Lines:
    """A node's addresses out of its pod CIDRs, and its routes to the other nodes' pods.

    Apart, because a real control plane hands out pod CIDRs only when the nodes are there.
    """
    lines = []
    for cidr in node.pod_cidrs:
        if fabric.pods == "bridge":
            lines += _bridge_addresses(fabric, node, cidr)
        if fabric.nodes == "vxlan":
            address = ip.at(cidr, 0)
            nodad = _nodad(ip.family_of(address))
            lines.append(f"addr add {ip.host(address)} dev {fabric.vxlan}{nodad}")
    for other_index, other in others:
        lines += _routes(fabric, node, other_index, other)
    return lines


def root_batch_for_node(fabric: Fabric, index: int, node: Node) -> Lines:
    """The switches' ports to a node, and the router's routes to its pods."""
    lines = [f"link set node{index} master {SWITCH} up"]
    if fabric.nodes == "switch":
        lines.append(f"link set pods{index} master {SEGMENT} up")
    return lines + root_pod_cidr_batch(node)


def root_pod_cidr_batch(node: Node) -> Lines:
    """The router's routes to a node's pods."""
    lines = []
    for cidr in node.pod_cidrs:
        via = ip.of_family(node.ips, ip.family_of(cidr.partition("/")[0]))
        lines.append(f"route add {cidr} via {via}")
    return lines


def fdb_batch(fabric: Fabric, others: Sequence[tuple[int, Node]]) -> Lines:
    """For ``bridge -batch``: behind which node each other VXLAN device is."""
    if fabric.nodes != "vxlan":
        return []
    return [
        f"fdb append {_mac(index)} dev {fabric.vxlan} dst {node.ips[0]}" for index, node in others
    ]


def pod_batch(fabric: Fabric, node: Node, pod: Pod) -> Lines:
    """In the pod's namespace: its link, whose other end (still down) is made in the node's."""
    link = fabric.link(pod.namespace, pod.name)
    lines = ["link set lo up"]
    lines.append(
        f"link add eth0 address {_mac_of(pod.ips[0])} mtu {fabric.mtu} type veth "
        f"peer name {link} mtu {fabric.mtu} netns {node.name}"
    )
    lines.append("link set eth0 up")
    for address in pod.ips:
        family = ip.family_of(address)
        if fabric.pods == "veth":
            gateway = GATEWAY[family]
            lines.append(f"addr add {ip.host(address)} dev eth0{_nodad(family)}")
            if family == 4:
                lines.append(f"route add {gateway} dev eth0 scope link")
            lines.append(f"route add {_default(family)} via {gateway} dev eth0")
        else:
            cidr = _segment(fabric, node, family)
            mask = cidr.partition("/")[2]
            gateway = ip.at(_pod_cidr(node, family), 1)
            lines.append(f"addr add {address}/{mask} dev eth0{_nodad(family)}")
            lines.append(f"route add {_default(family)} via {gateway} dev eth0")
    return lines


def plug_batch(fabric: Fabric, node: Node, pods: Sequence[Pod]) -> Lines:
    """In the node's namespace: bring the pods' links up. Not a packet passes before this."""
    return [line for pod in pods for line in _plug(fabric, node, pod)]


def unplug_batch(fabric: Fabric, _: Node, pods: Sequence[Pod]) -> Lines:
    """In the node's namespace: take the pods' links away (their routes and other ends go too).

    As a group, because the kernel waits for its readers once a removal (40 ms), not once a link.
    """
    names = [fabric.link(pod.namespace, pod.name) for pod in pods]
    return [f"link set {name} group {GONE}" for name in names] + [f"link del group {GONE}"]


def _plug(fabric: Fabric, node: Node, pod: Pod) -> Lines:
    link = fabric.link(pod.namespace, pod.name)
    if fabric.pods == "bridge":
        return [
            f"link set {link} master {fabric.bridge} up",
            f"link set {link} type bridge_slave hairpin on",
        ]
    lines = [
        f"link set {link} address {GATEWAY_MAC} addrgenmode none up",
        f"ntable change name arp_cache dev {link} proxy_delay 0",  # the default is up to 0.8 s
    ]
    for address in pod.ips:
        family = ip.family_of(address)
        if family == 6:
            lines.append(f"addr add {GATEWAY[6]}/64 dev {link} nodad")
        source = ip.of_family(node.ips, family)
        lines.append(f"route add {ip.host(address)} dev {link} src {source}")
    return lines


def external_batch(index: int, ips: Sequence[str]) -> Lines:
    """In an outside host's namespace."""
    lines = ["link set lo up", *_cable("eth0", f"outside{index}", 1500)]
    lines.append(f"link set eth0 address {_mac_of(ips[0])}")
    for address in ips:
        family = ip.family_of(address)
        gateway = ip.at(ip.OUTSIDE_CIDRS[family], 1)
        lines.append(f"addr add {ip.host(address)} dev eth0{_nodad(family)}")
        lines.append(f"route add {ip.host(gateway)} dev eth0")
        lines.append(f"route add {_default(family)} via {gateway} dev eth0")
    return lines


def root_batch_for_external(index: int, ips: Sequence[str]) -> Lines:
    """The router's side of an outside host."""
    lines = [f"link set outside{index} master {OUTSIDE} up"]
    # The device is shared, so the routes of a host of the same address before may still be there.
    return lines + [f"route replace {ip.host(address)} dev {OUTSIDE}" for address in ips]


def root_sysctls(families: Sequence[int]) -> list[tuple[str, str]]:
    """The router's settings."""
    found = [("net/ipv4/ip_forward", "1"), *quick_addresses(families)]
    found += [("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")]
    if 6 in families:
        found.append(("net/ipv6/conf/all/forwarding", "1"))
    return found


def sysctls(fabric: Fabric, families: Sequence[int]) -> list[tuple[str, str]]:
    """A node's settings, to be made before its links (they take over the defaults)."""
    found = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        *quick_addresses(families),
    ]
    if 6 in families:
        found.append(("net/ipv6/conf/all/forwarding", "1"))
    if fabric.pods == "bridge":
        found += [
            ("net/bridge/bridge-nf-call-iptables", "1"),
            ("net/bridge/bridge-nf-call-ip6tables", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ]
    else:
        found.append(("net/ipv4/conf/default/proxy_arp", "1"))
    return found


def quick_addresses(families: Sequence[int]) -> list[tuple[str, str]]:
    """IPv6 addresses usable at once (no duplicate address detection), or no IPv6 at all."""
    if 6 in families:
        return [
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/all/accept_dad", "0"),
        ]
    return [("net/ipv6/conf/default/disable_ipv6", "1")]


def _cable(name: str, port: str, mtu: int) -> Lines:
    return [
        f"link add {name} mtu {mtu} type veth peer name {port} mtu {mtu} netns {ROOT}",
        f"link set {name} up",
    ]


def _default(family: int) -> str:
    return "0.0.0.0/0" if family == 4 else "::/0"


def _nodad(family: int) -> str:
    return " nodad" if family == 6 else ""


def _mac(index: int) -> str:
    return f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}"


def _bridge_mac(index: int) -> str:
    """A bridge's own hardware address. Without one it has its lowest port's, and so another one
    when that port goes: neighbours would send to the old one for as long as it looks reachable."""
    return f"02:00:00:01:{index >> 8:02x}:{index & 255:02x}"


def _mac_of(address: str) -> str:
    """A hardware address that goes with an address, as CNI's bridge plugin once had it.

    So nobody's neighbour table is wrong when a new pod takes the address of one that is gone.
    """
    raw = ipaddress.ip_address(address).packed
    four = raw if len(raw) == 4 else hashlib.sha1(raw, usedforsecurity=False).digest()[:4]
    return "0a:58:" + four.hex(":")


def _pod_cidr(node: Node, family: int) -> str:
    return next(c for c in node.pod_cidrs if ip.family_of(c.partition("/")[0]) == family)


def _segment(fabric: Fabric, node: Node, family: int) -> str:
    """The network that a bridged pod is on: its node's CIDR, or the whole cluster's."""
    return ip.CLUSTER_CIDRS[family] if fabric.nodes == "switch" else _pod_cidr(node, family)


def _bridge_addresses(fabric: Fabric, node: Node, cidr: str) -> Lines:
    """The node's address on its bridge is the pods' gateway; it speaks to them as itself."""
    family = ip.family_of(cidr.partition("/")[0])
    mask = _segment(fabric, node, family).partition("/")[2]
    source = ip.of_family(node.ips, family)
    return [
        f"addr add {ip.at(cidr, 1)}/{mask} dev {fabric.bridge} noprefixroute{_nodad(family)}",
        f"route add {cidr} dev {fabric.bridge} src {source}",
    ]


def _vxlan(fabric: Fabric, index: int, node: Node) -> Lines:
    # The device needs no address of its own: so whatever a node masquerades for other nodes' pods
    # carries the node's own address.
    return [
        f"link add {fabric.vxlan} address {_mac(index)} mtu {fabric.mtu} type vxlan id {VNI} "
        f"dev eth0 local {node.ips[0]} dstport {VXLAN_PORT} nolearning",
        f"link set {fabric.vxlan} up",
    ]


def _routes(fabric: Fabric, node: Node, index: int, other: Node) -> Lines:
    lines = []
    for cidr in other.pod_cidrs:
        family = ip.family_of(cidr.partition("/")[0])
        source = ip.of_family(node.ips, family)
        if fabric.nodes in ("route", "switch"):
            # On a switched segment pods find each other; what a node forwards or rewrites is
            # routed: a bridge never sends a frame back out of the port that it came by.
            lines.append(f"route add {cidr} via {ip.of_family(other.ips, family)} src {source}")
        elif fabric.nodes == "vxlan":
            via = ip.at(cidr, 0)
            lines.append(f"neigh add {via} lladdr {_mac(index)} dev {fabric.vxlan} nud permanent")
            lines.append(f"route add {cidr} via {via} dev {fabric.vxlan} onlink src {source}")
    return lines
