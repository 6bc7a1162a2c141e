"""Generated scenarios: all pairs (or triples) of what policies are made of, and random ones."""

from __future__ import annotations

from harness.scenarios import pairs
from harness.scenarios.scenario import Scenario


def scenarios(count: int, seed: int, strength: int = 2) -> list[Scenario]:
    """The covering array of that strength (0: none), then ``count`` random ones.

    Everything follows from the seed. Ids are ``pairs/NUMBER`` and ``generated/SEED-NUMBER``.
    """
    found = pairs.scenarios(strength, seed) if strength else []
    if count:
        from harness.scenarios import drawn  # Hypothesis takes its time to come up

        found += drawn.draw(count, seed)
    return found
