"""What iptables-legacy tells of a table at little cost: linux/netfilter_ipv4/ip_tables.h."""

from __future__ import annotations

import socket

SOL_IP, SOL_IPV6 = 0, 41
GET_INFO = 64  # IPT_SO_GET_INFO and IP6T_SO_GET_INFO
SIZE = 84  # struct ipt_getinfo
NAME = 32


def table_info(family: int, table: str = "filter") -> bytes:
    """Number of entries, size and hooks of a table; another answer is another table."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as end:
        # the kernel reads the name out of the buffer that it answers in
        return _getsockopt(end, SOL_IPV6 if family == 6 else SOL_IP, table)


def _getsockopt(end: socket.socket, level: int, table: str) -> bytes:
    import ctypes

    buffer = ctypes.create_string_buffer(table.encode().ljust(NAME, b"\0"), SIZE)
    length = ctypes.c_uint32(SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.getsockopt(end.fileno(), level, GET_INFO, buffer, ctypes.byref(length))
    return b"" if failed else buffer.raw
