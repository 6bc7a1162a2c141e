"""A reachability matrix as text, CSV, JSON and DOT."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping

from harness.desk.reach import Matrix
from harness.model.fast import Connection
from harness.model.portsets import ALL_PORTS, NO_PORTS, Ports, difference, text, union

SCHEMA = "netpol-matrix/1"
LEGEND = "+ every port   o some ports   . no port   ? left to the implementation"


def symbol(connection: Connection | None) -> str:
    if connection is None:
        return " "
    if connection.allow == ALL_PORTS:
        return "+"
    if connection.allow == NO_PORTS:
        return "?" if connection.undefined else "."
    return "o"


def as_text(matrix: Matrix) -> str:
    """One character a cell, then the ports of the cells that are neither open nor shut."""
    names = [f"{i} {group}" for i, group in enumerate(matrix.groups, 1)]
    width = max(map(len, names))
    numbers = [str(i) for i in range(1, len(names) + 1)]
    cell = len(numbers[-1])
    lines = [f"{'from / to':<{width}}  {' '.join(n.rjust(cell) for n in numbers)}"]
    for i, name in enumerate(names):
        row = (symbol(matrix.cells.get((i, j))).rjust(cell) for j in range(len(names)))
        lines.append(f"{name:<{width}}  {' '.join(row)}".rstrip())
    lines += ["", LEGEND]
    details = [
        _detail(matrix, *place)
        for place, connection in matrix.cells.items()
        if symbol(connection) not in "+."
    ]
    if details:
        lines += ["", *details]
    return "\n".join(lines) + "\n"


def _detail(matrix: Matrix, i: int, j: int) -> str:
    connection = matrix.cells[i, j]
    line = f"{matrix.groups[i].name} -> {matrix.groups[j].name}: {text(connection.allow)}"
    if connection.undefined:
        line += f"; left to the implementation: {text(connection.undefined)}"
        line += f" ({matrix.reason(i, j)})"
    return line


def as_csv(matrix: Matrix) -> str:
    """A line for each pair of groups."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["from", "from_count", "to", "to_count", "allowed", "undefined"])
    for (i, j), connection in matrix.cells.items():
        source, target = matrix.groups[i], matrix.groups[j]
        ends = [source.name, len(source.members), target.name, len(target.members)]
        writer.writerow([*ends, text(connection.allow), text(connection.undefined)])
    return out.getvalue()


def as_json(matrix: Matrix) -> str:
    """Groups with their members; a cell names its groups by their place in that list."""
    return (
        json.dumps(
            {
                "schema": SCHEMA,
                "groups": [
                    {"name": group.name, "members": [str(member) for member in group.members]}
                    for group in matrix.groups
                ],
                "cells": [
                    {
                        "from": i,
                        "to": j,
                        "allow": _ports(c.allow),
                        "deny": _ports(difference(ALL_PORTS, union(c.allow, c.undefined))),
                        "undefined": _ports(c.undefined),
                        "reason": matrix.reason(i, j) if c.undefined else "",
                    }
                    for (i, j), c in matrix.cells.items()
                ],
            },
            indent=1,
        )
        + "\n"
    )


def _ports(ports: Ports) -> list[dict[str, object]]:
    return [{"protocol": p, "first": first, "last": last} for p, first, last in ports]


def as_dot(matrix: Matrix) -> str:
    """A Graphviz digraph: an edge for each pair of which something is allowed or left open."""
    lines = ["digraph reachability {", "  rankdir=LR;", "  node [shape=box];"]
    for i, group in enumerate(matrix.groups):
        shape = ", style=dashed" if group.outside else ""
        lines.append(f"  g{i} [label={_quoted(str(group))}{shape}];")
    for (i, j), connection in matrix.cells.items():
        if connection.allow:
            label = "" if connection.allow == ALL_PORTS else text(connection.allow)
            lines.append(f"  g{i} -> g{j} [label={_quoted(label)}];")
        if connection.undefined:
            label = f"? {text(connection.undefined)}"
            lines.append(f"  g{i} -> g{j} [label={_quoted(label)}, style=dotted];")
    return "\n".join([*lines, "}", ""])


def _quoted(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


FORMS: Mapping[str, Callable[[Matrix], str]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
    "dot": as_dot,
}
