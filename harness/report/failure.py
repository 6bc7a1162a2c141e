"""A scenario that went wrong, in words: for the terminal, JUnit and whoever reads a log."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.shape import CellRecord, ScenarioRecord, StepRecord

#: Findings that fail a scenario, and the one that makes it an error, as people read them.
WRONG = {
    "leak": "LEAK",
    "outage": "OUTAGE",
    "flaky": "FLAKY",
    "unknown": "UNKNOWN",
}
CELLS = 6  # of one kind that are told in full; the record and the report have all of them
LINES = 15  # of one piece of evidence


def headline(record: ScenarioRecord) -> str:
    """One line: what went wrong first, and how much of it there is."""
    wrong = [cell for step in record.steps for cell in step.cells if cell.finding in WRONG]
    if not wrong:
        failed = (c for s in record.steps for c in s.checks if c.get("outcome") != "passed")
        check = next(failed, None)
        told = f"{check['name']}: {check.get('text', check['outcome'])}" if check else ""
        return (record.message or told or record.outcome).partition("\n")[0]
    first = wrong[0]
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{first.finding}: {name(first)} expected {first.expected}, {seen(first)}{more}"


def name(cell: CellRecord) -> str:
    """The cell as people type it, see :class:`harness.model.flow.Cell`."""
    via = "" if cell.via in ("pod-ip", "external-ip") else f" by {cell.via}"
    family = " (IPv6)" if cell.family == 6 else ""
    return f"{cell.source} -> {cell.target}:{cell.port}/{cell.protocol}{via}{family}"


def seen(cell: CellRecord) -> str:
    """What was observed of it, and how often."""
    if not cell.outcomes:
        return "never probed"
    total = sum(cell.outcomes.values())
    times = cell.outcomes.get(cell.observed, 0)
    often = "" if total == 1 else f" {times} of {total} times"
    others = [f"{o} {n}" for o, n in cell.outcomes.items() if o != cell.observed]
    return f"observed {cell.observed}{often}" + (f" (else {', '.join(others)})" if others else "")


def text(record: ScenarioRecord) -> str:
    """The whole story: who, to what, expected and why, observed how often and for how long, the
    policies, the evidence, and the command that runs just this scenario again."""
    return "\n".join(_lines(record))


def _lines(record: ScenarioRecord) -> Iterator[str]:
    yield f"{record.id}: {record.title}"
    if record.message:
        yield record.message
    for number, step in enumerate(record.steps, start=1):
        wrong = [cell for cell in step.cells if cell.finding in WRONG]
        failed = [check for check in step.checks if check.get("outcome") != "passed"]
        if not wrong and not failed:
            continue
        yield ""
        yield f'Step {number} of {len(record.steps)}, "{step.title}"' + (
            f": {len(wrong)} of {len(step.cells)} cells are not as expected." if wrong else ":"
        )
        if step.why:
            yield f"  why it should be so: {step.why}"
        yield from _cells(step, wrong)
        for check in failed:
            yield f"  {check['name']}: {check['outcome']}"
            yield from _indented(check.get("text", ""), "    ")
        if step.policies.strip():
            yield ""
            yield "  policies in force:"
            yield from _indented(step.policies, "    ")
        for piece in step.evidence:
            yield ""
            where = f", {piece['node']}" if piece["node"] else ""
            yield f"  {piece['title']}{where}: $ {piece['command']}"
            yield from _indented(piece["text"], "    ", LINES)
    if record.rerun:
        yield ""
        yield "Run just this again:"
        yield f"  {record.rerun}"


def _cells(step: StepRecord, wrong: list[CellRecord]) -> Iterator[str]:
    places = {
        pod["name"]: f" ({', '.join(pod.get('ips') or ['no address'])} on {pod.get('node') or '?'})"
        for pod in step.pods
    }
    for finding, word in WRONG.items():
        found = [cell for cell in wrong if cell.finding == finding]
        for cell in found[:CELLS]:
            yield ""
            yield f"  {word}  {name(cell)}"
            for end in (cell.source, cell.target):
                if end in places:
                    yield f"    {end}{places[end]}"
            yield f"    expected {cell.expected}: {_why(step, cell)}"
            yield f"    {seen(cell)}{_how_long(step)}" + (
                f"; answered by {cell.backend}" if cell.backend else ""
            )
            if cell.note:
                yield f"    {cell.note}"
        if len(found) > CELLS:
            yield f"  … and {len(found) - CELLS} more of {word}"


def _why(step: StepRecord, cell: CellRecord) -> str:
    if cell.because is None or cell.because >= len(step.reasons):
        return cell.reason
    reason = step.reasons[cell.because]
    parts = [
        b["text"] + (f" [{b['source']}]" if b.get("source") else "")
        for b in reason.get("because", ())
        # A denial is one side's: what the other side says does not matter.
        if b["verdict"] == cell.expected or cell.expected != "deny"
    ]
    return "; ".join(parts) or reason.get("reason", "")


def _how_long(step: StepRecord) -> str:
    ended = step.timeline.get("ended")
    applied = step.timeline.get("applied", 0.0)
    return f" in {ended - applied:.1f} s" if ended is not None else ""


def _indented(text: str, indent: str, limit: int = 10_000) -> Iterator[str]:
    lines = text.rstrip().splitlines()
    for line in lines[:limit]:
        yield indent + line
    if len(lines) > limit:
        yield f"{indent}… {len(lines) - limit} more lines are in the record"
