"""Scenarios held against the model before any lab is started.

Verdicts written by hand and the oracle are two readings of the specification. Where they differ
one of them is wrong, and no packet needs to be sent to know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.model.flow import Cell, Decision, Verdict
from harness.model.oracle import expected
from harness.model.profile import REASONS
from harness.model.routing import UnknownEndpointError
from harness.model.transition import ActionError, step
from harness.model.world import World
from harness.scenarios import features
from harness.scenarios.cells import cells, matches_cell
from harness.scenarios.presume import lab_made, presume
from harness.scenarios.scenario import Expectation, Scenario
from harness.scenarios.tree import ScenarioError

#: A lab that can do everything: what is checked must not depend on which one will run it.
EVERYTHING = frozenset(
    {"ipv4", "ipv6", "tcp", "udp", "sctp", "dns", "node-client", "external", "node-port",
     "host-port", "host-network"}
)  # fmt: skip


def check(scenario: Scenario) -> None:
    """Raises :class:`ScenarioError` for a scenario that cannot be right.

    Looked at: its labels, every step's actions, that every step asks something, and that the
    oracle shares every verdict written by hand. Cells of nodes are left to the run, since their
    names are the lab's.
    """
    if wrong := features.unknown(scenario.features):
        raise ScenarioError(scenario.source, f"{scenario.id}: {wrong}")
    if not scenario.steps:
        raise ScenarioError(scenario.source, f"{scenario.id} has no steps")
    world = scenario.world
    for number, one in enumerate(scenario.steps, 1):
        where = f"{scenario.id}, step {number} ({one.title})"
        for action in one.actions:
            try:
                world = step(world, action)
            except ActionError as impossible:
                raise ScenarioError(
                    one.source or scenario.source, f"{where}: impossible action: {impossible}"
                ) from None
        resolved = presume(world)
        asked = cells(resolved, one.probes or scenario.probes, EVERYTHING)
        if not asked:
            raise ScenarioError(
                one.source or scenario.source,
                f"{where}: nothing is asked",
                "look at probe: ports, via, sources, targets, and at the ports that pods declare",
            )
        try:
            decisions = expected(resolved, asked)
        except UnknownEndpointError as nobody:
            raise ScenarioError(one.source or scenario.source, f"{where}: {nobody}") from None
        hold(
            [e for e in one.expect if not (lab_made(e.cell.source) or lab_made(e.cell.target))],
            decisions,
            where,
        )


def hold(
    expectations: Sequence[Expectation], decisions: Mapping[Cell, Decision], where: str
) -> None:
    """Raises :class:`ScenarioError` where the oracle does not share a verdict written by hand, or
    where no cell is asked that the expectation is about."""
    for hand in expectations:
        meant = [cell for cell in decisions if matches_cell(hand.cell, cell)]
        if not meant:
            raise ScenarioError(
                hand.source,
                f"{where}: nothing asks {hand.cell}",
                "an expectation has to be about cells that the step probes: look at its ports, "
                "via, families, sources and targets",
            )
        for cell in meant:
            decision = decisions[cell]
            if decision.verdict is not hand.verdict:
                raise ScenarioError(
                    hand.source,
                    f"{where}: {cell} is expected to be {hand.verdict}, but the specification "
                    f"says {_words(decision)}",
                    "one of the two is wrong: the expectation, or the oracle",
                )


def _words(decision: Decision) -> str:
    if decision.verdict is Verdict.UNDEFINED:
        because = REASONS.get(decision.reason, decision.text)
        return f"undefined ({decision.reason}), because {because}"
    return f"{decision.verdict}: {decision.text}"


def worlds_of(scenario: Scenario) -> list[World]:
    """The world after each step."""
    world = scenario.world
    after = []
    for one in scenario.steps:
        for action in one.actions:
            world = step(world, action)
        after.append(world)
    return after
