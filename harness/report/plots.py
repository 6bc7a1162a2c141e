"""Latency as a picture: matplotlib draws it, and its colours are left to the page's style sheet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from xml.etree import ElementTree

from markupsafe import Markup

from harness.report.summary import Distribution, duration

_SVG = "{http://www.w3.org/2000/svg}"
POINTS = 250
_TICKS = tuple(m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5))


def ecdf(curves: Mapping[str, Distribution], label: str, *, width: float = 6.4) -> Markup:
    """Share of cells enforced (vertical) within a time (horizontal, logarithmic), as inline SVG.

    ``curves``: CSS class -> its values; those without values are left out, and without any there
    is no picture. The SVG holds no style of its own, so that it passes a strict content security
    policy and follows light and dark.
    """
    drawn = {css: of.values for css, of in curves.items() if of.values}
    if not drawn:
        return Markup()
    # Lazily: importing it takes longer than rendering a small report. No pyplot: no global state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "netpol", "font.size": 10}
    with rc_context(settings):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        low = min(v[0] for v in drawn.values())
        high = max(v[-1] for v in drawn.values())
        floor = max(low, 0.0005)
        for css, values in drawn.items():
            line = axes.ecdf([max(v, floor) for v in _thinned(values)])
            line.set_gid(f"curve {css}")
            line.set_linewidth(2)
        axes.set_xscale("log")
        axes.set_xlim(floor * 0.8, max(high, floor * 2) * 1.25)
        ticks = [t for t in _TICKS if floor * 0.8 <= t <= max(high, floor * 2) * 1.25]
        if len(ticks) > 8:
            ticks = [t for t in ticks if f"{t:.0e}".startswith("1")]
        axes.set_xticks(ticks, [duration(t) for t in ticks])
        axes.set_xticks([], minor=True)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.5, 0.9, 1], ["0", "50 %", "90 %", "100 %"])
        axes.grid(visible=True, linewidth=0.6)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), label)


def _thinned(values: tuple[float, ...]) -> tuple[float, ...]:
    """As many quantiles as a picture can show, the ends among them."""
    if len(values) <= POINTS:
        return values
    last = len(values) - 1
    return tuple(values[round(i * last / (POINTS - 1))] for i in range(POINTS))


def _inline(svg: str, label: str) -> Markup:
    """The drawing alone: no prolog, no metadata, no style; ids of its own become classes."""
    root = ElementTree.fromstring(svg)  # noqa: S314  # matplotlib wrote it a moment ago
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    kept = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for name, value in _declarations(element.attrib.pop("style", "")):
            if name not in ("font", "font-family"):
                element.set(name, value)
        given = element.attrib.get("id", "")
        if given and given not in kept:
            del element.attrib["id"]
            element.set("class", given.partition("_")[0])
        for key in [k for k in element.attrib if "xlink" in k]:
            element.set("href", element.attrib.pop(key))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("class", "plot")
    text = re.sub(r"(\.\d)\d+", r"\1", ElementTree.tostring(root, encoding="unicode"))
    return Markup(text)  # noqa: S704  # serialised, and so escaped, by ElementTree


def _declarations(style: str) -> list[tuple[str, str]]:
    pairs = (part.partition(":") for part in style.split(";") if ":" in part)
    return [(name.strip(), value.strip()) for name, _, value in pairs]
