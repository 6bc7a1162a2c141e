"""Hosts outside of the cluster, one for each kind of address that policies can tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from harness.desk.groups import ip_blocks
from harness.model import cidr, words
from harness.model.policy import IPBlock
from harness.model.world import External, World

#: Addresses kept for documentation (RFC 5737 and 3849): the first choice of an outside host.
USUAL = {4: "203.0.113.1", 6: "2001:db8::1"}


def outside_hosts(*worlds: World, family: int) -> list[External]:
    """A host for each kind of address that the ipBlocks of all the worlds tell apart; its name
    says which addresses it stands for."""
    blocks = sorted({block for world in worlds for block in ip_blocks(world)}, key=repr)
    alike: dict[tuple[bool, ...], str] = {}
    for address in _representatives(blocks, family):
        alike.setdefault(_position(blocks, address), address)
    hosts = []
    for inside, address in alike.items():
        holding = [block for block, within in zip(blocks, inside, strict=True) if within]
        name = words.listed([_block(block) for block in holding])
        name = name or ("everywhere else" if len(alike) > 1 else "everywhere")
        hosts.append(External(f"outside: {name}", (address,)))
    return hosts


def hosts_within(world: World, block: IPBlock) -> list[External]:
    """A host for each kind of address of one range; its name is its address."""
    blocks = sorted({block, *ip_blocks(world)}, key=repr)
    found: dict[tuple[bool, ...], str] = {}
    for address in _representatives(blocks, cidr.family(block.cidr)):
        if all(_position([block], address)):
            found.setdefault(_position(blocks, address), address)
    return [External(address, (address,)) for address in found.values()]


def _position(blocks: Sequence[IPBlock], ip: str) -> tuple[bool, ...]:
    """Which of the ranges hold the address."""
    return tuple(
        cidr.contains(block.cidr, ip) and not any(cidr.contains(e, ip) for e in block.except_)
        for block in blocks
    )


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
