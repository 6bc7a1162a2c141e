"""Who gets which address: nodes, pod CIDRs, pods (as host-local hands them out), Services."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import chain

from harness.labs.base import LabError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CLUSTER_CIDRS = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}
SERVICE_CIDRS = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}
NODE_CIDRS = {4: "172.18.0.0/16", 6: "fd00:172:18::/64"}
OUTSIDE_CIDRS = {4: "203.0.113.0/24", 6: "2001:db8:113::/64"}
NODE_MASKS = {4: 24, 6: 64}
DNS_INDEX = 10
"""The DNS Service is the tenth address of its range, as kubeadm has it."""


def at(cidr: str, index: int) -> str:
    """The address at an index of a network."""
    return str(ipaddress.ip_network(cidr)[index])


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def of_family(addresses: Iterable[str], family: int) -> str | None:
    """The first address of a family, if there is one."""
    return next((a for a in addresses if family_of(a) == family), None)


def host(address: str) -> str:
    """An address as a network of its own: ``10.0.0.1/32``."""
    return f"{address}/{32 if family_of(address) == 4 else 128}"


def pod_cidrs(families: Sequence[int], index: int) -> tuple[str, ...]:
    """The pod CIDRs of the node with this index (0 …), one a family."""
    found = []
    for family in families:
        network = ipaddress.ip_network(CLUSTER_CIDRS[family])
        step = 1 << (network.max_prefixlen - NODE_MASKS[family])
        base = int(network.network_address) + index * step
        made = ipaddress.ip_network((base, NODE_MASKS[family]))
        if not made.subnet_of(network):  # type: ignore[arg-type]
            raise LabError(f"{network} has no room for the pod CIDR of node {index + 1}")
        found.append(str(made))
    return tuple(found)


#: Scenarios ask for pod addresses from this one of a node's range on. Others get it only when
#: all below are taken, or a pod that asks for nothing would be in the way some day.
ASKED_FOR = 200


class Range:
    """The addresses of one CIDR. Freed ones are given out again only after all others.

    ``first`` is the first that is given out, ``kept`` the first that is kept for those who ask for
    it, as long as others are free (None: none is).
    """

    def __init__(self, cidr: str, first: int = 2, kept: int | None = None) -> None:
        self.cidr = cidr
        self.first = first
        self.network: Network = ipaddress.ip_network(cidr)
        spare = 1 if self.network.version == 4 else 0  # the broadcast address
        self.size = min(self.network.num_addresses, 1 << 20) - self.first - spare
        self.common = self.size if kept is None else min(self.size, kept - first)
        self.next = 0
        self.used: dict[str, str] = {}

    def take(self, owner: str) -> str:
        """The next free address. Raises LabError if there is none."""
        common = ((self.next + step) % self.common for step in range(self.common))
        for index in chain(common, range(self.common, self.size)):
            address = str(self.network[self.first + index])
            if address not in self.used:
                self.used[address] = owner
                self.next = (index + 1) % self.common
                return address
        raise LabError(
            f"{self.cidr} is used up: no address is left for {owner}",
            hint="put fewer pods on one node, or give the lab more nodes",
        )

    def claim(self, address: str, owner: str) -> str:
        """This very address. Raises LabError if somebody has it."""
        holder = self.used.setdefault(str(ipaddress.ip_address(address)), owner)
        if holder != owner:
            raise LabError(f"{owner} asks for {address}, but {holder} has it")
        return address

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in self.network

    def release(self, address: str) -> None:
        """Give an address back."""
        self.used.pop(address, None)
