"""What this machine can do for the embedded lab, found by trying it in namespaces.

:func:`abilities` needs no lab and touches nothing of the machine; it takes a fraction of a second
and ends by itself. A lab asks :func:`look` in its own namespaces.
"""

from __future__ import annotations

import errno
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.labs.base import LabError
from harness.labs.netns import services
from harness.labs.netns.client import Holder
from harness.labs.netns.fabric import Fabric

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that is there or is not. ``reason`` and ``hint`` say why not, and what mends it."""

    name: str
    title: str
    ok: bool
    reason: str = ""
    hint: str = ""


# name, what it is, a command that tries it, the step that mends it
_TRIED = (
    ("ipv6", "IPv6", "test -e /proc/net/if_inet6", "boot without ipv6.disable=1"),
    ("veth", "veth links", "ip link add v0 type veth peer name v1", "modprobe veth"),
    ("bridge", "bridges", "ip link add b0 type bridge", "modprobe bridge"),
    (
        "bridge-netfilter",
        "bridged packets meet iptables",
        "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
        "modprobe br_netfilter",
    ),
    ("vxlan", "VXLAN", "ip link add x0 type vxlan id 1 dev lo dstport 8472", "modprobe vxlan"),
    ("dummy", "dummy links", "ip link add d0 type dummy", "modprobe dummy"),
    (
        "services",
        "nftables: sets, maps, NAT",
        "nft -f /run/netpol/services.nft",
        "modprobe nft_nat",
    ),
    (
        "nft-queue",
        "nftables: queue to user space",
        "nft add table inet q && nft add chain inet q c && nft add rule inet q c queue num 0",
        "modprobe nft_queue",
    ),
    ("iptables", "iptables", "iptables -w -t nat -L -n", "modprobe nft_compat, or ip_tables"),
    (
        "iptables-legacy",
        "iptables, legacy",
        "iptables-legacy -w -L -n",
        "modprobe ip_tables iptable_filter",
    ),
    (
        "ipset",
        "ipset, and iptables' match for it",
        "ipset create s hash:ip && iptables -w -A OUTPUT -m set --match-set s dst",
        "modprobe ip_set_hash_ip xt_set",
    ),
    (
        "nflog",
        "iptables' target NFLOG",
        "iptables -w -A OUTPUT -j NFLOG --nflog-group 86",
        "modprobe xt_NFLOG nfnetlink_log",
    ),
    (
        "physdev",
        "iptables' match for bridges' ports",
        "iptables -w -A FORWARD -m physdev --physdev-is-bridged --physdev-out p -j ACCEPT",
        "modprobe xt_physdev",
    ),
    (
        "overlay",
        "overlay file systems without root",
        "mkdir -p $TMPDIR/o/u $TMPDIR/o/w $TMPDIR/o/m && mount -t overlay overlay $TMPDIR/o/m "
        "-o lowerdir=/usr,upperdir=$TMPDIR/o/u,workdir=$TMPDIR/o/w,userxattr",
        "modprobe overlay (Linux 5.11 or newer)",
    ),
    (
        "conntrack",
        "connection tracking",
        "iptables -w -A OUTPUT -m conntrack --ctstate ESTABLISHED",
        "modprobe nf_conntrack xt_conntrack",
    ),
)

TOOLS = {
    "nginx": ("nginx-light", ("-v",)),
    "busybox": ("busybox-static", ("--help",)),
    "dnsmasq": ("dnsmasq-base", ("--version",)),
    "ip": ("iproute2", ("-V",)),
    "nft": ("nftables", ("-v",)),
    "iptables": ("iptables", ("-V",)),
    "ipset": ("ipset", ("-v",)),
    "conntrack": ("conntrack", ("-V",)),
    "socat": ("socat", ("-V",)),
}
"""Tool -> its Debian package, and how it tells its version."""
NEEDED = ("nginx", "busybox", "dnsmasq", "ip", "nft")
"""Without these no lab comes up; the others are for evidence, UDP probes and policy engines."""

_SBIN = "/usr/sbin:/sbin"


def which(tool: str) -> str | None:
    """Where a tool is; an ordinary user's PATH may lack the directories for root's."""
    return shutil.which(tool) or shutil.which(tool, path=_SBIN)


def bridge() -> str:
    """iproute2's ``bridge``. A CNI plugin has the same name, does nothing that it is asked for on
    the command line, and exits with 0; where its folder comes first in PATH, nothing would cross
    between the nodes of an overlay."""
    return shutil.which("bridge", path=_SBIN) or "bridge"


def tools() -> dict[str, Ability]:
    """Each tool, whether it is there."""
    found = {}
    for tool, (package, _) in TOOLS.items():
        ok = which(tool) is not None
        reason = "" if ok else f"{tool} is not installed"
        hint = "" if ok else f"apt-get install {package}"
        found[f"tool:{tool}"] = Ability(f"tool:{tool}", f"{tool} (program)", ok, reason, hint)
    return found


@cache
def tool_versions() -> Mapping[str, str]:
    """The version that each tool gives of itself."""

    def ask(tool: str) -> str:
        path = which(tool)
        if path is None:
            return "not installed"
        try:
            done = subprocess.run(
                [path, *TOOLS[tool][1]], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        match = re.search(r"\bv?(\d+\.\d[\w.+~-]*)|iproute2-(\S+)", done.stdout + done.stderr)
        return match[0].removeprefix("v") if match else "unknown"

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(TOOLS, pool.map(ask, TOOLS), strict=True))


def abilities() -> dict[str, Ability]:
    """Everything, without a lab. Never raises; takes :data:`SECONDS` at most."""
    found = tools()
    with tempfile.TemporaryDirectory(prefix="netpol-doctor-") as directory:
        try:
            holder = Holder(Path(directory) / "log")
        except LabError as error:
            first = Ability("namespaces", "namespaces", False, error.message, error.hint)
            rest = {
                name: Ability(
                    name, title, False, "not tried: no namespaces can be made", error.hint
                )
                for name, title, _, _ in _TRIED
            }
            return {"namespaces": first, **rest, "sctp": _sctp(), **found}
        try:
            return {**look(holder), **found}
        except LabError as error:
            broken = Ability("namespaces", "namespaces", False, str(error), error.hint)
            return {"namespaces": broken, **found}
        finally:
            holder.close()


def look(holder: Holder) -> dict[str, Ability]:
    """What the kernel can do, tried in a box of the holder's that is dropped again."""
    box = "abilities"
    files = {"/run/netpol/services.nft": services.SKELETON}
    holder.make([{"name": box, "hostname": box, "files": files}])
    script = "".join(
        f"why=$({{ {command}; }} 2>&1 >/dev/null); echo {name} $? $why\n"
        for name, _, command, _ in _TRIED
    )
    try:
        done = holder.run(box, ["sh", "-c", script], timeout=SECONDS)
    finally:
        holder.request("drop", boxes=[box])
    answers = {
        line.split()[0]: (line.split()[1] == "0", " ".join(line.split()[2:]))
        for line in done.out.splitlines()
        if len(line.split()) > 1
    }
    found = {"namespaces": Ability("namespaces", "namespaces", True)}
    for name, title, command, hint in _TRIED:
        ok, why = answers.get(name, (False, "not answered"))
        reason = "" if ok else why.partition(";")[0] or f"`{command}` fails"
        found[name] = Ability(name, title, ok, reason, "" if ok else f"as root: {hint}")
    return {**found, "sctp": _sctp()}


