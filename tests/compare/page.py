"""The comparison as one page with plots, out of its figures and the runs' records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.report import compare
from harness.report.document import Document, Heading, Paragraph, Table, to_markdown
from harness.report.record import RecordError, read

Json = dict[str, Any]
COLOURS = ("#2b5fa8", "#1b7f4b", "#b8860b", "#a8452b", "#7a3b8f", "#337777", "#884466")
TITLE = "Side by side"
NOTHING = compare.NOTHING
OWN = "enforcer"
BUSY = 0.2
WMEM_DEFAULT = 212_992  # the kernel's default
BY_HAND = ("Calico", "Weave", "kube-router")
KNOWN = """
Of others there are figures taken by hand, on 2 processors, on namespaces made by hand and with
another probe: medians in milliseconds, allow/deny, with no policy and with 1,000 of which 750
select the probed pod: weave-npc 31/10 and 29/23, Felix 30/16 and 108/112, kube-router 77/70 and
675/719. They are an orientation, and not to be held against the tables below.
"""


def write(figures: Json, out: Path) -> None:
    """``comparison.md`` and its plots."""
    engines: Mapping[str, Json] = figures["engines"]
    mpl.rcParams["svg.hashsalt"] = "netpol"  # the same figures give the same file
    _changes(engines).savefig(out / "comparison-change.svg", metadata={"Date": None})
    _costs(figures).savefig(out / "comparison-cost.svg", metadata={"Date": None})
    parts = [
        f"# {TITLE}\n\n{_intro(figures)}\n",
        "## From a change to its enforcement\n\n"
        "From just before the request is sent to the API server until the first attempt of the "
        "lasting run of right ones, seen by a client on the wire that tries a new connection "
        "every 4 ms. Milliseconds, median and the longest.\n\n"
        "```{image} img/comparison-change.svg\n:alt: Change to enforcement by engine\n```\n",
        _table(*_change_rows(engines)),
        _behind(engines),
        "## What a new connection costs\n\n"
        "Processor time of both ends and the node between them, in microseconds, on one node. "
        "Every policy but one lets another application in, at a port of its own; the last one "
        f"allows the connection. {_noise(figures)}\n\n"
        "```{image} img/comparison-cost.svg\n:alt: Cost of a new connection by policies\n```\n",
        _table(*_cost_rows(figures, "ten"), title="Ten of the policies select the pod"),
        _table(*_cost_rows(figures, "all"), title="All of them select the pod"),
        "## What it takes\n\nOn the node: rules and elements of sets beside those of kube-proxy, "
        "with this many policies that all select one pod; resident memory; processor time of a "
        "change (a policy created or deleted).\n",
        _table(*_resource_rows(figures)),
        _conformance(figures),
    ]
    (out / "comparison.md").write_text("\n".join(parts), encoding="utf-8")


def _intro(figures: Json) -> str:
    machine, engines = figures["machine"], figures["engines"]
    who = "\n".join(f"- {name}: {one['says']}" for name, one in engines.items())
    missing = "\n".join(f"- {text}" for text in figures["missing"])
    text = (
        "The in-house enforcer and the policy engines that were here, in one run on one machine "
        "(`make compare`), each on the embedded lab with a real API server: the policy engine "
        "only, on the lab's network.\n\n"
        f"Taken on {machine['taken']}: {machine['processors']} processors, of which other work "
        f"took {machine['busy']:.0%} at the beginning, Linux {machine['kernel']}, Python "
        f"{machine['python']}.\n\n{who}\n"
    )
    if machine["wmem_default"] > WMEM_DEFAULT:
        text += (
            f"\n`net.core.wmem_default` was raised to {machine['wmem_default']:,}: in a user "
            "namespace, which the lab is, a netfilter transaction has to fit a socket's buffer. "
            "Engines that change a thousand rules at once end at the kernel's default, as Felix "
            "did; the in-house enforcer does not need it.\n"
        )
    if machine["busy"] > BUSY:
        text += (
            "\n**The machine was busy with other work meanwhile**: the figures compare engines of "
            "this run with each other, and are no measure of an idle machine.\n"
        )
    notes = "\n".join(f"- {note}" for one in engines.values() for note in one.get("notes", ()))
    text += f"\n**Not to be had**:\n\n{notes}\n" if notes else ""
    text += f"\n**Not run**:\n\n{missing}\n" if missing else ""
    here = " ".join(engines)
    return text + ("" if all(name in here for name in BY_HAND) else KNOWN)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
    lines = [f"### {title}\n"] if title else []
    lines.append("| " + " | ".join(head) + " |")
    lines.append("| --- |" + " ---: |" * (len(head) - 1))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _ms(values: Sequence[float]) -> str:
    if not values:
        return "never seen"
    return f"{1e3 * median(values):.0f} ({1e3 * max(values):.0f})"


def _seen(found: Json, kind: str) -> Sequence[float]:
    """What was measured; nothing where most changes were not in force in time, for then what is
    taken for one of them is another that came late."""
    seen: Sequence[float] = found[kind]
    return seen if found["late"] < len(found["allow"]) + len(found["deny"]) else ()


def _change_rows(engines: Mapping[str, Json]) -> tuple[list[str], list[list[str]]]:
    sizes = list(next(iter(engines.values()))["change"])
    head = ["engine", *(f"{kind}, {int(n):,}" for n in sizes for kind in ("allow", "deny"))]
    rows = []
    for name, one in engines.items():
        cells = [name]
        for size in sizes:
            found = one["change"][size] or {"allow": [], "deny": [], "late": 0}
            late = f", {found['late']} not within 1.2 s" if found["late"] else ""
            cells += [_ms(_seen(found, "allow")), _ms(_seen(found, "deny")) + late]
        rows.append(cells)
    return head, rows


def _noise(figures: Json) -> str:
    """How far apart the same figure is where nothing differs."""
    costs = sorted(1e6 * alone["cost"] for alone in figures["alone"].values())
    return (
        f"Without an engine it was {costs[0]:.0f} to {costs[-1]:.0f}: what differs by no more says "
        "nothing."
    )


def _behind(engines: Mapping[str, Json]) -> str:
    """Where another engine is quicker than the in-house enforcer, on each of its data planes."""
    found: dict[str, list[str]] = {}
    for size in next(iter(engines.values()))["change"]:
        for kind in ("allow", "deny"):
            medians = {
                name: median(one["change"][size][kind])
                for name, one in engines.items()
                if one["change"][size] and not one["change"][size]["late"]
            }
            others = {name: m for name, m in medians.items() if OWN not in name}
            first = min(others, key=lambda name: others[name], default="")
            for own in medians.keys() - others.keys():
                if first and others[first] < 0.9 * medians[own]:
                    found.setdefault(f"{kind}, {int(size):,} policies", []).append(
                        f"{first} {1e3 * others[first]:.0f} ms, {own} {1e3 * medians[own]:.0f} ms"
                    )
    planes = sum(OWN in name for name in engines)
    text = ""
    if not any(len(those) == planes for those in found.values()):
        text = (
            "In none of these is the quicker one of the in-house enforcer's data planes behind by "
            "more than a tenth.\n"
        )
    if found:
        lines = [f"- {where}: {those}" for where, texts in found.items() for those in texts]
        text += "\nBehind by more than that:\n\n" + "\n".join(sorted(lines)) + "\n"
    return text


def _cost_rows(figures: Json, curve: str) -> tuple[list[str], list[list[str]]]:
    engines = figures["engines"]
    sizes = list(next(iter(engines.values()))[curve])
    head = ["engine", "no engine", *(f"{int(n):,}" for n in sizes)]
    rows = []
    for name, one in engines.items():
        alone = figures["alone"][one["alone"]]["cost"]
        costs = (alone, *(one[curve].get(size) for size in sizes))
        rows.append([name, *(NOTHING if c is None else f"{1e6 * c:.0f}" for c in costs)])
    return head, rows


def _resource_rows(figures: Json) -> tuple[list[str], list[list[str]]]:
    engines = figures["engines"]
    sizes = list(next(iter(engines.values()))["change"])
    head = ["engine"]
    for size in sizes:
        head += [f"rules, {int(size):,}", "elements", "MiB", "ms a change"]
    rows = []
    for name, one in engines.items():
        alone = figures["alone"][one["alone"]]
        cells = [name]
        for size in sizes:
            found = one["change"][size]
            if found is None:
                cells += [NOTHING] * 4
                continue
            cells += [
                f"{found['rules'] - alone['rules']:,}",
                f"{found['elements'] - alone['elements']:,}",
                f"{found['memory']:.0f}",
                f"{1e3 * found['used']:.0f}",
            ]
        rows.append(cells)
    return head, rows


def _conformance(figures: Json) -> str:
    """By feature, of the runs whose records are there."""
    names, records = [], []
    for name, folder in figures["records"].items():
        try:
            records.append(read(Path(folder) / "record.json"))
        except (RecordError, OSError) as error:
            figures["missing"].append(f"the suites on {name}: {error}")
        else:
            names.append(name)
    if not records:
        return "## Conformance by feature\n\nThe suites were not run for this page.\n"
    comparison = compare.Comparison(tuple(names), tuple(records))
    whole = compare.document(comparison)
    kept = Document("Conformance by feature")
    kept.add(Paragraph(f"What was run: {' '.join(figures['suites'])}."))
    wanted = {"By feature", "Deviations"}  # by scenario: `netpol compare` on the records
    section = ""
    for block in whole.blocks:
        if isinstance(block, Heading):
            section = block.text
        if section in wanted or (not section and isinstance(block, Table)):
            kept.add(block)
    text = to_markdown(kept)
    return text.replace("\n## ", "\n### ").replace("# Conformance", "## Conformance", 1)


def _changes(engines: Mapping[str, Json]) -> Figure:
    figure = _figure(9, 1.2 + 0.9 * len(engines))
    axes = figure.subplots(1, 2, sharey=True)
    names = list(engines)
    sizes = list(next(iter(engines.values()))["change"])
    for ax, kind in zip(axes, ("allow", "deny"), strict=True):
        for turn, size in enumerate(sizes):
            for place, name in enumerate(names):
                found = engines[name]["change"][size]
                values = _seen(found, kind) if found else []
                if not values:
                    continue
                at = place + 0.25 * (turn - (len(sizes) - 1) / 2)
                label = {"label": f"{int(size):,} policies"} if place == 0 else {}
                colour = COLOURS[turn % len(COLOURS)]
                ax.barh(at, 1e3 * median(values), 0.22, color=colour, **label)
                ax.plot([1e3 * min(values), 1e3 * max(values)], [at, at], color="#444", lw=1)
        ax.set_title(f"until it {'allows' if kind == 'allow' else 'denies'}")
        ax.set_xlabel("milliseconds: bar median, line from shortest to longest")
        ax.set_yticks(range(len(names)), names)
        ax.grid(alpha=0.3, axis="x")
    axes[0].invert_yaxis()
    axes[1].legend(fontsize=8)
    return figure


def _costs(figures: Json) -> Figure:
    figure = _figure(10, 4.2)
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"ten": "ten policies select the pod", "all": "all policies select the pod"}
    for ax, (curve, title) in zip(axes, titles.items(), strict=True):
        for turn, (name, one) in enumerate(figures["engines"].items()):
            points = [(int(size), 1e6 * c) for size, c in one[curve].items() if c is not None]
            sizes, values = [x for x, _ in points], [y for _, y in points]
            ax.plot(sizes, values, marker="o", ms=4, label=name, color=COLOURS[turn % 7])
        for key, alone in figures["alone"].items():
            ax.axhline(1e6 * alone["cost"], ls=":", color="#8a8a8a", lw=1, label=f"none ({key})")
        ax.set(title=title, xlabel="policies", xscale="log", yscale="log")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("processor time of a new connection, µs")
    axes[0].legend(fontsize=7)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure
