"""The one process that people see: header, record, reports, summary, and xdist's manners mended.

With ``-n`` this is the controller, else the only process. It never touches a lab.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from harness.engines import make
from harness.labs.base import LabError
from harness.plugin.items import NETPOL, tell
from harness.plugin.live import Listener
from harness.plugin.session import TOLD, Run
from harness.plugin.summary import Summary
from harness.report.record import RecordError, RecordWriter
from harness.run import place
from harness.scenarios.features import FEATURES, GROUPS

LATEST = "latest"
DEATHS = "engine_deaths"
#: What each run leaves beside its record, by the forms of ``netpol report``.
DRAWN = {"report.html": "html", "ctrf.json": "ctrf", "badge.svg": "badge"}


class Controller:
    """Hooks of the process that collects what all others measure."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self.config = config
        self.run = run
        self.engine = place.engine(run.cni, run.place)
        self.summary = Summary(run)
        self.writer: RecordWriter | None = None
        self.listener: Listener | None = None
        self.pending: dict[str, list[dict[str, Any]]] = {}
        self.facts: dict[str, Any] = {}
        self.told: set[str] = set()
        self.interrupted = False
        self.failed = False
        if not config.getoption("xmlpath") and not config.getoption("collectonly"):
            # pytest's own JUnit plugin is configured after this one, and writes it.
            config.option.xmlpath = str(run.directory / "junit.xml")
        if config.getoption("lab_live") and config.getoption("numprocesses", None):
            self.listener = Listener(config)

    # -- before -------------------------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        run, options = self.run, self.run.options
        version = f" {run.cni.version}" if run.cni.version else ""
        return [
            f"netpol: {run.cni.title}{version} on {run.place.words(self.engine)}",
            *(f"netpol: {line}" for line in run.told),
            f"netpol: seed {run.seed}; lab kept: {options.keep}; report: "
            f"{self._shown(run.directory)}",
        ]

    def pytest_report_collectionfinish(self) -> list[str]:
        """What was made of the user's manifests."""
        run = self.run
        if run.options.manifests is None:
            return []
        from harness.plugin.manifests import read

        derived = read(run.options.manifests, run.place)
        partial = [f"left out: {text}" for text in derived.lacking]
        return [f"netpol: manifests: {text}" for text in (*derived.notes, *partial)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.config.getoption("collectonly") or session.testsfailed:
            return None
        if self.run.options.dry_run:
            self.summary.plan(session.items)
            return True  # and nothing is run
        run = self.run
        self.writer = RecordWriter(run.directory)
        self.writer.header(
            {
                "id": run.id,
                "started": _now(),
                "argv": ["pytest", *map(str, self.config.invocation_params.args)],
                "seed": run.seed,
                "cni": run.cni.name,
                "cni_version": run.cni.version,
                "lab": run.place.name,
                "fabric": run.place.fabric,
                "families": list(run.options.families),
                "dataplane": run.options.dataplane if self.engine else "",
                **make.record(run.cni, run.place.brought),
                "features": {
                    group: {label: FEATURES[label] for label in labels}
                    for group, labels in GROUPS.items()
                },
            }
        )
        if self.writer.problem:
            raise pytest.UsageError(f"{self.writer.problem}\n  the option is --lab-report")
        _point(run.options.report / LATEST, run.directory)
        if session.items or self.config.getoption("numprocesses", None):
            self._prepare()
        return None

    def _prepare(self) -> None:
        """Make what all tests share. Where that fails, each test says so."""
        reporter: Any = self.config.pluginmanager.getplugin("terminalreporter")

        def say(text: str) -> None:
            reporter.write_line(f"netpol: {text}")

        run = self.run
        with contextlib.suppress(LabError):
            keep = run.options.keep != "never"
            place.prepare(run.cni, run.place, run.directory / "logs", say, keep_failed=keep)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker what has been decided for the whole run."""
        live = self.listener.address if self.listener else ""
        node.workerinput[TOLD] = {
            "id": self.run.id,
            "seed": self.run.seed,
            "live": live,
            "cni": self.run.cni.name,
            "manifests": str(self.run.options.manifests or ""),
        }

    # -- while --------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """A worker that died has measured nothing: an error, where xdist says failure."""
        report.when = "setup"
        setattr(
            report,
            NETPOL,
            {
                "records": [{"id": crashitem, "title": crashitem, "steps": [], "values": []}],
                "headline": str(report.longrepr),
            },
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = getattr(report, NETPOL, None)
        if data is None:
            return
        tell(report)
        if data.get("lab_error"):
            self._tell_once(report, data)
        self.facts = _merged(self.facts, data.get("facts") or {})
        self.summary.count(data.get("tally") or {})
        outcome = _outcome(report)
        for record in data.get("records", ()):
            # A test may have run several scenarios: those before the last have their own outcome.
            if not record.get("outcome") or record is data["records"][-1]:
                record["outcome"] = outcome
            record["message"] = record.get("message") or data.get("headline") or _why(report)
            record["worker"] = record.get("worker") or data.get("worker", "")
            self.pending.setdefault(report.nodeid, []).append(record)
        if report.when == "teardown":
            if report.failed:
                for record in self.pending.get(report.nodeid, ()):
                    record["outcome"] = "error"
                    record["message"] = str(report.longrepr)
            self._write(report.nodeid)

    def _tell_once(self, report: pytest.TestReport, data: dict[str, Any]) -> None:
        """The lab that does not come up is told once, however many tests needed it."""
        if data["text"] in self.told:
            report.longrepr = f"{data['headline']} (told above)"
        self.told.add(data["text"])

    def _write(self, nodeid: str) -> None:
        for record in self.pending.pop(nodeid, ()):
            self.summary.scenario(record)
            if self.writer is not None:
                self.writer.scenario(record)

    def pytest_keyboard_interrupt(self) -> None:
        self.interrupted = True

    # -- after --------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        self.failed = bool(session.testsfailed)
        self._finish(exitstatus)
        # A full disk must not cost the summary: pytest's JUnit writer does not expect one.
        try:
            result = yield
        except OSError as error:
            self.summary.problems.append(f"junit.xml could not be written: {error.strerror}")
            result = None
        lost = self.summary.problems or (self.writer is not None and self.writer.problem)
        if self.writer is not None and lost and exitstatus == pytest.ExitCode.OK:
            # The verdicts stand, but what a run is for, its record, is not whole.
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        return result

    def _finish(self, exitstatus: int) -> None:
        if self.listener is not None:
            self.listener.close()
        if self.writer is None:
            return
        for nodeid in list(self.pending):
            self._write(nodeid)
        whole = self.writer.close(
            {
                "finished": _now(),
                "exit_status": int(exitstatus),
                "interrupted": self.interrupted or int(exitstatus) == pytest.ExitCode.INTERRUPTED,
                "environment": self.facts,
            },
            self.summary.not_tested(self.facts),
        )
        if whole is not None:
            self._draw(whole)

    def _draw(self, path: Path) -> None:
        """The reports that are drawn from the record. One that fails costs no other."""
        from harness.report import cli, junit
        from harness.report.record import read

        try:
            record = read(path)
        except RecordError as error:
            self.summary.problems.append(str(error))
            return
        # pytest has only a fixture for it, and the controller of workers has no fixtures.
        xml = self.config.stash.get(xml_key, None)
        for name, value in junit.suite_properties(record) if xml else ():
            xml.add_global_property(name, value)  # type: ignore[union-attr]
        for name, form in DRAWN.items():
            try:
                path.with_name(name).write_text(cli.FORMATS[form](record), encoding="utf-8")
            except OSError as error:
                self.summary.problems.append(f"{name} could not be written: {error.strerror}")

    def pytest_unconfigure(self) -> None:
        """What workers have left on a cluster that they share: one that has died leaves all."""
        if self.writer is None or not self.run.place.shared:
            return
        wanted = self.run.options.keep
        keep = wanted == "always" or (wanted == "failed" and self.failed)
        logs = self.run.directory / "logs"
        for line in place.finish(self.run.cni, self.run.place, logs, failed=self.failed, keep=keep):
            print(f"netpol: {line}")
        try:
            if line := place.clear_away(self.run.place, keep=keep):
                print(f"\nnetpol: {line}")
        except LabError as error:
            print(f"\nWhat this run has made on the cluster is still there: {error}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.writer is None:
            for line in self.summary.planned:
                terminalreporter.write_line(f"netpol: {line}")
            return
        lines = self.summary.lines(self.writer.problem)
        terminalreporter.write_sep("=", "netpol")
        for line, markup in lines:
            terminalreporter.write_line(line, **markup)
        warning = self.facts.get("engine_warning")
        for line in (*([warning] if warning else []), *self.facts.get(DEATHS, ())):
            terminalreporter.write_line(f"policy engine: {line}", yellow=True)
        if "fan_out_warning" in self.facts:
            terminalreporter.write_line(self.facts["fan_out_warning"], yellow=True)
        terminalreporter.write_line(f"report: {self._shown(self.run.directory)}")

    def _shown(self, path: Path) -> str:
        with contextlib.suppress(ValueError):
            return str(path.relative_to(self.config.invocation_params.dir))
        return str(path)


def _merged(facts: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """What labs say of themselves; each worker's knows of the deaths of its own engines."""
    deaths = dict.fromkeys([*facts.get(DEATHS, ()), *more.get(DEATHS, ())])
    return {**facts, **more, **({DEATHS: list(deaths)} if deaths else {})}


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed and str(report.longrepr).startswith("[XPASS(strict)]"):
        return "xpassed"
    if report.failed and report.when != "call":
        return "error"
    return report.outcome


def _why(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    return "" if report.passed else str(report.longrepr)


def _point(link: Path, directory: Path) -> None:
    """Let ``reports/latest`` lead to this run, in one step; where it cannot, it stays as it was."""
    part = link.with_name(f".{LATEST}-{os.getpid()}")
    with contextlib.suppress(OSError):
        part.symlink_to(directory.name)
        part.replace(link)
    with contextlib.suppress(OSError):
        part.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
