"""Covering arrays, scenarios out of them and at random, shrinking, and their YAML."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path

import pytest

from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.flow import Verdict
from harness.model.oracle import expected
from harness.model.policy import NetworkPolicy, Protocol
from harness.model.world import Phase
from harness.scenarios import covering, drawn, generate, labels, pairs, worlds
from harness.scenarios.cells import cells, parse_cell
from harness.scenarios.check import EVERYTHING, check, worlds_of
from harness.scenarios.features import FEATURES
from harness.scenarios.load import load_file
from harness.scenarios.presume import presume
from harness.scenarios.scenario import Probes, Scenario, Step
from harness.scenarios.shrink import focus, shrink, variants
from harness.scenarios.write import to_text

SMALL = {"a": ("1", "2", "3"), "b": ("x", "y"), "c": ("k", "l", "m", "n"), "d": ("p", "q")}


@pytest.mark.parametrize("strength", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_combination_occurs(strength: int, seed: int) -> None:
    found = covering.rows(SMALL, strength, seed)
    for names in combinations(SMALL, strength):
        seen = {tuple(row[name] for name in names) for row in found}
        assert seen == set(product(*(SMALL[name] for name in names)))
    assert all(row.keys() == SMALL.keys() for row in found)
    assert found == covering.rows(SMALL, strength, seed)


def test_far_fewer_rows_than_combinations() -> None:
    assert len(covering.rows(SMALL, 2, 0)) <= 16  # 12 at least, 48 in all
    assert 84 <= len(covering.rows(pairs.FACTORS, 2, 0)) <= 100


@pytest.mark.parametrize("strength", [0, 5])
def test_a_strength_that_makes_no_sense(strength: int) -> None:
    with pytest.raises(ValueError, match="4 factors"):
        covering.rows(SMALL, strength, 0)


def test_pairs_are_scenarios_that_stand_and_deny_something() -> None:
    found = some_pairs()
    assert len({s.id for s in found}) == len(found)
    denied = 0
    for scenario in found:
        check(scenario)
        for one, world in zip(scenario.steps, worlds_of(scenario), strict=True):
            resolved = presume(world)
            asked = cells(resolved, one.probes or scenario.probes, EVERYTHING)
            verdicts = {d.verdict for d in expected(resolved, asked).values()}
            denied += Verdict.DENY in verdicts
    assert denied > len(found) // 2


def test_random_scenarios_are_the_seeds() -> None:
    found = drawn.draw(25, 7)
    assert [repr(s) for s in found] == [repr(s) for s in drawn.draw(25, 7)]
    assert len({repr(s) for s in found}) == 25
    assert found[0].id == "generated/7-00001"
    assert [repr(s) for s in found[:5]] != [repr(s) for s in drawn.draw(5, 8)]
    assert generate.random(7, 25) == found[24]  # however many there are
    for scenario in found:
        check(scenario)


@cache
def some_pairs() -> list[Scenario]:
    return pairs.scenarios()


@cache
def some_drawn() -> list[Scenario]:
    return drawn.draw(60, 5)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "again.yaml"
    for scenario in (*some_pairs()[::7], *some_drawn()[::2]):
        file.write_text(to_text(scenario))
        (again,) = load_file(file)
        assert plain(again) == plain(scenario)


def test_an_order_that_keys_cannot_say_is_written_out(tmp_path: Path) -> None:
    pair = worlds.world("pair")
    policy = NetworkPolicy("x", "p")
    more = [replace(pair.pods["x", "a"], name=name) for name in "cd"]
    relabel = Relabel("Pod", "x", "a", {"pod": "b", "old": None})
    actions = (
        Apply(policy), relabel, Apply(more[0]), Apply(more[1]), Delete("Pod", "x", "c"),
        relabel, Delete("NetworkPolicy", "x", "p"), Finish("x", "b", Phase.FAILED), Apply(policy),
    )  # fmt: skip
    scenario = replace(some_pairs()[0], world=pair, steps=(Step("many", actions),), probes=Probes())
    text = to_text(scenario)
    assert text.count("do:") == 1
    file = tmp_path / "order.yaml"
    file.write_text(text)
    assert plain(load_file(file)[0]) == plain(scenario)


def plain(scenario: Scenario) -> object:
    """What there is of a scenario but for where it was written."""
    return (
        scenario.id, scenario.title, scenario.features, scenario.world, scenario.probes,
        [(one.title, list(map(repr_of, one.actions)), one.probes) for one in scenario.steps],
    )  # fmt: skip


def repr_of(action: object) -> str:
    if isinstance(action, Apply) and isinstance(action.object, NetworkPolicy):
        return to_text_of(action.object)
    return repr(action).replace("mappingproxy({})", "{}").partition("source=")[0]


def to_text_of(policy: NetworkPolicy) -> str:
    from harness.model.manifest import to_yaml

    return to_yaml([policy])


def test_the_smallest_failure() -> None:
    """An engine that takes UDP for TCP at port 80: one policy, one rule, one port are enough."""
    scenario = next(s for s in some_drawn() if len(s.steps) > 1 and _confused(s))
    tried = 0

    def fails(candidate: Scenario) -> bool:
        nonlocal tried
        tried += 1
        return _confused(candidate)

    smallest, used = shrink(scenario, fails, tries=3000)
    assert used == tried < 3000
    assert _confused(smallest)
    assert not any(_confused(v) for v in variants(smallest) if _checks(v))
    assert len(smallest.steps) == 1
    policies = [
        a.object
        for a in smallest.steps[0].actions
        if isinstance(a, Apply) and isinstance(a.object, NetworkPolicy)
    ]
    assert len(policies) == 1
    rules = policies[0].ingress + policies[0].egress
    assert [len(rule.ports) for rule in rules] == [1]
    assert rules[0].peers == ()


def _confused(scenario: Scenario) -> bool:
    """Whether the last step has a rule for UDP that a TCP cell meets."""
    world = worlds_of(scenario)[-1]
    return any(
        port.protocol is Protocol.UDP and port.port == 80
        for policy in world.policies.values()
        for rule in policy.ingress + policy.egress
        for port in rule.ports
    )


def _checks(scenario: Scenario) -> bool:
    try:
        check(scenario)
    except ValueError:
        return False
    return True


def test_shrinking_stops_when_it_has_to() -> None:
    scenario = some_pairs()[0]
    smallest, used = shrink(scenario, lambda _: False, tries=5)
    assert used == 5
    assert smallest.world == scenario.world


def test_only_the_cells_that_failed() -> None:
    scenario = some_pairs()[0]
    cell = parse_cell("x/b -> x/a:80")
    focused = focus(scenario, {cell})
    world = presume(worlds.world("two-by-two"))
    assert cells(world, focused.probes, EVERYTHING) == [cell]


def test_labels_are_borne_out() -> None:
    assert set(labels.TOLD) <= FEATURES.keys()
    found = frozenset[str]().union(*(labels.labels_of(s) for s in (*some_pairs(), *some_drawn())))
    assert found <= labels.TOLD
    rare = {"create-namespace", "delete-namespace", "finish-pod", "sctp", "node-port",
            "service-name", "cluster-network-policy"}  # fmt: skip
    assert rare == labels.TOLD - found
