"""The cells of a step as tables, expected against observed: one table for each way of asking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from markupsafe import Markup, escape

from harness.report.shape import CellRecord, StepRecord
from harness.report.words import sign, way

# A larger table helps nobody: only its rows and columns with something to see are kept.
LIMIT = 40

_OTHERS = {"node": "nodes", "external": "outside"}


def tables(step: StepRecord) -> list[Markup]:
    """HTML of each matrix. ``data-c`` of a cell is its index in ``step.cells``."""
    ways: dict[tuple[str, int, str, int], list[tuple[int, CellRecord]]] = {}
    for index, cell in enumerate(step.cells):
        key = (cell.protocol, cell.port, cell.via, cell.family)
        ways.setdefault(key, []).append((index, cell))
    order = {str(pod["name"]): n for n, pod in enumerate(step.pods)}
    return [_table(way(*key), cells, order) for key, cells in ways.items()]


def group_of(endpoint: str) -> tuple[str, str]:
    """``(group, name in it)`` of an endpoint: pods and Services by namespace, others by kind."""
    prefix, colon, rest = endpoint.partition(":")
    if colon and prefix in _OTHERS:
        return _OTHERS[prefix], rest
    namespace, _, name = endpoint.removeprefix("svc:").partition("/")
    return namespace, name


def _table(title: str, cells: list[tuple[int, CellRecord]], order: dict[str, int]) -> Markup:
    shown = cells
    sources = _ordered((c.source for _, c in cells), order)
    targets = _ordered((c.target for _, c in cells), order)
    note = ""
    if max(len(sources), len(targets)) > LIMIT:
        shown = [(i, c) for i, c in cells if c.finding != "agrees"] or cells[:LIMIT]
        sources = _ordered((c.source for _, c in shown), order)[:LIMIT]
        targets = _ordered((c.target for _, c in shown), order)[:LIMIT]
        note = (
            f"Part of {len(cells):,} cells: rows and columns with something to see, "
            f"at most {LIMIT} of each."
        )
    at = {(c.source, c.target): (i, c) for i, c in cells}
    head, names = [], []
    for group, members in _grouped(targets):
        # A name that its columns have no room for stands upright, as theirs do.
        upright = " class=v" if len(group) > 3 * len(members) else ""
        head.append(
            f'<th scope=colgroup colspan={len(members)}{upright}><span title="{escape(group)}">'
            f"<bdi>{escape(group)}</bdi></span></th>"
        )
        for n, name in enumerate(members):
            start = " class=g" if n == 0 else ""
            names.append(
                f'<th scope=col{start}><span title="{escape(name)}"><bdi>{escape(name)}</bdi>'
                f"</span></th>"
            )
    rows = []
    columns = [(t, n == 0) for _, ms in _grouped_full(targets) for n, t in enumerate(ms)]
    for group, members in _grouped_full(sources):
        for n, source in enumerate(members):
            row = ["<tr class=g>" if n == 0 else "<tr>"]
            if n == 0:
                row.append(
                    f"<th scope=rowgroup rowspan={len(members)}><bdi>{escape(group)}</bdi></th>"
                )
            name = escape(group_of(source)[1])
            row.append(f'<th scope=row><span title="{name}"><bdi>{name}</bdi></span></th>')
            for target, first in columns:
                row.append(_cell(at.get((source, target)), first))
            row.append("</tr>")
            rows.append("".join(row))
    return Markup(  # noqa: S704  # every name above went through escape
        f"<figure class=mx><table><caption>{escape(title)}"
        + (f"<small>{escape(note)}</small>" if note else "")
        + "</caption><thead>"
        f"<tr><td colspan=2 rowspan=2 class=corner><span>from ↓ to →</span></td>{''.join(head)}"
        f"</tr><tr>{''.join(names)}</tr></thead><tbody>{''.join(rows)}</tbody></table></figure>"
    )


def _cell(found: tuple[int, CellRecord] | None, first: bool) -> str:
    start = " g" if first else ""
    if found is None:
        return f'<td class="no{start}"></td>'
    index, cell = found
    mark = sign(cell)
    css = mark.css
    word = mark.word
    if cell.finding == "undefined":
        css += " yes" if cell.observed == "allowed" else ""
        word += f", seen {cell.observed}"
    return f'<td data-c={index} class="{css}{start}"><b>{escape(word)}</b></td>'


def _ordered(names: Iterable[str], order: dict[str, int]) -> list[str]:
    """Distinct names: pods in the order of the step, then the others; groups kept together."""
    distinct = list(dict.fromkeys(names))
    distinct.sort(key=lambda name: order.get(name, len(order)))
    groups: dict[str, list[str]] = {}
    for name in distinct:
        groups.setdefault(group_of(name)[0], []).append(name)
    return [name for members in groups.values() for name in members]


def _grouped_full(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    for group, members in groupby(names, key=lambda name: group_of(name)[0]):
        yield group, list(members)


def _grouped(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    for group, members in _grouped_full(names):
        yield group, [group_of(member)[1] for member in members]
