"""Addresses outside of the cluster, grouped by what policies can tell apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from harness.desk.groups import Group, ip_blocks, position
from harness.model import cidr, words
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import IPBlock
from harness.model.world import External, World

#: Addresses kept for documentation (RFC 5737 and 3849): the first choice of an outside host.
USUAL = {4: "203.0.113.1", 6: "2001:db8::1"}


def outside_groups(
    *worlds: World, within: IPBlock | None = None
) -> tuple[list[Group], list[External]]:
    """A group for each kind of address that the policies' ipBlocks tell apart, and its host.

    ``within``: only addresses of this range. Else all, IPv6 only where a pod or a policy speaks
    of it.
    """
    blocks = sorted({block for world in worlds for block in ip_blocks(world)}, key=repr)
    if within is not None:
        families = [cidr.family(within.cidr)]
    else:
        texts = [block.cidr for block in blocks]
        texts += [ip for world in worlds for pod in world.pods.values() for ip in pod.ips]
        families = [4] + [6] * any(cidr.family(text) == 6 for text in texts)
    groups, hosts = [], []
    for family in families:
        alike: dict[tuple[bool, ...], list[str]] = defaultdict(list)
        for address in _representatives([*blocks, *([within] if within else [])], family):
            if within is None or all(position([within], address)):
                alike[position(blocks, address)].append(address)
        for inside, addresses in alike.items():
            holding = [block for block, within in zip(blocks, inside, strict=True) if within]
            name = f"outside: {_name(holding, others=len(alike) > 1)}"
            if within is not None:
                name = addresses[0]
            elif family == 6 and not holding:
                name += " over IPv6"
            hosts.append(External(name, (addresses[0],)))
            groups.append(Group(name, (Endpoint(EndpointKind.EXTERNAL, "", name),)))
    return groups, hosts


def _name(holding: Sequence[IPBlock], *, others: bool) -> str:
    if not holding:
        return "everywhere else" if others else "everywhere"
    return words.listed([_block(block) for block in holding])


def _block(block: IPBlock) -> str:
    return f"{block.cidr} except {words.listed(block.except_)}" if block.except_ else block.cidr


def _representatives(blocks: Sequence[IPBlock], family: int) -> Iterator[str]:
    """An address out of every region that the ranges of ``blocks`` divide a family into.

    Ranges are nested or disjoint, so each region begins where a range does or just after one.
    """
    yield USUAL[family]
    bits, kind = (32, IPv4Address) if family == 4 else (128, IPv6Address)
    starts = {0}
    for block in blocks:
        for text in (block.cidr, *block.except_):
            if cidr.family(text) == family:
                network = cidr.network(text)
                starts |= {int(network.network_address), int(network.broadcast_address) + 1}
    yield from (str(kind(start)) for start in sorted(starts) if start < 1 << bits)
