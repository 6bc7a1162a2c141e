"""What the data planes of the nodes in question say of themselves, verbatim."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.labs.base import Evidence, LabError
from harness.labs.netns.topology import node_box
from harness.model.flow import Cell, Endpoint, EndpointKind

if TYPE_CHECKING:
    from harness.labs.netns.lab import NetnsLab

COMMANDS = (
    ("iptables rules and counters", "iptables-save -c", 4),
    ("ip6tables rules and counters", "ip6tables-save -c", 6),
    ("legacy iptables rules and counters", "iptables-legacy-save -c", 4),
    ("legacy ip6tables rules and counters", "ip6tables-legacy-save -c", 6),
    ("ipsets", "ipset save", 0),
    ("nftables", "nft -s list ruleset", 0),
    ("connection tracking, IPv4", "conntrack -L -f ipv4", 4),
    ("connection tracking, IPv6", "conntrack -L -f ipv6", 6),
)


def collect(lab: NetnsLab, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
    """From the nodes of every pod and node in these cells: rules, sets, connections, engine log."""
    wanted = [
        (node, *command)
        for node in nodes_of(lab, cells)
        for command in COMMANDS
        if command[2] in (0, *lab.families)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda w: _ask(lab, w[0], w[1], w[2]), wanted))
    for node in nodes_of(lab, cells):
        if node in lab.engines:
            engine = lab.engines[node]
            found.append(
                Evidence(
                    "the engine's log", node, " ".join(engine.process.argv), engine.complaints()
                )
            )
    return tuple(item for item in found if item.text.strip())


def nodes_of(lab: NetnsLab, cells: Sequence[Cell]) -> list[str]:
    """The nodes whose rules decide these cells, in the lab's order."""
    names: set[str | None] = set()
    for cell in cells:
        for end in (cell.source, cell.target):
            names |= set(_nodes(lab, end))
    return [name for name in lab.node_names if name in names]


def _nodes(lab: NetnsLab, end: Endpoint) -> list[str | None]:
    match end.kind:
        case EndpointKind.NODE:
            return [end.name]
        case EndpointKind.POD:
            pod = lab.world.pods.get((end.namespace, end.name))
            return [pod.node] if pod else []
        case EndpointKind.SERVICE:
            service = lab.world.services.get((end.namespace, end.name))
            return [pod.node for pod in lab.world.backends(service)] if service else []
    return []


def _ask(lab: NetnsLab, node: str, title: str, command: str) -> Evidence:
    try:
        done = lab.holder.run(node_box(node), command.split(), timeout=20)
        text = done.out or done.err
        if done.code == 127:  # the tool is not there: nobody has used it
            text = ""
    except LabError as error:
        text = f"(not to be had: {error})"
    return Evidence(title, node, command, text)
