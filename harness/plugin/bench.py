"""The one lab of this process and the runner on it: up when first needed, down at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.labs.base import Lab, LabError
from harness.plugin.live import Live
from harness.report.record import ScenarioRecord
from harness.run import apart, place
from harness.run.runner import Runner
from harness.scenarios.families import in_families
from harness.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from harness.plugin.session import Run

#: Seconds that a change is given where the CNI enforces nothing: there is nobody to wait for.
IDLE_DEADLINE = 0.5
#: Engines of clusters on machines that are busy starting pods have been seen to need 12 seconds.
CLUSTER_DEADLINE = 15.0


class Bench:
    """Owns the lab. The first failure to provision is remembered: nobody waits for it again."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self.config = config
        self.run = run
        self.live = Live.of(config)
        workerinput = getattr(config, "workerinput", None)
        self.worker: str = workerinput["workerid"] if workerinput else ""
        self.failed = False
        self._lab: Lab | None = None
        self._runner: Runner | None = None
        self._error: LabError | None = None

    @property
    def lab(self) -> Lab:
        """The lab, up. Raises LabError."""
        if self._error is not None:
            raise self._error
        if self._lab is None:
            here = replace(self.run.place, worker=self.worker)
            lab = place.make(self.run.cni, here, self._logs("lab"))
            started = time.monotonic()
            self.live.say(f"lab {self.run.place.name} is coming up …")
            try:
                lab.up()
            except LabError as error:
                self._error = error
                lab.down()
                raise
            self._lab = lab
            self.live.say(f"lab up in {time.monotonic() - started:.1f} s")
        return self._lab

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = self._runner_on(self.lab)
        return self._runner

    def _runner_on(self, lab: Lab) -> Runner:
        options, enforces = self.run.options, self.run.cni.enforces
        usual = None if self.run.place.lab == "netns" else CLUSTER_DEADLINE
        return Runner(
            lab,
            self.run.cni,
            deadline=options.deadline or (usual if enforces else IDLE_DEADLINE),
            timeout=options.timeout,
            hold=options.hold,
            evidence=options.evidence or ("failed" if enforces else "never"),
            progress=self.live.say,
        )

    def _logs(self, name: str) -> Path:
        """Where a lab of this process leaves its logs."""
        return self.run.directory / "logs" / "-".join(filter(None, (name, self.worker)))

    @contextmanager
    def on(self, fabric: str) -> Iterator[Runner]:
        """A runner on a fabric: the lab's own, or a lab that is made for it and ends with it.
        Raises LabError."""
        if fabric == self.run.place.fabric:
            yield self.runner
            return
        elsewhere = replace(self.run.place, fabric=fabric)
        lab = place.make(self.run.cni, elsewhere, self._logs(fabric))
        lab.up()
        runner = self._runner_on(lab)
        try:
            yield runner
        finally:
            runner.close()
            lab.down()

    def measure(
        self, item: pytest.Item, scenario: Scenario, runner: Runner | None = None
    ) -> ScenarioRecord:
        """Run one scenario for a test and keep its record with the test."""
        from harness.plugin.items import RECORDS

        spoken = in_families(scenario, self.run.place.families)
        record = self._measured(spoken, runner or self.runner)
        replay = getattr(item, "replay", None)
        record.rerun = self.run.rerun(*(replay() if replay else [item.nodeid]))
        record.worker = self.worker
        item.stash.setdefault(RECORDS, []).append(record)
        self.failed |= record.outcome in ("failed", "error")
        return record

    def _measured(self, scenario: Scenario, runner: Runner) -> ScenarioRecord:
        """Run it; on a cluster that is shared in its turn, and only if it keeps to itself."""
        if not self.run.place.shared:
            return runner.run(scenario)
        if not self.run.place.reaches_all and (why := apart.wide(scenario)):
            return runner.skipped(scenario, f"{why}: --lab-cluster-wide runs it all the same")
        alone = apart.alone(scenario)
        with self.turns.take(alone=alone):
            record = runner.run(scenario)
            if alone:
                runner.reduce(apart.tame)
            return record

    @cached_property
    def turns(self) -> apart.Turns:
        """Turns with the other workers of the run."""
        return apart.Turns(self.run.directory / "logs")

    def facts(self) -> Mapping[str, Any]:
        """What the lab says of itself, empty while it is not up."""
        return dict(self._lab.facts()) if self._lab is not None else {}

    def close(self) -> None:
        """The tests are over: end the lab, unless it is to be kept for a while."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        if not self._kept:
            self._down()
        if "turns" in self.__dict__:
            self.turns.close()

    @property
    def _kept(self) -> bool:
        wanted = self.run.options.keep
        return wanted == "always" or (wanted == "failed" and self.failed)

    def keep(self) -> None:
        """Leave a kept lab up until Ctrl-C, and say how to get in. It lives no longer than this
        process, so that nothing of it is ever left behind."""
        if self._lab is None:
            return
        try:
            if self._kept and self.run.place.lab == "kubeconfig":
                self._lab = None  # what is on the cluster stays without this process
                return
            if not self._kept or self.run.place.shared:
                return
            if _has_terminal():
                with suppress(KeyboardInterrupt):
                    print(f"\nThe lab is kept until Ctrl-C. {place.way_in(self._lab)}", flush=True)
                    signal.pause()
            else:
                print("\nThe lab is not kept: there is no terminal whose Ctrl-C would end it.")
        finally:
            self._down()

    def _down(self) -> None:
        lab, self._lab = self._lab, None
        if lab is not None:
            lab.down()


def _has_terminal() -> bool:
    """Whether somebody can press Ctrl-C; pytest puts something else in the place of stdin."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True
