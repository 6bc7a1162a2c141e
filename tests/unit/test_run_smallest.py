"""Failures made small, on a lab with a known fault."""

from __future__ import annotations

from functools import cache

from fake_lab import DROP, Answer, Asked, FakeLab, allowed

from harness.model.actions import Apply
from harness.model.policy import NetworkPolicy, Operator
from harness.run.runner import Runner
from harness.run.smallest import smallest
from harness.scenarios import drawn
from harness.scenarios.check import worlds_of
from harness.scenarios.scenario import Scenario
from harness.scenarios.write import to_text


class Faulty(FakeLab):
    """Takes every policy with a NotIn anywhere in its subject for one that selects nobody."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rule = self.leak

    def leak(self, asked: Asked, lawful: Answer) -> Answer:
        if lawful is not DROP or not any(map(odd, self.world.policies.values())):
            return lawful
        pods = self.resolve(self.world).pods.values()
        return next((allowed(str(p)) for p in pods if asked.host in p.ips), lawful)


def odd(policy: NetworkPolicy) -> bool:
    expressions = policy.pod_selector.match_expressions
    return any(item.operator is Operator.NOT_IN for item in expressions)


@cache
def candidates() -> list[Scenario]:
    return [
        scenario
        for scenario in drawn.draw(60, 2)
        if any(map(odd, worlds_of(scenario)[-1].policies.values()))
    ]


def first_failure(runner: Runner) -> Scenario:
    return next(s for s in candidates() if runner.run(s).outcome == "failed")


def test_a_failure_is_made_small_on_the_lab() -> None:
    lab = Faulty()
    lab.up()
    runner = Runner(lab, listening=lab.listening, deadline=0.5)
    scenario = first_failure(runner)
    record = runner.run(scenario)
    found = smallest(runner, scenario, record, seconds=600)
    assert found.record.outcome == "failed"
    assert found.tried > 3
    assert len(found.scenario.steps) == 1
    policies = [
        a.object
        for a in found.scenario.steps[0].actions
        if isinstance(a, Apply) and isinstance(a.object, NetworkPolicy)
    ]
    assert len(policies) <= 2  # the odd one, and one that denies if it does not do so itself
    assert any(map(odd, policies))
    assert all(policy.ingress == policy.egress == () for policy in policies)
    assert len(found.scenario.world.pods) <= 2
    assert len(to_text(found.scenario)) < len(to_text(scenario))
    assert runner.timing.deadline == 0.5


def test_what_does_not_fail_again_stays_as_it_was() -> None:
    lab = Faulty()
    lab.up()
    runner = Runner(lab, listening=lab.listening, deadline=0.5)
    scenario = first_failure(runner)
    record = runner.run(scenario)
    lab.rule = None
    found = smallest(runner, scenario, record)
    assert found.scenario is scenario
    assert found.record is record


def test_it_ends_when_its_time_is_over() -> None:
    lab = Faulty()
    lab.up()
    runner = Runner(lab, listening=lab.listening, deadline=0.5)
    scenario = first_failure(runner)
    record = runner.run(scenario)
    assert smallest(runner, scenario, record, seconds=0).tried <= 2