def _sctp() -> Ability:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
    except OSError as error:
        return Ability(
            "sctp",
            "SCTP",
            False,
            f"kernel {platform.release()} has no SCTP ({errno.errorcode.get(error.errno or 0)})",
            "as root: modprobe sctp",
        )
    return Ability("sctp", "SCTP", True)


def lacking(
    holder: Holder, fabric: Fabric, families: Sequence[int], *, proxy: bool
) -> LabError | None:
    """What a lab of this shape needs and this machine lacks, or None."""
    for tool in NEEDED:
        if which(tool) is None:
            return LabError(
                f"the embedded lab needs {tool}, which is not installed",
                hint=f"apt-get install {TOOLS[tool][0]}",
            )
    try:
        found = look(holder)
    except LabError:
        return None  # the first error says more
    for ability in (found[name] for name in needed(fabric, families, proxy=proxy)):
        if not ability.ok:
            return LabError(
                f"the embedded lab ({fabric.name}) needs {ability.title}: {ability.reason}",
                hint=ability.hint,
            )
    return None


def needed(fabric: Fabric, families: Sequence[int], *, proxy: bool) -> tuple[str, ...]:
    """Names of the abilities of the kernel without which a lab of this shape cannot be had."""
    names = ["veth", "bridge"]
    names += ["vxlan"] if fabric.nodes == "vxlan" else []
    names += ["bridge-netfilter"] if fabric.pods == "bridge" else []
    names += ["services"] if proxy else []
    names += ["ipv6"] if 6 in families else []
    return tuple(names)


def lab_features(
    fabric: Fabric, families: Sequence[int], *, proxy: bool, dns: bool
) -> tuple[frozenset[str], dict[str, str]]:
    """Features of a lab of this shape, and a reason for each that it lacks."""
    features = {"udp", "icmp", "host-network", "address-reuse", "node-client", "external"}
    features |= {"finish-pod", "cluster-network-policy", f"fabric-{fabric.name}"}
    features |= {f"ipv{family}" for family in families}
    missing = {
        f"ipv{family}": "the lab was started without it"
        for family in (4, 6)
        if family not in families
    }
    missing["api"] = "the lab has no Kubernetes API (--lab-api)"
    missing["sctp"] = _sctp().reason or "nginx, the lab's server, does not speak SCTP"
    if proxy:
        features |= {"services", "node-port", "host-port"}
    else:
        missing.update(
            dict.fromkeys(("node-port", "host-port"), "the lab was told to leave Services alone")
        )
    if dns:
        features.add("dns")
    else:
        missing["dns"] = "the lab was told to leave names alone"
    return frozenset(features), missing
