"""Scenarios in the families of the lab: what is written for IPv4 is asked over IPv6 as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.model.actions import Action, Apply
from harness.model.flow import Cell
from harness.model.policy import NetworkPolicy
from harness.model.world import External, Pod
from harness.scenarios.scenario import Probes, Scenario

#: Scenarios with one of these say themselves what they ask over which family.
OWN = frozenset({"ipv6", "dual-stack"})


def in_families(scenario: Scenario, families: Sequence[int]) -> Scenario:
    """The scenario, its cells asked over these families (4, 6 or both).

    One that is itself about families is left alone. One that is written with IPv4 addresses
    requires them; on a lab with both families it is asked over both.
    """
    if scenario.features & OWN or tuple(families) == (4,):
        return scenario
    return replace(
        scenario,
        probes=_spread(scenario.probes, families),
        steps=tuple(
            replace(one, probes=_spread(one.probes, families)) if one.probes else one
            for one in scenario.steps
        ),
        requires=scenario.requires | ({"ipv4"} if _names_ipv4(scenario) else set()),
    )


def _spread(probes: Probes, families: Sequence[int]) -> Probes:
    extra: dict[Cell, None] = {}
    for cell in probes.extra:
        for family in families:
            extra[replace(cell, family=family)] = None
    return replace(probes, families=tuple(families), extra=tuple(extra))


def _names_ipv4(scenario: Scenario) -> bool:
    return any(":" not in address for address in _addresses(scenario))


def _addresses(scenario: Scenario) -> Iterator[str]:
    """Every address and range that the scenario is written with."""
    world = scenario.world
    things: list[object] = [
        *world.pods.values(),
        *world.externals.values(),
        *world.policies.values(),
    ]
    actions: list[Action] = [action for one in scenario.steps for action in one.actions]
    things += [action.object for action in actions if isinstance(action, Apply)]
    for thing in things:
        match thing:
            case Pod() | External():
                yield from thing.ips
            case NetworkPolicy():
                for rule in (*thing.ingress, *thing.egress):
                    for peer in rule.peers:
                        if peer.ip_block is not None:
                            yield peer.ip_block.cidr
