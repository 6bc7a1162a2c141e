"""What happens to one test: it measures, its records are judged, its report tells the story.

Runs where the tests run (in xdist's workers, or in the only process). What the controller needs
travels in ``report.netpol``, plain values that xdist can carry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from harness.labs.base import LabError
from harness.report import failure, junit
from harness.report.record import ScenarioRecord, encode_scenario

if TYPE_CHECKING:
    from harness.plugin import Suites
    from harness.plugin.bench import Bench
    from harness.plugin.session import Run

BENCH = pytest.StashKey["Bench"]()
RECORDS = pytest.StashKey[list[ScenarioRecord]]()
NETPOL = "netpol"  # the attribute of reports


class Disagreement(Exception):  # noqa: N818
    """The network does not do what the specification says: a failure."""


class Unmeasured(Exception):  # noqa: N818
    """Something was not really probed, so nothing can be said of the network: an error."""


#: What says that the network is wrong. All else says that it was not really looked at.
FAILURES = (Disagreement, AssertionError, pytest.fail.Exception)


class Told:
    """A report's ``longrepr``: the story as it stands, with the first line for the summary."""

    def __init__(self, text: str, headline: str, path: str, line: int) -> None:
        self.text = text
        self.reprcrash = _Crash(headline, path, line)

    def toterminal(self, out: Any) -> None:
        for line in self.text.splitlines():
            word = line.split(maxsplit=1)[0] if line.strip() else ""
            out.line(line, red=word in failure.WRONG.values(), bold=line.startswith("Step "))

    def __str__(self) -> str:
        return self.text


class _Crash:
    def __init__(self, message: str, path: str, line: int) -> None:
        self.message = message
        self.path = path
        self.lineno = line

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


def bench_of(config: pytest.Config) -> Bench:
    return config.stash[BENCH]


def judge(record: ScenarioRecord) -> None:
    """Raise what the record says: Unmeasured, Disagreement, pytest.skip, or nothing."""
    match record.outcome:
        case "error":
            raise Unmeasured(failure.text(record))
        case "failed":
            raise Disagreement(failure.text(record))
        case "skipped":
            pytest.skip(record.message)
    assert record.outcome == "passed", record.outcome


class Items:
    """Hooks around each test of a suite."""

    def __init__(self, config: pytest.Config, suites: Suites, run: Run) -> None:
        from harness.plugin.bench import Bench

        self.config = config
        self.suites = suites
        self.run = run
        config.stash[BENCH] = Bench(config, run)

    @pytest.hookimpl(tryfirst=True)  # before anything that may fail on a full disk
    def pytest_sessionfinish(self) -> None:
        self.config.stash[BENCH].close()

    def pytest_unconfigure(self) -> None:
        self.config.stash[BENCH].keep()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self.ours(item):
            item.stash[RECORDS] = []
            item.user_properties.append(("cni", self.run.cni.name))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not self.ours(item):
            return report
        data: dict[str, Any] = {"worker": self.config.stash[BENCH].worker}
        if call.excinfo is not None and report.failed:
            error = call.excinfo.value
            if isinstance(error, Disagreement | Unmeasured | LabError):
                records = item.stash.get(RECORDS, [])
                told = records[-1] if records and not isinstance(error, LabError) else None
                data["headline"] = failure.headline(told) if told else _first_line(str(error))
                data["text"] = str(error)
                path, line, _ = item.reportinfo()
                data["place"] = [str(path), (line or 0) + 1]
            if not isinstance(error, FAILURES):
                # Only what was measured can fail. pytest tells errors from failures by the phase.
                report.when = "setup"
                data["lab_error"] = isinstance(error, LabError)
        if report.when == "call" or not report.passed:
            records = item.stash.get(RECORDS, []) or [_blank(item)]
            item.stash[RECORDS] = []
            data["facts"] = self.config.stash[BENCH].facts()
            data["records"] = [encode_scenario(record) for record in records]
            data["tally"] = tally(records)
            # They travel with the report of the teardown, from which JUnit XML takes them.
            item.user_properties += [pair for r in records for pair in junit.properties(r)]
        setattr(report, NETPOL, data)
        tell(report)
        return report

    def ours(self, item: pytest.Item) -> bool:
        return self.suites.holds(item.path) or hasattr(type(item), "scenario")


def tell(report: pytest.TestReport) -> None:
    """Give the report the story as ``longrepr``; done again by the controller, for xdist carries
    text alone."""
    data = getattr(report, NETPOL, {})
    if "text" in data and report.failed:
        report.longrepr = Told(data["text"], data["headline"], *data["place"])  # type: ignore[assignment]


def tally(records: list[ScenarioRecord]) -> dict[str, Any]:
    """What the summary needs of the records: ``cells``, counted by ``EXPECTED/FINDING``, and
    ``latencies``, seconds by what was expected."""
    cells: Counter[str] = Counter()
    latencies: dict[str, list[float]] = {}
    for record in records:
        for step in record.steps:
            for cell in step.cells:
                cells[f"{cell.expected}/{cell.finding}"] += 1
                if cell.latency is not None:
                    latencies.setdefault(cell.expected, []).append(cell.latency)
    return {"cells": dict(cells), "latencies": latencies}


def _blank(item: pytest.Item) -> ScenarioRecord:
    """The record of a test that ran no scenario: it was there, and how it ended."""
    from harness.plugin.collect import ScenarioItem, features_of, identity

    if isinstance(item, ScenarioItem):
        title, why = item.scenario.title, item.scenario.why
    else:
        doc = getattr(getattr(item, "obj", None), "__doc__", None) or item.name
        title, _, why = doc.strip().partition("\n")
    return ScenarioRecord(
        id=identity(item),
        title=title,
        why=" ".join(why.split()),
        features=sorted(features_of(item)),
        source=f"{item.location[0]}:{(item.location[1] or 0) + 1}",
    )


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
