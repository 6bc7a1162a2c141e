"""A kind cluster that is used again: whose leftovers go, and whose do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.cnis import catalogue
from harness.labs.cluster.leftovers import QUIET, Leftover
from harness.run import kinds
from harness.run.place import KindOptions, Place


def test_what_killed_runs_left_goes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)

    def of(run: str, idle: timedelta, *, kept: bool) -> Leftover:
        return Leftover(run, (f"np-{run}",), 0, now, idle, kept)

    there = [
        of("killed", QUIET, kept=False),
        of("under-way", timedelta(seconds=5), kept=False),
        of("kept", 2 * QUIET, kept=True),
    ]
    removed: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(kinds, "connect", lambda _: None)
    monkeypatch.setattr(kinds.leftovers, "leftovers", lambda _: there)
    monkeypatch.setattr(kinds.leftovers, "remove", lambda _, run: removed.append(run))
    where = Place(lab="kind", kind=KindOptions(reuse="mine"))
    kinds.prepare(catalogue.get("enforcer"), where, Path("logs"), said.append)
    assert removed == ["killed"]
    assert said == ["mine: removing what run killed has left: namespaces np-killed (1)"]
