"""A reachability matrix as text, CSV, JSON and DOT."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping

from harness.desk.reach import Connection, Matrix, Stretch
from harness.model.flow import Verdict

SCHEMA = "netpol-matrix/1"
LEGEND = "+ every port   o some ports   . no port   ? left to the implementation"


def symbol(connection: Connection | None) -> str:
    if connection is None:
        return " "
    if connection.all_allowed:
        return "+"
    if connection.all_denied:
        return "."
    return "o" if connection.stretches[Verdict.ALLOW] else "?"


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
        _detail(connection)
        for connection in matrix.cells.values()
        if symbol(connection) in ("o", "?") or connection.stretches[Verdict.UNDEFINED]
    ]
    if details:
        lines += ["", *details]
    return "\n".join(lines) + "\n"


def _detail(connection: Connection) -> str:
    text = f"{connection.source.name} -> {connection.target.name}: {connection.text(Verdict.ALLOW)}"
    open_ = connection.stretches[Verdict.UNDEFINED]
    if open_:
        text += f"; left to the implementation: {connection.text(Verdict.UNDEFINED)}"
        text += f" ({connection.why[open_[0]].reason})"
    return text


def as_csv(matrix: Matrix) -> str:
    """A line for each pair of groups."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["from", "from_count", "to", "to_count", "allowed", "undefined"])
    for connection in matrix.cells.values():
        writer.writerow(
            [
                connection.source.name,
                len(connection.source.members),
                connection.target.name,
                len(connection.target.members),
                connection.text(Verdict.ALLOW),
                connection.text(Verdict.UNDEFINED),
            ]
        )
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
                        **{v: [_stretch(s) for s in c.stretches[v]] for v in Verdict},
                        "reasons": sorted({d.reason for d in c.why.values() if d.reason}),
                    }
                    for (i, j), c in matrix.cells.items()
                ],
            },
            indent=1,
        )
        + "\n"
    )


def _stretch(stretch: Stretch) -> dict[str, object]:
    return {"protocol": stretch.protocol, "first": stretch.first, "last": stretch.last}


def as_dot(matrix: Matrix) -> str:
    """A Graphviz digraph: an edge for each pair of which something is allowed or left open."""
    lines = ["digraph reachability {", "  rankdir=LR;", "  node [shape=box];"]
    for i, group in enumerate(matrix.groups):
        shape = ", style=dashed" if group.outside else ""
        lines.append(f"  g{i} [label={_quoted(str(group))}{shape}];")
    for (i, j), connection in matrix.cells.items():
        if connection.stretches[Verdict.ALLOW]:
            label = "" if connection.all_allowed else connection.text(Verdict.ALLOW)
            lines.append(f"  g{i} -> g{j} [label={_quoted(label)}];")
        if connection.stretches[Verdict.UNDEFINED]:
            label = f"? {connection.text(Verdict.UNDEFINED)}"
            lines.append(f"  g{i} -> g{j} [label={_quoted(label)}, style=dotted];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


FORMS: Mapping[str, Callable[[Matrix], str]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
    "dot": as_dot,
}
