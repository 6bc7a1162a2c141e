"""The embedded lab: what it needs of kernel and tools, tried in namespaces of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.doctor.check import Check, State
from harness.labs.netns.detect import NEEDED, TOOLS, Ability, abilities, needed, tool_versions
from harness.labs.netns.fabric import FABRICS

#: Data plane of the in-house enforcer -> the abilities that it stands on.
DATAPLANES: Mapping[str, tuple[str, ...]] = {
    "iptables": ("iptables", "ipset", "conntrack", "tool:iptables", "tool:ipset"),
    "nftables": ("services", "tool:nft"),
}
#: Kernel features that no lab stands on, but some scenario, CNI or evidence does.
FEATURES: Mapping[str, str] = {
    "ipv6": "for IPv6 and dual-stack",
    "sctp": "for scenarios with SCTP",
    "iptables-legacy": "for iptables' older variant",
    "dummy": "for Weave on kind",
    "nft-queue": "for kindnet and kube-network-policies, which enforce nothing without it",
}


def embedded_lab() -> list[Check]:
    """The lab, its fabrics and data planes, and the kernel's features."""
    found = abilities()
    base = ["namespaces", *(f"tool:{tool}" for tool in NEEDED)]
    fabrics = {
        name: _stands_on("fabrics", name, found, [*base, *needed(fabric, (4,), proxy=True)])
        for name, fabric in FABRICS.items()
    }
    planes = [_stands_on("data planes", name, found, on) for name, on in DATAPLANES.items()]
    return [
        _lab(list(fabrics.values()), planes, found),
        *fabrics.values(),
        *planes,
        *(_feature(found[name], purpose) for name, purpose in FEATURES.items() if name in found),
    ]


def lab_tools() -> list[Check]:
    """The programs that the embedded lab calls."""
    versions = tool_versions()
    return [_tool(tool, versions[tool]) for tool in TOOLS]


def _lab(fabrics: list[Check], planes: list[Check], found: Mapping[str, Ability]) -> Check:
    if not any(fabric.can for fabric in fabrics):
        first = fabrics[0]
        return Check("labs", "netns", State.NO, first.found, first.step)
    lacking = [check for check in (*fabrics, *planes) if not check.can]
    optional = [f"tool:{tool}" for tool in TOOLS if not found[f"tool:{tool}"].ok]
    text = "the embedded lab: no Docker, image, cluster or root"
    if lacking:
        names = ", ".join(check.name for check in lacking)
        return Check("labs", "netns", State.LIMITED, f"without {names}", lacking[0].step)
    if optional:
        lack = found[optional[0]]
        return Check("labs", "netns", State.LIMITED, lack.reason, lack.hint)
    return Check("labs", "netns", State.YES, text)


def _stands_on(group: str, name: str, found: Mapping[str, Ability], on: Iterable[str]) -> Check:
    for need in on:
        ability = found.get(need)
        if ability is not None and not ability.ok:
            return Check(group, name, State.NO, ability.reason, ability.hint)
    return Check(group, name, State.YES, "tried")


def _feature(ability: Ability, purpose: str) -> Check:
    if ability.ok:
        return Check("kernel", ability.name, State.YES, purpose)
    return Check("kernel", ability.name, State.NO, f"{ability.reason} ({purpose})", ability.hint)


def _tool(tool: str, version: str) -> Check:
    package, _ = TOOLS[tool]
    if version == "not installed":
        state = State.NO if tool in NEEDED else State.LIMITED
        return Check("tools", tool, state, version, f"apt-get install {package}")
    return Check("tools", tool, State.YES, version.strip(",").removeprefix("iproute2-"))
