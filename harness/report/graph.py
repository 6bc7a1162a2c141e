"""Who reaches whom, before and after a step, as SVG; networkx lays it out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup, escape

from harness.report.matrix import group_of
from harness.report.shape import StepRecord
from harness.report.summary import FINDINGS
from harness.report.words import FINDING_SIGNS

WIDTH, HEIGHT = 370, 320
# Beyond this many endpoints lines are a thicket: then namespaces are drawn instead of pods.
LIMIT = 24

Pair = tuple[str, str]
Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Reach:
    """What was seen of one pair in one step: whether anything got through, the worst finding."""

    open: bool
    finding: str


def reach(step: StepRecord) -> dict[Pair, Reach]:
    """Each pair that was asked, over all ports and ways; Services are left out, pods are not."""
    found: dict[Pair, Reach] = {}
    for cell in step.cells:
        if cell.target.startswith("svc:"):
            continue
        pair = cell.source, cell.target
        was = found.get(pair)
        is_open = cell.observed in ("allowed", "wrong-backend")
        finding = cell.finding
        if was is not None:
            is_open |= was.open
            finding = min((was.finding, finding), key=_badness)
        found[pair] = Reach(is_open, finding)
    names = {name for pair in found for name in pair}
    return found if len(names) <= LIMIT else _by_group(found)


def pictures(before: StepRecord | None, after: StepRecord) -> list[Markup]:
    """SVG of the step before, where there is one, and of this one. None of them if too large."""
    now = reach(after)
    then = reach(before) if before else {}
    names = sorted({name for pair in (*then, *now) for name in pair})
    if not names or len(names) > LIMIT:
        return []
    laid = layout(tuple(names))
    opened = {p for p, r in now.items() if r.open and p in then and not then[p].open}
    closed = {p for p, r in now.items() if not r.open and p in then and then[p].open}
    out = []
    if then:
        out.append(_svg("Before", then, laid, set(), set()))
    out.append(_svg("After" if then else "Seen", now, laid, opened, closed))
    return out


def alone(pairs: dict[Pair, Reach]) -> Markup | None:
    """One picture that needs nothing of a page but its style; None if it would be too large.
    Of more endpoints than can be told apart their namespaces are drawn."""
    shown = pairs
    if len({name for pair in pairs for name in pair}) > LIMIT:
        shown = _by_group(pairs)
    names = sorted({name for pair in shown for name in pair})
    if not names or len(names) > LIMIT:
        return None
    return _HEADS + _svg("Who reaches whom", shown, layout(tuple(names)), set(), set())


_HEADS = Markup(
    "<svg class=defs width=0 height=0 aria-hidden=true><defs>"
    '<marker class=open id="arrow-open" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker></defs></svg>'
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where endpoints stand, and their groups: name -> centre and radius."""

    places: dict[str, Place]
    circles: dict[str, tuple[Place, float]]

    @property
    def top(self) -> float:
        return min(y - r for (_, y), r in self.circles.values()) - 38

    @property
    def height(self) -> float:
        return max(y + r for (_, y), r in self.circles.values()) + 22 - self.top


@lru_cache(maxsize=512)
def layout(names: tuple[str, ...]) -> Layout:
    """Groups on an ellipse, the members of each on a circle."""
    import networkx as nx  # lazily: it takes longer than all the rest of a small report

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of(name)[0], []).append(name)
    rx, ry = WIDTH / 2 - 90, HEIGHT / 2 - 84
    centres = {next(iter(groups)): (WIDTH / 2, HEIGHT / 2)}
    radius = 92.0
    if len(groups) > 1:
        outer = nx.circular_layout(nx.empty_graph(list(groups)))
        # Two groups side by side, more of them with the first on top.
        turn = math.pi if len(groups) == 2 else -math.pi / 2
        centres = {
            group: (
                WIDTH / 2 + rx * float(x * math.cos(turn) - y * math.sin(turn)),
                HEIGHT / 2 + ry * float(x * math.sin(turn) + y * math.cos(turn)),
            )
            for group, (x, y) in outer.items()
        }
        nearest = min(math.dist(a, b) for a in centres.values() for b in centres.values() if a != b)
        radius = min(44.0, nearest / 2 - 22)
    places: dict[str, Place] = {}
    for group, members in groups.items():
        cx, cy = centres[group]
        inner = (
            nx.circular_layout(nx.empty_graph(members), scale=radius)
            if len(members) > 1
            else {members[0]: (0.0, 0.0)}
        )
        for member, (x, y) in inner.items():
            # A quarter turn puts the first on top.
            places[member] = (cx + float(y), cy - float(x))
    return Layout(places, {group: (centre, radius) for group, centre in centres.items()})


