"""The table of mutants as a page of the documentation, out of what runs have left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.mutants.bugs import IMPOSSIBLE, MUTANTS

#: Data plane -> mutant -> how it was caught, as the last runs with ``--write`` had it.
KEPT = Path(__file__).with_name("caught.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"
_HEAD = """\
# Would the suite notice?

Bugs that NetworkPolicy implementations have shipped, seeded one at a time into the in-house
enforcer: a *mutant* each. A mutant is caught when a cell of some scenario is judged to be a leak
or an outage, and the true enforcer passes that scenario. Errors and unknown cells do not count.

`make mutants` runs them anew (`ARGS='--sample 4'`: a few of them), `ARGS=--write` writes this page.
Scenarios that have to do with a bug are tried first, so the number of those that were run for it
says how near at hand the one is that catches it, not how many could. Seconds are those of a busy
machine of two processors.
"""


def write(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Keep the results, and draw the page from them."""
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")


def page(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The page as Markdown."""
    return "\n".join(_lines(kept)) + "\n"


def _lines(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    yield _HEAD
    for plane, results in sorted(kept.items()):
        caught = sum(bool(one["scenario"]) for one in results.values())
        can = sum(plane in mutant.planes for mutant in MUTANTS.values())
        yield f"## {plane}: {caught} of {can} caught"
        yield ""
        yield "| bug | caught by | judged cell | run | s |"
        yield "| --- | --- | --- | ---: | ---: |"
        for name, mutant in MUTANTS.items():
            one = results.get(name)
            if one is None:
                continue
            where = f"`{one['scenario']}`" if one["scenario"] else "**missed**"
            cell = one["cell"] or one["why"].replace("\n", " ")
            bug = mutant.bug.replace("|", "\\|")
            yield f"| {bug} | {where} | {cell} | {one['tried']} | {one['seconds']:.0f} |"
        yield ""
        never = [n for n, m in MUTANTS.items() if plane in m.planes and n not in results]
        if never:
            yield f"Not run on this data plane: {', '.join(never)}."
            yield ""
    yield "## Bugs that are not seeded as they were"
    yield ""
    for bug, why in IMPOSSIBLE.items():
        yield f"* {bug}: {why}."
