"""The little of netlink that noticing foreign changes needs. Layouts: linux/netlink.h,
linux/netfilter/{nfnetlink,nf_tables,ipset/ip_set}.h. A library for it takes longer to import than
the whole controller takes to start.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
SUBSYS_IPSET, SUBSYS_NFTABLES = 6, 10

DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE, NEWGEN = 2, 3, 5, 6, 8, 15  # of nftables

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300

_HEADER = struct.Struct("=IHHII")
_GENERIC = 4  # struct nfgenmsg: family, version, resource (big endian)
_ATTRIBUTE = struct.Struct("=HH")
_NESTED_AND_ORDER = 0xC000

Attributes = dict[int, bytes]


class Message(NamedTuple):
    """One message: ``port`` is the netlink port of the socket that caused it."""

    type: int
    port: int
    family: int
    body: bytes

    @property
    def subsystem(self) -> int:
        return self.type >> 8

    @property
    def command(self) -> int:
        return self.type & 0xFF

    def attributes(self) -> Attributes:
        return attributes(self.body)


def messages(data: bytes) -> Iterator[Message]:
    """The messages in what one read gave."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, type_, _, _, port = _HEADER.unpack_from(data, offset)
        start = offset + _HEADER.size
        family = data[start] if length > _HEADER.size else 0
        yield Message(type_, port, family, data[start + _GENERIC : offset + length])
        offset += max(length + 3 & ~3, _HEADER.size)


def attributes(data: bytes) -> Attributes:
    """Attributes by type; of several of one type the last."""
    found: Attributes = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[type_ & ~_NESTED_AND_ORDER] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3
    return found


def text(value: bytes) -> str:
    """A string attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def open_socket(groups: int = 0) -> socket.socket:
    """A netfilter netlink socket; ``groups`` is a mask of multicast groups to hear.

    It takes a port of its own: the first socket of a process that lets the kernel choose gets the
    process's number, and that shall be the one that changes the rules.
    """
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    for _ in range(100):
        try:
            end.bind((int.from_bytes(os.urandom(3)) | 1 << 30, groups))
            return end
        except OSError:
            continue
    end.close()
    raise OSError("no free netlink port")


IPSET_LIST = 7
IPSET_PROTOCOL = 7
A_PROTOCOL, A_NAME, A_FLAGS, A_DATA = 1, 2, 6, 7
A_ELEMENTS = 24  # inside of DATA
LIST_HEADER = 1 << 2


def ask_sets(end: socket.socket) -> list[bytes]:
    """The headers of all ipsets, as the kernel sends them: unchanged bytes are unchanged sets."""
    body = _attribute(A_PROTOCOL, bytes([IPSET_PROTOCOL]))
    body += _attribute(A_FLAGS | 0x4000, struct.pack(">I", LIST_HEADER))
    length = _HEADER.size + _GENERIC + len(body)
    type_ = SUBSYS_IPSET << 8 | IPSET_LIST
    header = _HEADER.pack(length, type_, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    end.send(header + bytes(_GENERIC) + body)
    parts: list[bytes] = []
    while True:
        data = end.recv(1 << 16)
        if any(one.type in (NLMSG_DONE, NLMSG_ERROR) for one in messages(data)):
            return parts
        parts.append(data)


def set_sizes(parts: list[bytes]) -> dict[str, int]:
    """The number of elements of each ipset."""
    sizes: dict[str, int] = {}
    for part in parts:
        for message in messages(part):
            found = message.attributes()
            (count,) = struct.unpack(">I", attributes(found[A_DATA])[A_ELEMENTS])
            sizes[text(found[A_NAME])] = count
    return sizes


class Overheard(NamedTuple):
    """What the kernel told of changes to nftables. ``lost``: there was more than it could tell."""

    messages: list[Message]
    lost: bool


def overhear(end: socket.socket) -> Overheard:
    """All that waits on a socket that hears a group; does not block."""
    heard: list[Message] = []
    lost = False
    while True:
        try:
            heard += messages(end.recv(1 << 17, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return Overheard(heard, lost)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost = True


def _attribute(type_: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), type_) + value + padding