def _svg(
    title: str,
    pairs: dict[Pair, Reach],
    laid: Layout,
    opened: set[Pair],
    closed: set[Pair],
) -> Markup:
    count = sum(r.open for r in pairs.values())
    told = f"{title}: {count} of {len(pairs)} pairs get through"
    if opened or closed:
        told += f"; the step opened {len(opened)} and closed {len(closed)}"
    lines: list[tuple[int, str]] = []
    for pair, seen in pairs.items():
        css = _line_class(pair, seen, opened, closed)
        if not css:
            continue
        back = pair[1], pair[0]
        both = back in pairs and _line_class(back, pairs[back], opened, closed) == css
        if both and pair > back:
            continue
        lines.append((_rank(css), _line(laid.places[pair[0]], laid.places[pair[1]], css, both)))
    lines.sort()
    circles = "".join(_circle(g, *c) for g, c in laid.circles.items())
    nodes = "".join(
        _node(name, place, laid.circles[group_of(name)[0]][0])
        for name, place in laid.places.items()
    )
    return Markup(  # noqa: S704  # every name went through escape
        f"<figure class=gr><figcaption>{escape(told)}</figcaption>"
        f'<svg viewBox="0 {laid.top:.0f} {WIDTH} {laid.height:.0f}" role=img '
        f'aria-label="{escape(told)}">'
        f"{circles}{''.join(line for _, line in lines)}{nodes}</svg></figure>"
    )


def _line_class(pair: Pair, seen: Reach, opened: set[Pair], closed: set[Pair]) -> str:
    if seen.finding in FINDING_SIGNS and seen.finding not in ("undefined", "known-deviation"):
        return FINDING_SIGNS[seen.finding].css
    if pair in opened:
        return "new"
    if pair in closed:
        return "gone"
    return "open" if seen.open else ""


def _rank(css: str) -> int:
    """What is drawn later lies on top."""
    order = ("open", "gone", "new", "fl", "uk", "ou", "lk")
    return order.index(css) if css in order else len(order)


def _line(start: Place, end: Place, css: str, both: bool) -> str:
    (x1, y1), (x2, y2) = start, end
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    x1, y1, x2, y2 = x1 + ux * 7, y1 + uy * 7, x2 - ux * 7, y2 - uy * 7
    if both:
        return f'<path class="{css}" d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}"/>'
    # A one-way line bends to its right, so that it and its opposite lie apart.
    bend = min(18.0, length / 8)
    mx, my = (x1 + x2) / 2 - uy * bend, (y1 + y2) / 2 + ux * bend
    return f'<path class="{css} one" d="M{x1:.0f} {y1:.0f}Q{mx:.0f} {my:.0f} {x2:.0f} {y2:.0f}"/>'


def _circle(group: str, centre: Place, radius: float) -> str:
    x, y = centre
    return (
        f'<g class=ns><circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:.0f}"/>'
        f'<text x="{x:.0f}" y="{y - radius - 24:.0f}" text-anchor=middle>'
        f"{escape(_short(group, 24))}</text></g>"
    )


def _node(name: str, place: Place, centre: Place) -> str:
    """A dot, and its name on the far side from the middle of its group."""
    x, y = place
    group, short = group_of(name)
    side = x - centre[0]
    if not short:
        return f'<g><circle cx="{x:.0f}" cy="{y:.0f}" r=4 /></g>'
    if abs(side) < 8:
        anchor, tx, ty = " text-anchor=middle", x, y + (-8 if y <= centre[1] else 16)
    else:
        anchor, tx, ty = " text-anchor=end" if side < 0 else "", x + math.copysign(8, side), y + 3.5
    return (
        f'<g><title>{escape(f"{group}/{short}")}</title><circle cx="{x:.0f}" cy="{y:.0f}" r=4 />'
        f'<text x="{tx:.0f}" y="{ty:.0f}"{anchor}>{escape(_short(short, 14))}</text></g>'
    )


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _by_group(pairs: dict[Pair, Reach]) -> dict[Pair, Reach]:
    found: dict[Pair, list[Reach]] = {}
    for (source, target), seen in pairs.items():
        found.setdefault((group_of(source)[0] + "/", group_of(target)[0] + "/"), []).append(seen)
    return {
        pair: Reach(any(s.open for s in seen), _worst(s.finding for s in seen))
        for pair, seen in found.items()
        if pair[0] != pair[1]
    }


def _worst(findings: Iterable[str]) -> str:
    return min(findings, key=_badness)


def _badness(finding: str) -> int:
    return FINDINGS.index(finding) if finding in FINDINGS else -1
