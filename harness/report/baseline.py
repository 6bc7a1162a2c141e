"""Expected results: what is known to fail does not fail a run, and what is mended is told.

A baseline is a text file with one scenario id a line and, after it, the reason; ``#`` begins a
comment. A run's record serves as well: what failed in it is what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.report import failure, files
from harness.report.shape import RunRecord, ScenarioRecord
from harness.report.summary import WRONG_OUTCOMES

Baseline = Mapping[str, str]  # scenario id -> why it is known to fail


class BaselineError(Exception):
    """A baseline that cannot be read."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A run held against a baseline. A run is well iff ``new`` is empty."""

    new: tuple[ScenarioRecord, ...]  # wrong, and not known to be
    known: tuple[ScenarioRecord, ...]  # wrong as known
    mended: tuple[ScenarioRecord, ...]  # known to fail, and did not
    absent: tuple[str, ...]  # known to fail, and not run


def read(path: Path) -> dict[str, str]:
    """A list, or a record (by its name or directory). Raises BaselineError, RecordError."""
    if path.is_dir() or path.suffix in (".json", ".jsonl"):
        return of(files.read(path))
    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError:
        raise BaselineError(f"{path}: it is no text file") from None
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror or error}") from None


def parse(text: str, name: str) -> dict[str, str]:
    """The list; ``name`` is the reason of what has none."""
    known = {}
    for line in text.splitlines():
        scenario, _, reason = line.strip().partition(" ")
        if scenario and not scenario.startswith("#"):
            known[scenario] = reason.strip() or f"listed in {name}"
    return known


def of(record: RunRecord) -> dict[str, str]:
    """The scenarios that failed in a run. What could not be measured is never known to fail."""
    run = record.run.get("id") or "?"
    return {
        s.id: f"failed in run {run}" for s in record.scenarios if s.outcome in ("failed", "xfailed")
    }


def text(record: RunRecord) -> str:
    """A list to keep, with what failed first as the reason."""
    lines = [f"# Known to fail with {record.run.get('cni') or '?'}, run {record.run.get('id')}"]
    lines += [
        f"{s.id} {failure.headline(s)}"
        for s in record.scenarios
        if s.outcome in ("failed", "xfailed")
    ]
    return "\n".join(lines) + "\n"


def judge(baseline: Baseline, record: RunRecord) -> Judged:
    """Hold a run against a baseline. An error stays new: known failures are failures."""
    ran = {s.id for s in record.scenarios if s.outcome != "skipped"}
    known = tuple(
        s for s in record.scenarios if s.id in baseline and s.outcome in ("failed", "xfailed")
    )
    listed = {s.id for s in known}
    return Judged(
        new=tuple(
            s for s in record.scenarios if s.outcome in WRONG_OUTCOMES and s.id not in listed
        ),
        known=known,
        mended=tuple(
            s for s in record.scenarios if s.id in baseline and s.outcome in ("passed", "xpassed")
        ),
        absent=tuple(id_ for id_ in baseline if id_ not in ran),
    )
