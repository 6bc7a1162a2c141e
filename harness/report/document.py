"""A small document of headings, paragraphs, lists and tables, and its three forms.

Comparisons and summaries are put together once and shown as plain text, as Markdown (for a job's
summary or an issue) and as HTML. Names out of a record stay text in all of them.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from harness.report.words import FINDING_SIGNS, OUTCOME_SIGNS, clean

COLUMNS = 100  # of plain text; tables take what they need, but no cell more than CELL
CELL = 72


@dataclass(frozen=True, slots=True)
class Sign:
    """A word with its glyph: ``kind`` is an outcome, a finding, or a class of the style sheet."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list; an item that is a pair leads with a sign."""

    items: tuple[str | tuple[Sign, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """``numeric`` columns are set to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str | Sign, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """Inline SVG. Text and Markdown leave it out: what it shows is in a table as well."""

    svg: Markup


Block = Heading | Paragraph | Items | Table | Picture


@dataclass(slots=True)
class Document:
    """``title`` is the first heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        self.blocks += blocks


# --- Plain text ---


def to_text(document: Document) -> str:
    """For a terminal: no colours, and no control characters out of names."""
    parts = [clean(document.title), "=" * _width(clean(document.title))]
    for block in document.blocks:
        match block:
            case Heading(text):
                parts += ["", clean(text), "-" * _width(clean(text))]
            case Paragraph(text):
                parts += ["", *_wrapped(clean(text))]
            case Items(items):
                parts.append("")
                for item in items:
                    parts += _wrapped(_plain(item), "  ", "      ")
            case Table():
                parts += ["", *_text_table(block)]
    return "\n".join(parts) + "\n"


def _wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text_table(table: Table) -> list[str]:
    rows = [[clean(h) for h in table.head]]
    rows += [[_cut(_plain(cell)) for cell in row] for row in table.rows]
    widths = [max(_width(row[n]) for row in rows) for n in range(len(table.head))]
    out = []
    for number, row in enumerate(rows):
        cells = []
        for n, cell in enumerate(row):
            gap = " " * (widths[n] - _width(cell))
            cells.append(gap + cell if n in table.numeric else cell + gap)
        out.append("  ".join(cells).rstrip())
        if number == 0:
            out.append("  ".join("-" * w for w in widths))
    return out


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _plain(item: str | Sign | tuple[Sign, str]) -> str:
    if isinstance(item, Sign):
        return f"{_glyph(item)}{clean(item.text)}"
    if isinstance(item, tuple):
        return f"{_plain(item[0])}  {clean(item[1])}"
    return clean(item)


def _glyph(sign: Sign) -> str:
    known = OUTCOME_SIGNS.get(sign.kind)
    return f"{known.glyph} " if known else ""


def _width(text: str) -> int:
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else unicodedata.combining(c) == 0
        for c in text
    )


# --- Markdown ---


def to_markdown(document: Document) -> str:
    """GitHub's Markdown. Markup in names is escaped."""
    parts = [f"# {_md(document.title)}"]
    for block in document.blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {_md(text)}")
            case Paragraph(text):
                parts.append(_md(text))
            case Items(items):
                parts.append("\n".join(f"- {_md_cell(item)}" for item in items))
            case Table(head, rows, numeric):
                lines = ["| " + " | ".join(map(_md, head)) + " |"]
                marks = ("--:" if n in numeric else "---" for n in range(len(head)))
                lines.append("| " + " | ".join(marks) + " |")
                lines += ["| " + " | ".join(map(_md_cell, row)) + " |" for row in rows]
                parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _md_cell(item: str | Sign | tuple[Sign, str]) -> str:
    if isinstance(item, Sign):
        text = f"{_glyph(item)}{_md(item.text)}"
        return f"**{text}**" if item.kind in ("failed", "error", "xpassed") else text
    if isinstance(item, tuple):
        return f"{_md_cell(item[0])} {_md(item[1])}"
    return _md(item)


def _md(text: str) -> str:
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A mention would call somebody who is only a name in a record.
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", text).replace("@", "&#64;")


# --- HTML ---


def to_html(document: Document) -> Markup:
    """The blocks as HTML, without the page around them; the title is left to the page."""
    return Markup("\n").join(_html(block) for block in document.blocks)


def _html(block: Block) -> Markup:
    match block:
        case Heading(text, level):
            return Markup("<h{0}>{1}</h{0}>").format(level, text)
        case Paragraph(text):
            return Markup("<p class=lead>{}</p>").format(text)
        case Items(items):
            lines = (Markup("<li>{}</li>").format(_html_cell(item)) for item in items)
            return Markup("<ul class=plain>{}</ul>").format(Markup().join(lines))
        case Picture(svg):
            return Markup("<figure class=wide>{}</figure>").format(svg)
        case Table():
            return _html_table(block)


def _html_table(table: Table) -> Markup:
    def css(n: int) -> Markup:
        return Markup(" class=num") if n in table.numeric else Markup()

    head = Markup().join(
        Markup("<th scope=col{}>{}</th>").format(css(n), text) for n, text in enumerate(table.head)
    )
    rows = Markup().join(
        Markup("<tr>{}</tr>").format(
            Markup().join(
                (
                    Markup("<td{}>{}</td>").format(css(n), _html_cell(cell))
                    if n
                    else Markup("<th scope=row>{}</th>").format(_html_cell(cell))
                )
                for n, cell in enumerate(row)
            )
        )
        for row in table.rows
    )
    return Markup(
        '<div class=scroll tabindex=0 role=region aria-label="{}"><table class=figures>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(f"Table: {', '.join(h for h in table.head if h)}", head, rows)


def _html_cell(item: str | Sign | tuple[Sign, str]) -> Markup:
    if isinstance(item, Sign):
        if item.kind in FINDING_SIGNS:
            return Markup('<span class="chip {}">{}</span>').format(
                FINDING_SIGNS[item.kind].css, item.text
            )
        if item.kind in OUTCOME_SIGNS:
            return Markup('<span class="oc {}">{}</span>').format(item.kind, item.text)
        return Markup('<span class="key {}"></span>{}').format(item.kind, item.text)
    if isinstance(item, tuple):
        return Markup("{} {}").format(_html_cell(item[0]), Markup("<bdi>{}</bdi>").format(item[1]))
    return Markup("<bdi>{}</bdi>").format(item) if item else escape(item)


__all__ = [
    "Block",
    "Document",
    "Heading",
    "Items",
    "Paragraph",
    "Picture",
    "Sign",
    "Table",
    "to_html",
    "to_markdown",
    "to_text",
]
