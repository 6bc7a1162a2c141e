"""A reachability matrix as a page of its own: a drawing, the matrix, and every connection."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from harness.desk.groups import Group
from harness.desk.reach import Matrix
from harness.model.fast import Connection
from harness.model.portsets import ALL_PORTS, NO_PORTS, text
from harness.report import graph, html
from harness.report.document import Document, Heading, Paragraph, Picture, Table

#: Groups above which a matrix of squares is no longer readable, and connections that are listed.
MOST_GROUPS, MOST_ROWS = 60, 2000

# class of the style sheet -> what the square means
_SQUARES = {
    "al": "every port",
    "so": "some ports",
    "dn": "no port",
    "un": "left to the implementation",
}


def as_html(matrix: Matrix) -> str:
    """One HTML file that needs nothing else, and runs nothing."""
    page = Document("Who reaches whom")
    page.add(Paragraph(_summary(matrix)))
    drawn = graph.alone(_pairs(matrix))
    if drawn:
        page.add(Picture(drawn))
    page.add(Heading("Matrix"))
    if len(matrix.groups) <= MOST_GROUPS:
        page.add(Picture(_squares(matrix)))
    else:
        page.add(Paragraph(f"More than {MOST_GROUPS} groups: the list below has them all."))
    rows = list(_rows(matrix))
    page.add(Heading("What is allowed"))
    if len(rows) > MOST_ROWS:
        left = len(rows) - MOST_ROWS
        page.add(Paragraph(f"The first {MOST_ROWS}; {left} more are in the JSON and CSV forms."))
    page.add(Table(("From", "To", "Ports", "Left to the implementation"), tuple(rows[:MOST_ROWS])))
    return html.render_document(page, kicker="NetworkPolicy: what the policies say")


def _summary(matrix: Matrix) -> str:
    pods = sum(len(group.members) for group in matrix.groups if not group.outside)
    inside = sum(not group.outside for group in matrix.groups)
    open_ = sum(bool(c.allow) for c in matrix.cells.values())
    return (
        f"{pods} pods in {inside} groups that no policy can tell apart, and "
        f"{len(matrix.groups) - inside} kinds of address outside of the cluster. Of "
        f"{len(matrix.cells)} pairs, {open_} may connect on some port."
    )


def _pairs(matrix: Matrix) -> dict[graph.Pair, graph.Reach]:
    return {
        (_node(matrix.groups[i]), _node(matrix.groups[j])): graph.Reach(bool(c.allow), "agrees")
        for (i, j), c in matrix.cells.items()
        if i != j
    }


def _node(group: Group) -> str:
    """As the drawing knows endpoints: ``namespace/name``, ``external:name``."""
    if group.outside:
        return f"external:{group.name.removeprefix('outside: ')}"
    return f"{group.members[0].namespace}/{group.name.partition('/')[2]}"


def _square(connection: Connection) -> str:
    if connection.allow == ALL_PORTS:
        return "al"
    if connection.allow != NO_PORTS:
        return "so"
    return "un" if connection.undefined else "dn"


def _squares(matrix: Matrix) -> Markup:
    """The matrix as a table; every square has its meaning in words as well."""
    names = [str(group) for group in matrix.groups]
    head = Markup().join(
        Markup('<th scope=col title="{0}"><span>{0}</span></th>').format(name) for name in names
    )
    rows = Markup().join(
        Markup('<tr><th scope=row title="{0}"><span>{0}</span></th>{1}</tr>').format(
            name, Markup().join(_cell(matrix, i, j) for j in range(len(names)))
        )
        for i, name in enumerate(names)
    )
    legend = Markup().join(
        Markup('<li><span class="mk {}"></span>{}</li>').format(css, meaning)
        for css, meaning in _SQUARES.items()
    )
    return Markup(
        "<ul class=legend>{}</ul>"
        '<div class="mx scroll" tabindex=0 role=region aria-label="Matrix"><table>'
        "<thead><tr><th class=corner scope=col>from / to</th>{}</tr></thead>"
        "<tbody>{}</tbody></table></div>"
    ).format(legend, head, rows)


def _cell(matrix: Matrix, i: int, j: int) -> Markup:
    connection = matrix.cells.get((i, j))
    if connection is None:
        return Markup("<td></td>")
    css = _square(connection)
    meaning = text(connection.allow) if css == "so" else _SQUARES[css]
    told = f"{matrix.groups[i]} to {matrix.groups[j]}: {meaning}"
    return Markup('<td title="{}"><span class="mk {}"><b>{}</b></span></td>').format(
        told, css, meaning
    )


def _rows(matrix: Matrix) -> Iterator[tuple[str, ...]]:
    for (i, j), connection in matrix.cells.items():
        if connection.allow or connection.undefined:
            left = ""
            if connection.undefined:
                left = f"{text(connection.undefined)} ({matrix.reason(i, j)})"
            allowed = text(connection.allow) if connection.allow else "none"
            yield str(matrix.groups[i]), str(matrix.groups[j]), allowed, left
