"""Limits of the machine on which kind fails half-way, looked at before anything is made."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.labs.base import LabError
from harness.labs.netns import detect

#: kind's own "known issues" ask for these; about the fourth cluster fails at a kernel's defaults.
INOTIFY = {"max_user_watches": 524288, "max_user_instances": 512}
#: Below this not even one node gets up.
INOTIFY_LEAST = {"max_user_watches": 8192, "max_user_instances": 64}
#: From this version of Kubernetes on kubelets refuse cgroup v1.
CGROUP2_SINCE = (1, 35)
DISK_LEAST, DISK_GOOD = 3 << 30, 8 << 30
"""Bytes: a node image takes 1 GB, a CNI's images up to 1 GB on each of three nodes."""
#: Kernel module -> what was tried for the embedded lab, and tells that it is there.
TRIED = {
    "vxlan": "vxlan",
    "dummy": "dummy",
    "br_netfilter": "bridge-netfilter",
    "nft_queue": "nft-queue",
    "xt_set": "ipset",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that was looked at. ``ok`` None: not known, or not good but enough to try.
    ``step`` is what mends it."""

    name: str
    ok: bool | None
    found: str
    step: str = ""


def look(
    *,
    kubernetes: tuple[int, int] | None = None,
    bears_cgroup1: bool = False,
    modules: Sequence[str] = (),
    disk: Path | None = None,
    cgroups: str = "",
    tried: Callable[[str], bool | None] = lambda _: None,
    system: Path = Path("/"),
) -> list[Limit]:
    """All limits. ``kubernetes`` is the minor version of the nodes (None: the newest),
    ``bears_cgroup1``: their kubelets are told to bear cgroup v1; ``modules`` the kernel modules
    that the CNI needs, ``disk`` where the runtime keeps its images, ``cgroups`` the version that
    the runtime tells of (empty: this machine is looked at). ``tried`` tells of a module whether
    its ability was tried and is there. ``system``: the file system."""
    return [
        _cgroups(kubernetes, cgroups or _version_here(system), bears_cgroup1),
        *(_inotify(name, system) for name in INOTIFY),
        *([_disk(disk)] if disk is not None else []),
        *(_module(name, tried, system) for name in modules),
    ]


def tried(module: str) -> bool | None:
    """Whether what a module gives was tried on this machine and is there; None: not tried."""
    name = TRIED.get(module)
    return _abilities()[name].ok if name else None


@cache
def _abilities() -> Mapping[str, detect.Ability]:
    return detect.abilities()


def refuse(limits: Sequence[Limit]) -> list[str]:
    """Raises LabError for what makes it impossible; returns warnings for the rest."""
    for limit in limits:
        if limit.ok is False:
            raise LabError(f"{limit.name}: {limit.found}", hint=limit.step)
    return [f"{one.name}: {one.found}; {one.step}" for one in limits if one.ok is None and one.step]


def _version_here(system: Path) -> str:
    mounted = system / "sys/fs/cgroup"
    if (mounted / "cgroup.controllers").exists():
        return "2"
    return "1" if (mounted / "memory").is_dir() or (mounted / "unified").is_dir() else ""


def _cgroups(kubernetes: tuple[int, int] | None, version: str, borne: bool) -> Limit:
    if version == "2":
        return Limit("cgroups", True, "version 2")
    if not version:
        return Limit("cgroups", None, "which version is not known")
    since = ".".join(map(str, CGROUP2_SINCE))
    if borne:
        return Limit("cgroups", True, "version 1, which the kubelets are told to bear")
    refused = kubernetes is None or kubernetes >= CGROUP2_SINCE
    return Limit(
        "cgroups",
        False if refused else None,
        f"version 1: node images of Kubernetes {since} and newer refuse it",
        "boot with systemd.unified_cgroup_hierarchy=1, or take an older --lab-kind-image, or a "
        "--lab-kind-config whose kubelets bear it (failCgroupV1: false)",
    )


def _inotify(name: str, system: Path) -> Limit:
    title = f"inotify {name.removeprefix('max_user_')}"
    path = system / "proc/sys/fs/inotify" / name
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return Limit(title, None, "not known", f"look at {path}")
    if value >= INOTIFY[name]:
        return Limit(title, True, str(value))
    ok = False if value < INOTIFY_LEAST[name] else None
    step = f"sysctl -w fs.inotify.{name}={INOTIFY[name]}"
    return Limit(title, ok, f"{value}: too few for some kind clusters", step)


def _disk(path: Path) -> Limit:
    try:
        free = shutil.disk_usage(path).free
    except OSError as error:
        return Limit("disk", None, f"{path}: {error.strerror}")
    text = f"{free / (1 << 30):.1f} GiB free in {path}"
    if free >= DISK_GOOD:
        return Limit("disk", True, text)
    step = f"make room there: {DISK_GOOD >> 30} GiB are good, {DISK_LEAST >> 30} GiB the least"
    return Limit("disk", None if free >= DISK_LEAST else False, text, step)


def _module(name: str, tried: Callable[[str], bool | None], system: Path) -> Limit:
    """kind's nodes may load modules themselves, from the host's /lib/modules."""
    title = f"kernel module {name}"
    if (system / "sys/module" / name).exists():
        return Limit(title, True, "loaded")
    if tried(name):
        return Limit(title, True, "tried")
    folder = system / "lib/modules" / platform.release()
    there = {
        os.path.basename(line.partition(":")[0]).partition(".ko")[0].replace("-", "_")
        for file in ("modules.dep", "modules.builtin")
        if (folder / file).is_file()
        for line in (folder / file).read_text(errors="replace").splitlines()
    }
    if name in there:
        return Limit(title, True, "there, to be loaded")
    if there or tried(name) is False:
        return Limit(
            title, None, "this kernel has not got it", f"modprobe {name}, or another kernel"
        )
    return Limit(title, None, "not known: there is no /lib/modules for this kernel")
