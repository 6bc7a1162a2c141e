"""The doctor's findings as one table, or as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import __version__
from harness.doctor.check import Check, State

SCHEMA = "netpol-doctor/1"
_SIGNS = {
    State.YES: ("yes", "green"),
    State.LIMITED: ("partly", "yellow"),
    State.NO: ("no", "red"),
    State.ABSENT: ("-", "dim"),
}


def as_json(checks: Sequence[Check]) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "netpol": __version__,
            "machine": machine(),
            "checks": [asdict(check) for check in checks],
        },
        indent=2,
    )


def machine() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def as_table(checks: Sequence[Check], console: Console | None = None) -> None:
    """One table; a step to take stands in a line of its own under what it mends."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("can", no_wrap=True)
    table.add_column("found", overflow="fold")
    for group, members in groupby(checks, key=lambda check: check.group):
        table.add_row(Text(group, style="bold"))
        for check in members:
            word, style = _SIGNS[check.state]
            table.add_row(Text(f"  {check.name}"), Text(word, style=style), Text(check.found))
            if check.step:
                table.add_row("", "", Text(f"-> {check.step}", style=style))
    console.print(Text(f"netpol {__version__} on {machine()}"))
    console.print(table)
