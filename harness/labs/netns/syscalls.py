"""The few system calls that Python 3.11 does not offer: namespaces, mounts, parent-death signal.

Every function raises :class:`OSError` naming what was tried.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_PR_SET_PDEATHSIG = 1
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling process into the namespace that ``fd`` refers to."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, bind a path, or change how mounts propagate."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
        ),
        f"mount {kind or source} on {target}",
    )


def sethostname(name: str) -> None:
    """Set the host name of the calling process's UTS namespace (64 bytes at most)."""
    raw = name.encode()[:64]
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def die_with_parent(signal: int) -> None:
    """Have the kernel send ``signal`` to the caller when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root of the caller's mount namespace, and put the old one at ``old``."""
    _check(_libc.pivot_root(new.encode(), old.encode()), "pivot_root")


def detach(target: str) -> None:
    """Take a mount away, as soon as nobody uses it."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")
