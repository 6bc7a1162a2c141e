"""Scenarios in the families of the lab: what is written for IPv4 is asked over IPv6 as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.model.actions import Apply
from harness.model.flow import Cell, EndpointKind
from harness.model.policy import NetworkPolicy
from harness.model.world import External, Pod
from harness.scenarios.scenario import Probes, Scenario

Addresses = tuple[str, ...]

#: Scenarios with one of these say themselves what they ask over which family.
OWN = frozenset({"ipv6", "dual-stack"})


def in_families(scenario: Scenario, families: Sequence[int]) -> Scenario:
    """The scenario, its cells asked over these families (4, 6 or both).

    One that is itself about families is left alone. One that is written with IPv4 addresses
    requires them; on a lab with both families it is asked over both.
    """
    if scenario.features & OWN or tuple(families) == (4,):
        return scenario
    hosts = {host.name: host.ips for host in _things(scenario) if isinstance(host, External)}

    def spread(probes: Probes) -> Probes:
        return _spread(probes, families, hosts)

    return replace(
        scenario,
        probes=spread(scenario.probes),
        steps=tuple(
            replace(one, probes=spread(one.probes)) if one.probes else one for one in scenario.steps
        ),
        requires=scenario.requires | ({"ipv4"} if _names_ipv4(scenario) else set()),
    )


def _spread(probes: Probes, families: Sequence[int], hosts: Mapping[str, Addresses]) -> Probes:
    """Single cells in each family, but for those of outside hosts that are written without it."""
    extra: dict[Cell, None] = {}
    for cell in probes.extra:
        for family in families:
            ends = [e.name for e in (cell.source, cell.target) if e.kind is EndpointKind.EXTERNAL]
            if all(_has(hosts.get(name, ()), family) for name in ends):
                extra[replace(cell, family=family)] = None
    return replace(probes, families=tuple(families), extra=tuple(extra))


def _has(addresses: Addresses, family: int) -> bool:
    """None are written: the lab gives one of each family."""
    return not addresses or any((":" in one) == (family == 6) for one in addresses)


def _names_ipv4(scenario: Scenario) -> bool:
    return any(":" not in address for address in _addresses(scenario))


def _things(scenario: Scenario) -> Iterator[object]:
    """What the scenario begins with, and what its steps make."""
    world = scenario.world
    yield from (*world.pods.values(), *world.externals.values(), *world.policies.values())
    for step in scenario.steps:
        yield from (action.object for action in step.actions if isinstance(action, Apply))


def _addresses(scenario: Scenario) -> Iterator[str]:
    """Every address and range that the scenario is written with."""
    for thing in _things(scenario):
        match thing:
            case Pod() | External():
                yield from thing.ips
            case NetworkPolicy():
                for rule in (*thing.ingress, *thing.egress):
                    for peer in rule.peers:
                        if peer.ip_block is not None:
                            yield peer.ip_block.cidr
