"""The last lines of a run: what the cells came to, said plainly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from harness.plugin.session import Run
from harness.report.record import RecordError
from harness.run import apart

Line = tuple[str, dict[str, bool]]
PLAIN: dict[str, bool] = {}


class Summary:
    """Counts as reports come in."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.cells: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.mended: list[str] = []
        self.latencies: dict[str, list[float]] = {"allow": [], "deny": []}
        self.problems: list[str] = []
        self.planned: list[str] = []

    def plan(self, items: Iterable[Any]) -> None:
        """What a run of these tests would make at once, for ``--lab-dry-run``."""
        tests = list(items)
        scenarios = [item.scenario for item in tests if hasattr(item, "scenario")]
        worlds = [scenario.world for scenario in scenarios]
        pods = max((len(world.pods) for world in worlds), default=0)
        namespaces = max((len(world.namespaces) for world in worlds), default=0)
        self.planned = [
            f"would run {len(tests)} tests, {len(scenarios)} of them scenarios of files; each "
            f"worker has up to {namespaces} namespaces and {pods} pods of theirs at once"
        ]
        wide = sum(bool(apart.wide(scenario)) for scenario in scenarios)
        if self.run.place.shared and wide:
            does = "runs" if self.run.place.wide else "skips"
            self.planned.append(f"{does} {wide} scenarios that reach into namespaces of others")
        self.planned.append("nothing was made and nothing was run (--lab-dry-run)")

    def count(self, data: Mapping[str, Any]) -> None:
        """Add one test's tally, see :func:`harness.plugin.items.tally`."""
        self.cells.update(data.get("cells", {}))
        for verdict, seconds in data.get("latencies", {}).items():
            self.latencies.setdefault(verdict, []).extend(seconds)

    def scenario(self, record: Mapping[str, Any]) -> None:
        """Add one encoded scenario."""
        outcome = record.get("outcome", "")
        self.outcomes[outcome] += 1
        if outcome == "skipped":
            self.skipped[record.get("message", "")] += 1
        if outcome == "xpassed":
            self.mended.append(record["id"])

    def of(self, expected: str, finding: str = "") -> int:
        """Cells that were expected so, and came out so."""
        return sum(n for key, n in self.cells.items() if key.startswith(f"{expected}/{finding}"))

    def not_tested(self, facts: Mapping[str, Any]) -> list[dict[str, str]]:
        """What this run did not look at and why, for the record."""
        told = [
            {"what": f"{n} scenario{'s' * (n > 1)}", "why": why} for why, n in self.skipped.items()
        ]
        told += [{"what": what, "why": why} for what, why in facts.get("missing", {}).items()]
        return told

    def lines(self, problem: RecordError | None) -> Iterable[Line]:
        denied, leaks = self.of("deny"), self.of("deny", "leak")
        held = self.of("deny", "agrees")
        unknown = sum(n for key, n in self.cells.items() if key.endswith("/unknown"))
        total = sum(self.cells.values())
        if total:
            kinds: Counter[str] = Counter()
            for key, n in self.cells.items():
                kinds[key.partition("/")[2]] += n
            yield (
                f"{total} cells asked: " + ", ".join(f"{n} {k}" for k, n in kinds.most_common()),
                PLAIN,
            )
        yield from self._denials(denied, leaks, held, unknown)
        for verdict, seconds in self.latencies.items():
            if seconds:
                ordered = sorted(seconds)
                worst = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
                yield (
                    f"{verdict} enforced after {median(ordered) * 1000:.0f} ms "
                    f"(median of {len(ordered)} cells that changed), p99 {worst * 1000:.0f} ms",
                    PLAIN,
                )
        for name in self.mended:
            yield f"mended: {name} was known to fail and passes now", {"yellow": True}
        if self.problems:
            for text in self.problems:
                yield text, {"red": True}
        if problem is not None:
            yield str(problem), {"red": True, "bold": True}

    def _denials(self, denied: int, leaks: int, held: int, unknown: int) -> Iterable[Line]:
        bad = {"red": True, "bold": True}
        if denied and leaks and not held:
            yield (
                f"{denied} deny cells were expected, none enforced: this CNI enforces nothing",
                bad,
            )
        elif leaks:
            yield f"{denied} deny cells were expected, {leaks} leaked", bad
        untested = self.of("deny", "unknown")
        if untested:
            yield f"{untested} of {denied} deny cells were never really tested", bad
        elif self.run.cni.enforces and not denied and self.cells:
            yield "no deny cell was tested: nothing is said of what is enforced", {"yellow": True}
        if unknown:
            yield f"{unknown} cells are unknown: errors of the harness or lab, not of policies", bad
