"""Policies that another policy makes superfluous, whatever pods there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.model.policy import LabelSelector, NetworkPolicy, Rule
from harness.model.sides import isolated_directions, rules_of


def redundant(policies: Sequence[NetworkPolicy]) -> Iterator[tuple[NetworkPolicy, NetworkPolicy]]:
    """Pairs of a policy and one that does all that it does. Of two that do the same the later
    one is told. Sound and not complete: what is written in quite another way is not seen."""
    kept: dict[str, list[NetworkPolicy]] = {}
    for policy in policies:
        kept.setdefault(policy.namespace, []).append(policy)
    for together in kept.values():
        gone: set[str] = set()
        for policy in reversed(together):
            for other in together:
                if other is not policy and other.name not in gone and _does_all(other, policy):
                    gone.add(policy.name)
                    yield policy, other
                    break


def _does_all(one: NetworkPolicy, two: NetworkPolicy) -> bool:
    """Whether ``two`` adds nothing where ``one`` is."""
    directions = isolated_directions(two)
    return (
        _at_least(one.pod_selector, two.pod_selector)
        and set(directions) <= set(isolated_directions(one))
        and all(
            any(_allows_all(own, rule) for own in rules_of(one, direction))
            for direction in directions
            for rule in rules_of(two, direction)
        )
    )


def _at_least(one: LabelSelector, two: LabelSelector) -> bool:
    """Whether ``one`` selects all that ``two`` does: it asks for no more."""
    return set(one.match_labels) <= set(two.match_labels) and set(one.match_expressions) <= set(
        two.match_expressions
    )


def _allows_all(one: Rule, two: Rule) -> bool:
    """Whether ``one`` allows all that ``two`` does. An empty list is everything."""
    peers = not one.peers or (two.peers and set(two.peers) <= set(one.peers))
    ports = not one.ports or (two.ports and set(two.ports) <= set(one.ports))
    return bool(peers and ports)
