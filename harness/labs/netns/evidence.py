"""What the data planes of the nodes in question say of themselves, verbatim."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.labs.base import Evidence, LabError
from harness.labs.netns.client import Holder
from harness.labs.netns.topology import node_box
from harness.model.flow import Cell
from harness.model.routing import nodes_of

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
    nodes = nodes_of(lab.world, cells, lab.node_names)
    found = data_planes(lab.holder, nodes, lab.families)
    for node in nodes:
        if node in lab.engines:
            engine = lab.engines[node]
            found.append(
                Evidence(
                    "the engine's log", node, " ".join(engine.process.argv), engine.complaints()
                )
            )
    return tuple(item for item in found if item.text.strip())


def data_planes(holder: Holder, nodes: Sequence[str], families: Collection[int]) -> list[Evidence]:
    """Rules, sets and connections of these nodes; of a tool that is not there, an empty text."""
    wanted = [
        (node, title, command)
        for node in nodes
        for title, command, family in COMMANDS
        if family in (0, *families)
    ]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda one: _ask(holder, *one), wanted))


def _ask(holder: Holder, node: str, title: str, command: str) -> Evidence:
    try:
        done = holder.run(node_box(node), command.split(), timeout=20)
        text = done.out or done.err
        if done.code == 127:  # the tool is not there: nobody has used it
            text = ""
    except LabError as error:
        text = f"(not to be had: {error})"
    return Evidence(title, node, command, text)
