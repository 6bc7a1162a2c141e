"""How outcomes and findings are shown: one glyph and one word each, so that none rests on colour.

The classes are those of ``assets/report.css``.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from harness.report.shape import CellRecord, StepRecord


@dataclass(frozen=True, slots=True)
class Sign:
    """``css`` is a class name, ``word`` what is read aloud, ``text`` one line of explanation.

    ``glyph`` is what plain text shows; in HTML the style sheet has it.
    """

    css: str
    word: str
    text: str
    glyph: str = ""


#: Cells by finding. Those that agree are told apart by what was expected.
FINDING_SIGNS = {
    "leak": Sign("lk", "leak", "expected deny, seen allowed"),
    "outage": Sign("ou", "outage", "expected allow, seen anything else"),
    "unknown": Sign("uk", "unknown", "never really probed: an error, never a pass"),
    "flaky": Sign("fl", "flaky", "agreed, and left it again within the hold window"),
    "known-deviation": Sign("kn", "known deviation", "departs as its catalogue entry says"),
    "undefined": Sign("un", "undefined", "left to the implementation: recorded, never judged"),
}
ALLOW = Sign("al", "allow", "as expected: allowed")
DENY = Sign("dn", "deny", "as expected: denied")
STRANGE = Sign("st", "?", "a finding that this version does not know")

OUTCOME_SIGNS = {
    "passed": Sign("passed", "passed", "", "✓"),
    "failed": Sign("failed", "failed", "something was not as specified", "✗"),
    "error": Sign("error", "error", "could not be measured", "?"),
    "skipped": Sign("skipped", "skipped", "cannot be tested here", "-"),
    "xfailed": Sign("xfailed", "known", "failed as it is known to", "≠"),
    "xpassed": Sign("xpassed", "mended", "passed although known to fail", "↑"),
}

VIAS = {
    "pod-ip": "pod IP",
    "service-ip": "Service IP",
    "service-name": "Service name",
    "node-ip": "node IP",
    "node-port": "NodePort",
    "external-ip": "outside address",
}


def sign(cell: CellRecord) -> Sign:
    """How a cell is shown."""
    if cell.finding == "agrees":
        return ALLOW if cell.expected == "allow" else DENY
    return FINDING_SIGNS.get(cell.finding, STRANGE)


def way(protocol: str, port: int, via: str, family: int) -> str:
    """What a matrix is about: ``80/TCP by pod IP``."""
    return f"{port}/{protocol} by {VIAS.get(via, via)}" + (", IPv6" if family == 6 else "")


def cell_key(cell: CellRecord) -> str:
    """A cell's stable name within its step, for links."""
    return f"{cell.source}>{cell.target}:{cell.port}/{cell.protocol}/{cell.via}/{cell.family}"


def why(step: StepRecord, cell: CellRecord) -> str:
    """Why the cell is expected to be as it is, in words: of a denial only what denies."""
    return "; ".join(g["text"] for g in deciding(step, cell)) or cell.reason


def deciding_policies(step: StepRecord, cell: CellRecord) -> list[str]:
    """``ns/name`` of the policies on which the verdict rests."""
    return list(dict.fromkeys(p for g in deciding(step, cell) for p in g.get("policies", ())))


def deciding(step: StepRecord, cell: CellRecord) -> list[dict[str, Any]]:
    """The grounds of a cell's verdict."""
    if cell.because is None or not 0 <= cell.because < len(step.reasons):
        return []
    grounds = step.reasons[cell.because].get("because", ())
    return [g for g in grounds if g.get("verdict") == cell.expected] or list(grounds)


def gist(message: str, lines: int = 4) -> str:
    """The lines of a message that say what happened: of a traceback, those that pytest marks."""
    told = [line for line in message.splitlines() if line.strip()]
    marked = [line[1:].strip() for line in told if line.startswith("E ")]
    kept = (marked or told)[:lines]
    if len(kept) < len(marked or told):
        kept.append("\N{HORIZONTAL ELLIPSIS}")
    return "\n".join(kept)


def clean(text: str) -> str:
    """One line in which nothing moves a cursor or turns the direction of writing."""
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else repr(c)[1:-1]
        for c in text.replace("\n", " ")
    )
