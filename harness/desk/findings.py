"""Findings of ``netpol lint``: codes, severities, and how one is silenced with a reason.

A comment silences a code for the YAML document that it stands in::

    # netpol-lint: ignore NP104 because the sidecar resolves names by itself

A reason is asked for, and a comment that silences nothing is itself a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from harness.model.policy import Source


class Severity(IntEnum):
    """Errors are wrong, warnings are likely wrong, infos are worth knowing."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Rule:
    """A check: its stable code and name, how bad what it finds is, and what it means."""

    code: str
    name: str
    severity: Severity
    help: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule has something to say. ``source`` None: no place in a file."""

    rule: Rule
    source: Source | None
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return (
            f"{where}{self.rule.severity} {self.rule.code} {self.rule.name}: {self.message}{hint}"
        )


UNREADABLE = Rule("NP001", "unreadable", Severity.ERROR, "An object that cannot be read.")
DOUBTFUL = Rule("NP002", "doubtful", Severity.WARNING, "Something that the reader warns of.")
NO_REASON = Rule(
    "NP003", "silenced-without-reason", Severity.WARNING, "A comment silences without a reason."
)
UNUSED = Rule("NP004", "silences-nothing", Severity.INFO, "A comment that silences no finding.")
ABOUT_INPUT = (UNREADABLE, DOUBTFUL, NO_REASON, UNUSED)

_COMMENT = re.compile(r"#\s*netpol-lint:\s*ignore\s+(NP\d{3})\b[\s:,-]*(?:because\b)?\s*(.*)")
_DIVIDER = re.compile(r"^---(\s|$)")


@dataclass(slots=True)
class Silence:
    """A comment: the code that it silences in the lines of its document, and the reason."""

    code: str
    reason: str
    where: Source
    first: int
    last: int
    used: bool = field(default=False)

    def covers(self, finding: Finding) -> bool:
        source = finding.source
        return (
            source is not None
            and finding.rule.code == self.code
            and source.file == self.where.file
            and self.first <= source.line <= self.last
        )


def silences(files: Iterable[str]) -> list[Silence]:
    """The comments of all files that can be read; standard input and clusters have none."""
    found: list[Silence] = []
    for file in sorted(set(files)):
        path = Path(file)
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found += _silences(file, text.splitlines())
    return found


def _silences(file: str, lines: list[str]) -> Iterator[Silence]:
    dividers = [number for number, line in enumerate(lines, 1) if _DIVIDER.match(line)]
    for number, line in enumerate(lines, 1):
        match = _COMMENT.search(line)
        if match is not None:
            first = max((d for d in dividers if d <= number), default=1)
            last = min((d for d in dividers if d > number), default=len(lines) + 1) - 1
            yield Silence(match[1], match[2].strip(), Source(file, number), first, last)


def without_silenced(
    findings: Iterable[Finding], comments: Iterable[Silence]
) -> tuple[list[Finding], dict[Finding, str]]:
    """What is left, and what was silenced with the reason; comments are judged as well."""
    comments = list(comments)
    left: list[Finding] = []
    silenced: dict[Finding, str] = {}
    for finding in findings:
        by = [comment for comment in comments if comment.covers(finding)]
        for comment in by:
            comment.used = True
        if by:
            silenced[finding] = by[0].reason
        else:
            left.append(finding)
    for comment in comments:
        if not comment.used:
            left.append(Finding(UNUSED, comment.where, f"there is no {comment.code} to silence"))
        elif not comment.reason:
            hint = f"write: # netpol-lint: ignore {comment.code} because …"
            left.append(Finding(NO_REASON, comment.where, f"{comment.code} is silenced", hint))
    return left, silenced


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By file and line, what is in no file last."""

    def place(finding: Finding) -> tuple[bool, str, int, str]:
        source = finding.source
        return (
            source is None,
            source.file if source else "",
            source.line if source else 0,
            finding.rule.code,
        )

    return sorted(findings, key=place)


def counted(findings: Iterable[Finding]) -> Mapping[Severity, int]:
    counts = dict.fromkeys(sorted(Severity, reverse=True), 0)
    for finding in findings:
        counts[finding.rule.severity] += 1
    return counts
