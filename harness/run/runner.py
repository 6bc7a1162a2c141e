"""Runs scenarios on a lab: change, predict, look, judge, record. Knows nothing of pytest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.cnis.cni import Cni
from harness.labs.base import Evidence, Lab, LabError
from harness.model.actions import Action, Apply
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.flow import (
    Cell,
    CellResult,
    Decision,
    Endpoint,
    EndpointKind,
    Finding,
    Verdict,
)
from harness.model.manifest import to_yaml
from harness.model.oracle import expected
from harness.model.policy import NetworkPolicy
from harness.model.transition import ActionError, step
from harness.model.world import Pod, World
from harness.probes.prober import Listening, Prober
from harness.probes.settle import Settled, Timing, settle
from harness.report.record import ScenarioRecord, StepRecord
from harness.run.baseline import Baseline
from harness.run.reset import changes, without_policies
from harness.run.words import WRONG, action_text, namespaces_of, pods_of, tally
from harness.scenarios.cells import cells, possible
from harness.scenarios.check import hold
from harness.scenarios.features import needs
from harness.scenarios.presume import presume
from harness.scenarios.scenario import Checked, Probes, Scenario, Step
from harness.scenarios.tree import ScenarioError

#: Cells for which evidence is taken where many are wrong.
_EVIDENCE_CELLS = 4
#: The deadline, in seconds, where the catalogue says that nothing is enforced.
_NOTHING_TO_WAIT_FOR = 0.5


@dataclass(frozen=True, slots=True)
class Looked:
    """What a check of a step is given: the world as the lab resolved it, and what was seen."""

    lab: Lab
    cni: Cni | None
    prober: Prober
    world: World
    results: tuple[CellResult, ...]


class Runner:
    """One lab, one CNI, scenarios one after the other.

    The world of a scenario stays up when it is over: the next one changes what differs. Its
    policies are taken away at once, and what they denied has to be open again: a scenario that
    leaves something behind fails for it, and the next one finds a lab made anew.

    ``deadline``: seconds that a change may take to be enforced; ``timeout``: the shortest silence
    that counts as a denial; ``hold``: how long cells must stay as expected; None: the defaults of
    :class:`~harness.probes.settle.Timing`. ``evidence``: ``failed``, ``always`` or ``never``.
    ``progress`` is called with a line now and then. The lab has to be up.
    """

    def __init__(
        self,
        lab: Lab,
        cni: Cni | None = None,
        *,
        timing: Timing | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
        hold: float | None = None,
        evidence: str = "failed",
        progress: Callable[[str], None] | None = None,
        listening: Listening | None = None,
    ) -> None:
        self.lab = lab
        self.cni = cni
        base = timing or Timing()
        wait = base.deadline if deadline is None else deadline
        if cni is not None and not cni.enforces:
            wait = min(wait, _NOTHING_TO_WAIT_FOR)
        self.timing = replace(
            base,
            deadline=wait,
            silence=base.silence if timeout is None else timeout,
            hold=base.hold if hold is None else hold,
        )
        self.evidence = evidence
        self.progress = progress or (lambda _: None)
        self.prober = Prober(lab, listening)
        self._begin()

    def _begin(self) -> None:
        """Nothing is known yet of the lab, which has just come up."""
        self._given = self.lab.resolve(World()).externals  # outside hosts are there from the start
        self._world = World(externals=self._given)  # as asked for, without what the lab fills in
        self._open = Baseline()
        self._before: dict[Cell, Verdict] = {}  # what was expected until now
        self._broken = ""

    def close(self) -> None:
        """Close the clients' shells. The lab is left as it is."""
        self.prober.close()

    def reduce(self, to: Callable[[World], World]) -> None:
        """Of the world that the last scenario has left up keep only what ``to`` returns. Raises
        LabError."""
        if self._broken:
            self._renew()
        else:
            self._apply(changes(self._world, to(self._world)))

    # -- a scenario ----------------------------------------------------------------------------

    def run(self, scenario: Scenario) -> ScenarioRecord:
        """Run it and return its record. Never raises for what goes wrong in the lab: the record's
        outcome is then ``error``, and what was not really probed is unknown."""
        if reason := self.lacking(scenario):
            return self.skipped(scenario, reason)
        started = time.monotonic()
        record = _blank(scenario)
        try:
            self._run(scenario, record)
        except LabError as wrong:
            record.outcome, record.message = "error", str(wrong)
            self._broken = wrong.message
        except (ScenarioError, ActionError) as wrong:
            record.outcome, record.message = "error", str(wrong)
        record.seconds = time.monotonic() - started
        return record

    def skipped(self, scenario: Scenario, reason: str) -> ScenarioRecord:
        """The record of a scenario that is not run, and why."""
        record = _blank(scenario)
        record.outcome, record.message = "skipped", reason
        return record

    def lacking(self, scenario: Scenario) -> str:
        """Why the scenario cannot be run here, or ""."""
        reasons = []
        for feature in sorted(needs(scenario)):
            if self.cni is not None and feature in self.cni.lacks:
                reasons.append(f"{self.cni.title} has no {feature}: {self.cni.lacks[feature]}")
            elif feature not in self.lab.features:
                why = self.lab.missing.get(feature, "the lab does not offer it")
                reasons.append(f"no {feature} here: {why}")
        return "; ".join(reasons)

    def _run(self, scenario: Scenario, record: ScenarioRecord) -> None:
        if self._broken:
            self._renew()
        # What cannot be had is left out; scenarios that are about it have been skipped.
        outside = scenario.world.externals if "external" in self.lab.features else {}
        whole = scenario.world.with_(externals={**self._given, **outside})
        bare = without_policies(whole)
        self._apply(changes(self._world, bare))
        all_probes = [one.probes or scenario.probes for one in scenario.steps]
        before = self._look_open("before any policy", all_probes, self.prober.now())
        if before:
            record.steps.append(before)
            record.outcome, record.message = _outcome(record.steps)
            self._broken = record.message
            return
        # The policies that the scenario's world begins with come with the first step.
        actions = changes(bare, whole)
        for number, (one, probes) in enumerate(zip(scenario.steps, all_probes, strict=True), 1):
            self.progress(f"{scenario.id}: {number}/{len(scenario.steps)} {one.title}")
            actions += one.actions
            step_record = StepRecord(one.title, one.why, [action_text(a) for a in actions])
            record.steps.append(step_record)
            where = f"{scenario.id}, step {number} ({one.title})"
            try:
                self._step(step_record, actions, one, probes, where)
            except LabError as wrong:
                self._unknown(step_record, actions, probes, wrong)
                raise
            actions = []
        record.outcome, record.message = _outcome(record.steps)
        self._take_down(all_probes, record)

    def _step(
        self,
        record: StepRecord,
        actions: Sequence[Action],
        one: Step,
        probes: Probes,
        where: str,
    ) -> None:
        changed = self._apply(actions)
        record.timeline["applied"] = self.prober.now() - changed
        world = self._resolved()
        decisions = self._expected(world, [probes])
        self._hold(one, world, decisions, where)
        baseline = self._open.of(world, decisions)
        made = any(isinstance(one, Apply) and isinstance(one.object, Pod) for one in actions)
        settled = settle(
            self.prober,
            decisions,
            # How long pods take to start says nothing of how fast policies are enforced.
            self.prober.now() if made else changed,
            self.timing,
            baseline=baseline,
            in_parts=len(actions) > 1,
            turned={c for c, d in decisions.items() if self._before.get(c) is not d.verdict},
        )
        self.lab.check()
        self._fill(record, world, settled, changed)
        self._before.update((cell, d.verdict) for cell, d in decisions.items())
        looked = Looked(self.lab, self.cni, self.prober, world, settled.results)
        for check in one.checks:
            record.checks += [_entry(checked) for checked in check(looked)]
        self._take_evidence(record, world, settled.results)
        record.timeline["ended"] = self.prober.now() - changed
        self._open.denied(r.cell for r in settled.results if r.decision.verdict is Verdict.DENY)

    def _look_open(
        self, title: str, all_probes: Sequence[Probes], changed: float
    ) -> StepRecord | None:
        """Look at what is not known to be open, once, now that there is no policy. Returns the
        record of this look if it was not as it should be."""
        world = self._resolved()
        decisions = self._expected(world, all_probes)
        wanted = {cell: decisions[cell] for cell in self._open.missing(world, decisions)}
        settled = settle(self.prober, wanted, changed, self.timing, once=True)
        self.lab.check()
        good = (Finding.AGREES, Finding.UNDEFINED)
        self._open.looked(world, (r.cell for r in settled.results if r.finding in good))
        record = None
        if any(r.finding not in good for r in settled.results):
            why = "without a policy everything is open, and a denial means nothing unless it was"
            record = StepRecord(title, why)
            self._fill(record, world, settled, changed)
            self._take_evidence(record, world, settled.results)
        self._before = {cell: d.verdict for cell, d in decisions.items()}
        return record

    def _take_down(self, all_probes: Sequence[Probes], record: ScenarioRecord) -> None:
        """Take the policies away; what they denied has to be open again."""
        changed = self._apply(changes(self._world, without_policies(self._world)))
        after = self._look_open("after the policies were deleted again", all_probes[-1:], changed)
        if after:
            record.steps.append(after)
            outcome, what = _outcome([after])
            if record.outcome != "failed":
                record.outcome = outcome
            left = f"{record.id} left something behind: {what}"
            record.message = f"{record.message}; {left}" if record.message else left
            self._broken = left

    # -- the lab -------------------------------------------------------------------------------

    def _apply(self, actions: Sequence[Action]) -> float:
        """Perform the actions. Returns when, just before."""
        world = self._world
        for action in actions:
            world = step(world, action)
        for key, pod in self._world.pods.items():
            if world.pods.get(key) is not pod and not _relabelled(pod, world.pods.get(key)):
                self._forget(Endpoint(EndpointKind.POD, *key))
        for name, external in self._world.externals.items():
            if world.externals.get(name) is not external:
                self._forget(Endpoint(EndpointKind.EXTERNAL, "", name))
        if not actions:
            return self.prober.now()
        changed = self.lab.apply(actions)
        self._world = world
        return changed

    def _forget(self, endpoint: Endpoint) -> None:
        self.prober.forget(endpoint)
        self._open.gone(endpoint)

    def _resolved(self) -> World:
        world = self.lab.resolve(self._world)
        self.prober.begin(world)
        return world

    def _expected(self, world: World, all_probes: Sequence[Probes]) -> dict[Cell, Decision]:
        asked = dict.fromkeys(
            cell
            for probes in dict.fromkeys(all_probes)
            for cell in cells(world, probes, self.lab.features)
        )
        return expected(world, asked, self.cni.profile if self.cni else {})

    def _hold(
        self, one: Step, world: World, decisions: Mapping[Cell, Decision], where: str
    ) -> None:
        """Verdicts by hand are about the specification, whatever a CNI's profile says."""
        by_hand = [e for e in one.expect if possible(e.cell, self.lab.features)]
        if by_hand and self.cni and self.cni.profile:
            decisions = expected(world, decisions)
        hold(by_hand, decisions, where)

    def _renew(self) -> None:
        """Make the lab anew: nobody knows any more what is in it."""
        self.progress(f"the lab is made anew: {self._broken}")
        self.prober.close()
        self.lab.down()
        self.lab.up()
        self._begin()

    # -- the record ----------------------------------------------------------------------------

    def _fill(self, record: StepRecord, world: World, settled: Settled, changed: float) -> None:
        for name, at in settled.times.items():
            record.timeline[name] = at - changed
        for result in settled.results:
            # What is as it was has not been enforced just now.
            same = self._before.get(result.cell) is result.decision.verdict
            record.add(replace(result, latency=None) if same else result)
        record.policies = policies_text(self._world)
        record.pods = pods_of(self._world, world)
        record.namespaces = namespaces_of(self._world)

    def _take_evidence(
        self, record: StepRecord, world: World, results: Sequence[CellResult]
    ) -> None:
        wrong = [r.cell for r in results if r.finding in WRONG or r.finding is Finding.UNKNOWN]
        if self.evidence == "never" or (self.evidence == "failed" and not wrong):
            return
        about = (wrong or [r.cell for r in results])[:_EVIDENCE_CELLS]
        try:
            taken = self.lab.evidence(world, about)
        except LabError as error:
            taken = (Evidence("evidence could not be taken", "", "", str(error)),)
        record.evidence = [
            {"title": e.title, "node": e.node, "command": e.command, "text": e.text} for e in taken
        ]

    def _unknown(
        self, record: StepRecord, actions: Sequence[Action], probes: Probes, wrong: LabError
    ) -> None:
        """Nothing was looked at: every cell that would have been is unknown."""
        if record.cells:
            return
        world = self._world
        for action in actions:
            try:
                world = step(world, action)
            except ActionError:
                continue
        note = f"it was never probed: {wrong.message}"
        for cell, decision in self._expected(presume(world), [probes]).items():
            record.add(CellResult(cell, decision, Finding.UNKNOWN, note=note))
        record.policies = policies_text(world)
        record.pods = pods_of(world, world)
        record.namespaces = namespaces_of(world)


