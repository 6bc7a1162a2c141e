"""One run in words: for a terminal, a job's summary, an issue."""

from __future__ import annotations

from harness.report import summary
from harness.report.document import Document, Heading, Items, Paragraph, Sign, Table
from harness.report.pageview import GROUPS, PageView
from harness.report.shape import RunRecord
from harness.report.summary import plural
from harness.report.words import OUTCOME_SIGNS, gist


def document(record: RunRecord) -> Document:
    """Verdict, what went wrong, features, latency, what is left open, what was not tested."""
    page = PageView(record)
    out = Document(f"NetworkPolicy conformance: {page.title}")
    if record.damage:
        out.add(Items(tuple((Sign("damaged", "error"), text) for text in record.damage)))
    out.add(Paragraph(f"{page.verdict.word}: {page.verdict.sentence}"))
    out.add(Paragraph(" · ".join(f"{name} {value}" for name, value in page.facts)))
    _wrong(page, out)
    _features(page, out)
    if page.latency_rows:
        head = ("Turned to", "cells", "median", "90 %", "99 %", "longest")
        rows = tuple((name, *figures) for name, _, figures in page.latency_rows)
        out.add(Heading("Enforcement latency"), Table(head, rows, frozenset(range(1, 6))))
    if page.profile:
        seen = tuple(
            (reason, ", ".join(f"{name} {n}" for name, n in counts.most_common()))
            for reason, counts in page.profile.items()
        )
        out.add(
            Heading("Left to the implementation"),
            Table(("What is left open", "Cells by what was seen"), seen),
        )
    if record.not_tested:
        told = tuple((item["what"], item["why"]) for item in record.not_tested)
        out.add(Heading("Not tested"), Table(("What", "Why"), told))
    return out


def _wrong(page: PageView, out: Document) -> None:
    items: list[str | tuple[Sign, str]] = []
    for group in page.wrong_groups[:GROUPS]:
        cell = group.cells[0]
        more = f" and {len(group.cells) - 1} more" if len(group.cells) > 1 else ""
        who = f"{cell.source} -> {cell.target}:{cell.port}/{cell.protocol}{more}"
        where = f"{group.scenario.id}, step {group.number}"
        why = f"{who}: expected {cell.expected}, for {group.why} ({where})"
        items.append((Sign(group.finding, group.finding), why))
    for view in page.unmeasured[:GROUPS]:
        first = gist(view.scenario.message, 1).partition("\n")[0]
        word = OUTCOME_SIGNS[view.scenario.outcome].word
        items.append((Sign(word, view.scenario.outcome), f"{first} ({view.scenario.id})"))
    if items:
        out.add(Heading("What went wrong"), Items(tuple(items)))
    if len(page.wrong_groups) > GROUPS:
        out.add(Paragraph(f"and {plural(len(page.wrong_groups) - GROUPS, 'more finding')}"))


def _features(page: PageView, out: Document) -> None:
    rows: list[tuple[str | Sign, ...]] = []
    for group in page.feature_groups:
        for row in group.rows:
            if not row.total:
                continue
            scenarios = [s for s in page.record.scenarios if row.label in s.features]
            findings = summary.by_finding(scenarios)
            passed = Sign(f"{row.good}/{row.ran}" if row.ran else "skipped", row.worst)
            rows.append((group.name, row.label, passed, summary.wrong_cells(findings)))
    if rows:
        head = ("Group", "Feature", "Passed", "Wrong cells")
        out.add(Heading("Features"), Table(head, tuple(rows)))
