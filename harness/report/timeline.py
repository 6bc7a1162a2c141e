"""One step in time, as SVG: when it was applied, first looked at, agreed, and how long it held.

Above the line a dot for each cell that turned to allow, below it one for each that turned to deny.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from harness.report.shape import CellRecord, StepRecord
from harness.report.summary import duration

WIDTH, MIDDLE, HEIGHT = 720, 30, 62
PHASES = (
    ("applied", "apply", "applying the change"),
    ("agreed", "settle", "until all cells agreed"),
    ("held", "hold", "the hold window"),
    ("ended", "end", "until the step ended"),
)
MARKS = (
    ("applied", "applied"),
    ("first_look", "first look"),
    ("agreed", "agreed"),
    ("held", "held"),
    ("ended", "ended"),
)


def timeline(step: StepRecord, turned: Iterable[CellRecord]) -> Markup:
    """The SVG, or nothing where the record has no times."""
    times = {k: v for k, v in step.timeline.items() if v >= 0}
    end = max(times.values(), default=0.0)
    if not end or times.keys() <= {"applied", "first_look"}:
        return Markup()  # the step did not get far enough for a picture
    parts, x = [], 0.0
    for key, css, text in PHASES:
        if key not in times:
            continue
        if key == "ended" and "agreed" not in times:
            css, text = "never", "the cells never came to agree"
        to = _x(times[key], end)
        if to > x:
            parts.append(
                f'<rect class="{css}" x="{x:.1f}" y="{MIDDLE - 4}" width="{to - x:.1f}" '
                f"height=8 rx=2><title>{text}</title></rect>"
            )
            x = to
    applied = times.get("applied", 0.0)
    for cell in turned:
        if cell.latency is None:
            continue
        # A latency counts from just before the change was sent; applying it ends a moment later.
        at = _x(min(end, cell.latency), end)
        y = MIDDLE - 12 if cell.expected == "allow" else MIDDLE + 12
        css = "al" if cell.expected == "allow" else "dn"
        parts.append(f'<circle class="{css}" cx="{at:.1f}" cy="{y}" r=2.5 />')
    for key in ("first_look", "agreed"):
        if key in times:
            at = _x(times[key], end)
            parts.append(f'<path class="{key}" d="M{at:.1f} {MIDDLE - 9}V{MIDDLE + 9}"/>')
    told = [f"{word} {duration(times[key])}" for key, word in MARKS if key in times]
    if "agreed" not in times and "ended" in times:
        told.append(f"never agreed in {duration(end - applied)}")
    label = "Timeline: " + ", ".join(told)
    return Markup(  # noqa: S704  # numbers and words of this module, and the label is escaped
        f'<figure class=tl><svg viewBox="0 0 {WIDTH} {HEIGHT - 10}" role=img '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(' · '.join(told))}</figcaption></figure>"
    )


def _x(seconds: float, end: float) -> float:
    return 4 + seconds / end * (WIDTH - 8)
