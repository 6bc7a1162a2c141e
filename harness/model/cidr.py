"""Addresses and ranges as the Kubernetes API reads them: more leniently than Python does.

The API takes leading zeros in IPv4 octets (decimal, never octal) and host bits in a range; from
Kubernetes 1.36 it refuses both in new objects, but stored ones keep their meaning.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def _octets(text: str) -> str:
    """IPv4 octets without their leading zeros; other text unchanged."""
    if text.isascii() and text.replace(".", "").isdigit():
        return ".".join(
            str(int(part)) if part and len(part) < 12 else part for part in text.split(".")
        )
    return text


@lru_cache(maxsize=65536)
def network(cidr: str) -> Network:
    """The network that ``cidr`` means: host bits are masked. Raises ValueError."""
    address, slash, length = cidr.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        raise ValueError(f"{cidr!r} is not ADDRESS/LENGTH, like 10.1.0.0/16 or 2001:db8::/64")
    try:
        return ip_network(f"{_octets(address)}/{int(length[:6])}", strict=False)
    except ValueError:
        raise ValueError(
            f"{cidr!r} is not ADDRESS/LENGTH, like 10.1.0.0/16 or 2001:db8::/64"
        ) from None


@lru_cache(maxsize=65536)
def address(text: str) -> Address:
    """The address, sloppy octets included. Raises ValueError."""
    return ip_address(_octets(text))


def family(text: str) -> int:
    """4 or 6, of an address or of a CIDR, by its looks alone."""
    return 6 if ":" in text else 4


def contains(cidr: str, ip: str) -> bool:
    """Whether ``ip`` lies in ``cidr``; never across families."""
    range_ = network(cidr)
    where = address(ip)
    return range_.version == where.version and where in range_


def is_address(text: str) -> bool:
    try:
        address(text)
    except ValueError:
        return False
    return True


def lax(cidr: str) -> str:
    """What the API refuses of this range from Kubernetes 1.36 on, in words; "" for nothing.

    Source: ``k8s.io/apimachinery/pkg/util/validation/ip.go``.
    """
    text, _, length = cidr.partition("/")
    if _octets(text) != text or str(int(length)) != length:
        return "has leading zeros"
    where = address(text)
    if isinstance(where, IPv6Address) and where.ipv4_mapped is not None:
        return "is an IPv4 address in IPv6 clothes"
    if where != network(cidr).network_address:
        return "has bits set beyond its prefix length"
    return ""
