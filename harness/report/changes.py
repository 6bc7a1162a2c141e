"""What changed from one run to a later one of the same kind: the nightly's question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.report import summary
from harness.report.compare import scenario_sign
from harness.report.document import Document, Heading, Items, Paragraph, Sign, Table
from harness.report.shape import RunRecord, ScenarioRecord
from harness.report.summary import WRONG_OUTCOMES, duration, plural

#: Medians that differ by less are noise: half of the larger one, or five milliseconds.
SHARE, SECONDS = 0.5, 0.005

Pair = tuple[ScenarioRecord | None, ScenarioRecord | None]


@dataclass(slots=True)
class Changes:
    """Scenarios as pairs (before, after). ``worse`` is what a nightly job has to be told of."""

    broken: list[Pair] = field(default_factory=list)  # well before, and wrong now
    mended: list[Pair] = field(default_factory=list)  # wrong before, and well now
    other: list[Pair] = field(default_factory=list)  # wrong both times, but not alike
    still: list[Pair] = field(default_factory=list)  # wrong both times, and alike
    new: list[ScenarioRecord] = field(default_factory=list)
    gone: list[ScenarioRecord] = field(default_factory=list)
    skipped: list[Pair] = field(default_factory=list)  # run before, and skipped now
    latency: list[tuple[str, float, float]] = field(default_factory=list)  # verdict, medians
    profile: list[tuple[str, str, str]] = field(default_factory=list)  # reason, seen, seen
    surroundings: list[tuple[str, str, str]] = field(default_factory=list)  # name, was, is

    @property
    def worse(self) -> bool:
        """Something is wrong that was not, or is no longer looked at."""
        return bool(
            self.broken
            or self.gone
            or self.skipped
            or any(s.outcome in WRONG_OUTCOMES for s in self.new)
        )

    @property
    def any(self) -> bool:
        """Whether any result changed; surroundings and latency alone do not count."""
        return self.worse or bool(self.mended or self.other or self.new or self.profile)


def changes(before: RunRecord, after: RunRecord) -> Changes:
    """Compare two runs by the ids of their scenarios."""
    out = Changes()
    then = {s.id: s for s in before.scenarios}
    now = {s.id: s for s in after.scenarios}
    for id_, new in now.items():
        old = then.get(id_)
        if old is None:
            out.new.append(new)
            continue
        was, is_ = (s.outcome in WRONG_OUTCOMES for s in (old, new))
        if new.outcome == "xpassed" != old.outcome:
            out.mended.append((old, new))
        elif was and is_:
            alike = scenario_sign(old) == scenario_sign(new)
            (out.still if alike else out.other).append((old, new))
        elif was and new.outcome != "skipped":
            out.mended.append((old, new))
        elif is_:
            out.broken.append((old, new))
        elif new.outcome == "skipped" != old.outcome:
            out.skipped.append((old, new))
        elif new.outcome != old.outcome:
            out.other.append((old, new))
    out.gone = [s for id_, s in then.items() if id_ not in now]
    _latencies(before, after, out)
    _profiles(before, after, out)
    _surroundings(before.run, after.run, out)
    return out


def _latencies(before: RunRecord, after: RunRecord, out: Changes) -> None:
    then, now = (summary.latencies(r.scenarios) for r in (before, after))
    for verdict in then:
        old, new = then[verdict].quantile(0.5), now[verdict].quantile(0.5)
        if old is None or new is None:
            continue
        if abs(new - old) > max(SECONDS, SHARE * max(old, new)):
            out.latency.append((verdict, old, new))


def _profiles(before: RunRecord, after: RunRecord, out: Changes) -> None:
    then, now = (summary.undefined_profile(r.scenarios) for r in (before, after))
    for reason in sorted({*then, *now}):
        old, new = (", ".join(sorted(p.get(reason, ()))) for p in (then, now))
        if old != new:
            out.profile.append((reason, old or "not asked", new or "not asked"))


def _surroundings(then: Mapping[str, Any], now: Mapping[str, Any], out: Changes) -> None:
    def flat(run: Mapping[str, Any]) -> dict[str, str]:
        plain = {k: str(run[k]) for k in ("cni", "lab", "fabric", "dataplane") if run.get(k)}
        for part in ("versions", "environment"):
            plain |= {str(k): str(v) for k, v in (run.get(part) or {}).items()}
        return plain

    old, new = flat(then), flat(now)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            out.surroundings.append((name, old.get(name, ""), new.get(name, "")))


def document(found: Changes, names: tuple[str, str]) -> Document:
    """The changes in words and tables; says plainly when there are none."""
    out = Document(f"What changed from {names[0]} to {names[1]}")
    out.add(*blocks(found))
    return out


def blocks(found: Changes) -> list[Heading | Paragraph | Table | Items]:
    """The document's blocks."""
    out: list[Heading | Paragraph | Table | Items] = [Paragraph(sentence(found))]
    for title, pairs in (
        ("Broken", found.broken),
        ("No longer run", found.skipped),
        ("Mended", found.mended),
        ("Different", found.other),
    ):
        if pairs:
            rows = tuple((_title(p), scenario_sign(p[0]), scenario_sign(p[1])) for p in pairs)
            out += [Heading(title, 3), Table(("Scenario", "before", "now"), rows)]
    for title, ones in (("New", found.new), ("Gone", found.gone)):
        if ones:
            items = tuple((_sign(s), s.id) for s in ones)
            out += [Heading(title, 3), Items(items)]
    if found.latency:
        figures = tuple((v, duration(a), duration(b)) for v, a, b in found.latency)
        head = ("Turned to", "median before", "median now")
        out += [Heading("Latency", 3), Table(head, figures, frozenset({1, 2}))]
    if found.profile:
        table = Table(("What is left open", "before", "now"), tuple(found.profile))
        out += [Heading("Left to the implementation", 3), table]
    if found.surroundings:
        table = Table(("What", "before", "now"), tuple(found.surroundings))
        out += [Heading("Surroundings", 3), table]
    return out


def sentence(found: Changes) -> str:
    """One line: ``2 scenarios broken, 1 mended; 3 still fail.``"""
    told = [
        f"{plural(len(of), 'scenario')} {word}"
        for of, word in (
            (found.broken, "broken"),
            (found.skipped, "no longer run"),
            (found.gone, "gone"),
            (found.mended, "mended"),
            (found.other, "different"),
            (found.new, "new"),
        )
        if of
    ]
    if found.profile:
        told.append(f"{plural(len(found.profile), 'open question')} answered differently")
    text = ", ".join(told) or "No result changed"
    return text + (f"; {len(found.still)} still wrong as before." if found.still else ".")


def _title(pair: Pair) -> str:
    one = pair[1] or pair[0]
    return one.id if one else ""


def _sign(scenario: ScenarioRecord) -> Sign:
    sign = scenario_sign(scenario)
    return sign if isinstance(sign, Sign) else Sign(sign, "skipped")