def _blank(scenario: Scenario) -> ScenarioRecord:
    return ScenarioRecord(
        id=scenario.id,
        title=scenario.title,
        why=scenario.why,
        features=sorted(scenario.features),
        source=str(scenario.source or ""),
    )


def _outcome(steps: Sequence[StepRecord]) -> tuple[str, str]:
    """The scenario's outcome and what to say of it. What is definitely wrong counts for more than
    what is unknown."""
    found = [word for one in steps if (word := tally(one))]
    wrong = any(c.finding in WRONG for one in steps for c in one.cells)
    unknown = any(c.finding == Finding.UNKNOWN for one in steps for c in one.cells)
    checks = {check["outcome"] for one in steps for check in one.checks}
    if wrong or "failed" in checks:
        return "failed", "; ".join(found)
    if unknown or "error" in checks:
        return "error", "; ".join(found)
    return "passed", ""


def _relabelled(old: Pod, new: Pod | None) -> bool:
    return new is not None and new.live and replace(old, labels=new.labels) == new


def _entry(checked: Checked) -> dict[str, str]:
    return {"name": checked.name, "outcome": checked.outcome, "text": checked.text}


def policies_text(world: World) -> str:
    """The policies in force, as YAML."""
    return _yaml((*world.policies.values(), *world.cluster_policies.values()))


@lru_cache(maxsize=64)
def _yaml(policies: tuple[NetworkPolicy | ClusterNetworkPolicy, ...]) -> str:
    return to_yaml(policies)
