"""The runner, on a lab whose clock the test owns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from fake_lab import DROP, Answer, Asked, FakeLab, allowed

from harness.cnis.cni import Cni
from harness.labs.base import LabError
from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.flow import Cell, Endpoint, Finding, Verdict, Via
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import External, Namespace, Pod, World
from harness.run.reset import changes, without_policies
from harness.run.runner import Looked, Runner
from harness.scenarios import worlds
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Checked, Expectation, Probes, Scenario, Step

DENY = NetworkPolicy("x", "deny")
ALLOW_B = NetworkPolicy(
    "x", "b", LabelSelector((("pod", "a"),)),
    ingress=(Rule((Peer(LabelSelector((("pod", "b"),))),)),),
)  # fmt: skip
STEPS = (
    Step("denied", (Apply(DENY),)),
    Step("b gets in", (Apply(ALLOW_B),)),
    Step("open", (Delete("NetworkPolicy", "x", "deny"), Delete("NetworkPolicy", "x", "b"))),
)


def scenario(
    *steps: Step, name: str = "pair/deny", world: str = "pair", **more: object
) -> Scenario:
    return Scenario(
        id=name,
        title="x is shut off",
        why="no rule allows anything",
        world=worlds.world(world),
        steps=steps or STEPS,
        features=frozenset({"ingress", "tcp"}),
        **more,  # type: ignore[arg-type]
    )


def runner(lab: FakeLab, **more: object) -> Runner:
    lab.up()
    return Runner(lab, listening=lab.listening, **more)  # type: ignore[arg-type]


def findings(record: object) -> list[list[str]]:
    return [[c.finding for c in s.cells] for s in record.steps]  # type: ignore[attr-defined]


def test_a_scenario_that_passes() -> None:
    lab = FakeLab(lag=0.03)
    record = runner(lab).run(scenario())
    assert (record.outcome, record.message) == ("passed", "")
    assert [s.title for s in record.steps] == ["denied", "b gets in", "open"]
    assert findings(record) == [["agrees"] * 2] * 3
    first = record.steps[0]
    assert first.actions == ["apply NetworkPolicy x/deny"]
    assert "kind: NetworkPolicy" in first.policies
    assert [p["name"] for p in first.pods] == ["x/a", "x/b"]
    assert first.pods[0]["ips"]
    assert {"applied", "first_look", "agreed", "held", "ended"} <= first.timeline.keys()
    assert 0.03 <= first.timeline["agreed"] <= first.timeline["held"] <= first.timeline["ended"]
    assert first.cells[0].latency is not None
    assert first.cells[0].latency >= 0.03
    assert first.evidence == []
    second = {(c.source, c.target): c.latency for c in record.steps[1].cells}
    assert second["x/a", "x/b"] is None  # it was denied before
    assert second["x/b", "x/a"] is not None
    assert not lab.world.policies


def test_the_baseline_is_looked_at_once() -> None:
    lab = FakeLab()
    run = runner(lab)
    run.run(scenario(Step("open"), name="one"))
    first = lab.probes
    run.run(scenario(Step("open"), name="two"))
    assert first == 2 + 4
    assert lab.probes - first == 4


def test_what_was_denied_is_looked_at_again() -> None:
    """What is left of one scenario must not do the work of the next."""

    def keeps(asked: Asked, lawful: Answer) -> Answer:
        # Once denied, denied for good.
        denied.update({asked.host} if lawful is DROP else ())
        return DROP if asked.host in denied and str(asked.source) != own[asked.host] else lawful

    denied: set[str] = set()
    own: dict[str, str] = {}
    lab = FakeLab(rule=keeps)
    run = runner(lab, deadline=1)
    world = lab.resolve(worlds.world("pair"))
    own.update({pod.ips[0]: str(pod) for pod in world.pods.values()})
    record = run.run(scenario(STEPS[0], name="first"))
    assert record.outcome == "failed"
    assert "first left something behind" in record.message
    assert [s.title for s in record.steps][-1] == "after the policies were deleted again"
    denied.clear()
    record = run.run(scenario(Step("open"), name="second"))
    assert record.outcome == "passed"
    assert lab.ups == 2  # made anew


def test_a_leak_fails_and_brings_evidence() -> None:
    lab = FakeLab(rule=lambda a, lawful: allowed("x/a") if str(a.source) == "x/b" else lawful)
    record = runner(lab, deadline=1).run(scenario(STEPS[0]))
    assert record.outcome == "failed"
    assert "1 leak: x/b -> x/a:80/TCP" in record.message
    (cell,) = [c for c in record.steps[0].cells if c.finding == "leak"]
    assert cell.outcomes["allowed"] > 3
    assert cell.because is not None
    assert record.steps[0].reasons[cell.because]["verdict"] == "deny"
    assert record.steps[0].evidence[0]["command"] == "iptables-save"


def test_no_enforcement_fails_every_denial_and_nothing_else() -> None:
    def open_wide(asked: Asked, lawful: Answer) -> Answer:
        if lawful is not DROP:
            return lawful
        pods = lab.resolve(lab.world).pods.values()
        return allowed(next(str(p) for p in pods if asked.host in p.ips))

    lab = FakeLab(rule=open_wide)
    record = runner(lab, deadline=0.3).run(scenario())
    assert findings(record) == [["leak"] * 2, ["agrees", "leak"], ["agrees"] * 2]
    assert record.outcome == "failed"


def test_a_way_that_never_was_open_is_told_before_any_policy() -> None:
    lab = FakeLab(rule=lambda a, lawful: DROP if a.port == 80 else lawful)
    record = runner(lab, deadline=0.3).run(scenario())
    assert [s.title for s in record.steps] == ["before any policy"]
    assert record.outcome == "error"  # nobody answers there, not even to itself
    assert "unknown" in record.message


def test_a_lab_that_breaks_is_an_error_with_unknown_cells_and_is_made_anew() -> None:
    class Breaks(FakeLab):
        def apply(self, actions):  # type: ignore[no-untyped-def]
            if any(getattr(a, "object", None) is DENY for a in actions) and self.ups == 1:
                raise LabError("the node fell over", hint="pick it up")
            return super().apply(actions)

    lab = Breaks()
    run = runner(lab)
    record = run.run(scenario())
    assert record.outcome == "error"
    assert "the node fell over" in record.message
    assert findings(record) == [["unknown"] * 2]
    assert "the node fell over" in record.steps[0].cells[0].note
    assert run.run(scenario()).outcome == "passed"
    assert lab.ups == 2


def test_what_is_seen_while_the_lab_comes_to_grief_is_unknown() -> None:
    """However well it agrees."""

    class Dies(FakeLab):
        def apply(self, actions):  # type: ignore[no-untyped-def]
            if any(getattr(a, "object", None) is DENY for a in actions) and self.ups == 1:
                self.fault = "the API server has died"
            return super().apply(actions)

        def up(self) -> None:
            self.fault = ""
            super().up()

    lab = Dies()
    run = runner(lab)
    record = run.run(scenario())
    assert record.outcome == "error"
    assert "the API server has died" in record.message
    assert findings(record) == [["unknown"] * 2]
    assert run.run(scenario()).outcome == "passed"


def test_a_scenario_that_the_lab_cannot_do_is_skipped_with_the_reason() -> None:
    lab = FakeLab(missing={"sctp": "the kernel has no SCTP"})
    needs_sctp = replace(scenario(), features=frozenset({"sctp"}))
    record = runner(lab).run(needs_sctp)
    assert (record.outcome, record.message) == ("skipped", "no sctp here: the kernel has no SCTP")
    assert lab.probes == 0
    weak = Cni("weak", "Weak", "routed", ("netns",), True, lacks={"udp": "its rules are TCP only"})
    run = Runner(lab, weak, listening=lab.listening)
    record = run.run(replace(scenario(), features=frozenset({"udp"})))
    assert record.outcome == "skipped"
    assert "Weak has no udp: its rules are TCP only" in record.message


def test_a_profile_settles_what_is_left_open() -> None:
    hairpin = Cell(Endpoint.parse("x/a"), Endpoint.parse("svc:x/s-x-a"), 80, via=Via.SERVICE_IP)
    asks = scenario(Step("open", probes=Probes(vias=(), extra=(hairpin,))))
    assert findings(runner(FakeLab()).run(asks)) == [["undefined"]]
    pinned = Cni("sure", "Sure", "routed", ("netns",), True, profile={"hairpin": "allow"})
    assert findings(runner(FakeLab(), cni=pinned).run(asks)) == [["agrees"]]


def test_expectations_by_hand_are_of_the_specification_and_not_of_a_profile() -> None:
    text = "x/a -> svc:x/s-x-a:80"
    hairpin = parse_cell(text)
    by_hand = (Expectation(hairpin, Verdict.UNDEFINED),)
    asks = scenario(Step("open", probes=Probes(vias=(), extra=(hairpin,)), expect=by_hand))
    pinned = Cni("sure", "Sure", "routed", ("netns",), True, profile={"hairpin": "allow"})
    assert runner(FakeLab(), cni=pinned).run(asks).outcome == "passed"


def test_the_outside_host_of_the_lab_comes_back() -> None:
    lab = FakeLab()
    run = runner(lab)
    own = lab.resolve(World()).externals["outside"]
    other = External("outside", ("203.0.113.99",))
    world = worlds.world("pair").with_(externals={"outside": other})
    run.run(replace(scenario(Step("open")), world=world))
    assert lab.world.externals["outside"] == other
    run.run(scenario(Step("open")))
    assert lab.world.externals["outside"] == own


def test_outside_hosts_are_left_out_where_there_are_none() -> None:
    """Scenarios that are about them are skipped; the others lose some cells."""

    class Inside(FakeLab):
        def up(self) -> None:
            self.history = [(0.0, World())]

    lab = Inside(features=frozenset({"ipv4"}))
    outside = {"outside": External("outside", ("203.0.113.9",))}
    world = worlds.world("pair").with_(externals=outside)
    record = runner(lab).run(replace(scenario(), world=world))
    assert record.outcome == "passed"
    assert not any(isinstance(getattr(a, "object", None), External) for a in lab.applied)


def test_an_expectation_by_hand_that_the_oracle_does_not_share_is_an_error() -> None:
    cell = Cell(Endpoint.parse("x/a"), Endpoint.parse("x/b"), 80)
    wrong = replace(STEPS[0], expect=(Expectation(cell, Verdict.ALLOW),))
    record = runner(FakeLab()).run(scenario(wrong))
    assert record.outcome == "error"
    assert "is expected to be allow" in record.message


def test_checks_beside_the_cells_count() -> None:
    seen: list[Looked] = []

    def check(looked: Looked) -> Iterable[Checked]:
        seen.append(looked)
        yield Checked("rules first", "passed")
        yield Checked("counters", "failed", "nothing moved")

    record = runner(FakeLab()).run(scenario(replace(STEPS[0], checks=(check,))))
    assert record.outcome == "failed"
    assert "counters: failed" in record.message
    assert seen[0].results[0].finding is Finding.AGREES
    assert seen[0].world.pods["x", "a"].ips


def test_pods_that_come_and_go() -> None:
    made = Pod("x", "c", {"pod": "c"}, ports=worlds.world("pair").pods["x", "a"].ports)
    record = runner(FakeLab()).run(
        scenario(
            Step("deny", (Apply(DENY),)),
            Step("new", (Apply(made),)),
            Step("relabelled", (Apply(ALLOW_B), Relabel("Pod", "x", "c", {"pod": "b"}))),
            Step("finished", (Finish("x", "b"),)),
            Step("gone", (Delete("Pod", "x", "c"), Apply(made))),
        )
    )
    assert record.outcome == "passed", record.message
    assert [len(s.cells) for s in record.steps] == [2, 6, 6, 2, 2]


def test_the_world_is_changed_by_the_smallest_difference() -> None:
    lab = FakeLab()
    run = runner(lab)
    run.run(scenario(Step("open"), name="pair"))
    lab.applied.clear()
    run.run(scenario(Step("open"), name="again"))
    assert lab.applied == []
    run.run(scenario(Step("labels", (Relabel("Pod", "x", "a", {"pod": "q"}),)), name="labels"))
    lab.applied.clear()
    run.run(scenario(Step("open"), name="back"))
    assert lab.applied == [Relabel("Pod", "x", "a", {"pod": "a"})]


def test_policies_of_the_world_come_with_the_first_step() -> None:
    lab = FakeLab()
    world = worlds.world("pair").with_(policies={DENY.key: DENY})
    record = runner(lab).run(replace(scenario(Step("as found")), world=world))
    assert record.outcome == "passed"
    assert record.steps[0].actions == ["apply NetworkPolicy x/deny"]
    assert record.steps[0].cells[0].expected == "deny"


@pytest.mark.parametrize(
    ("current", "wanted"),
    [("pair", "three-by-three"), ("three-by-three", "pair"), ("demo", "named-ports")],
)
def test_changes_lead_from_any_world_to_any_other(current: str, wanted: str) -> None:
    from harness.model.transition import step

    begin, end = worlds.world(current), worlds.world(wanted)
    begin = begin.with_(policies={("x", "deny"): DENY} if "x" in begin.namespaces else {})
    world = begin
    for action in changes(begin, end):
        world = step(world, action)
    assert world == end
    assert changes(end, end) == []
    assert without_policies(begin).policies == {}


def test_a_namespace_that_differs_is_relabelled_and_not_made_anew() -> None:
    world = worlds.world("pair")
    other = world.with_(namespaces={"x": Namespace("x", {"team": "red"})})
    assert changes(world, other) == [Relabel("Namespace", "", "x", {"ns": None, "team": "red"})]
