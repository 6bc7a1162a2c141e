"""Generated scenarios: all pairs (or triples) of what policies are made of, and random ones."""

from __future__ import annotations

from harness.scenarios import pairs
from harness.scenarios.scenario import Scenario


def combinations(strength: int, seed: int) -> list[Scenario]:
    """The covering array of that strength (0: none), ids ``pairs/SEED-NUMBER``."""
    return pairs.scenarios(strength, seed) if strength else []


def random_id(seed: int, number: int) -> str:
    """The id of the random scenario of that number, which counts from 1."""
    return f"generated/{seed}-{number:05}"


def random(seed: int, number: int) -> Scenario:
    """The random scenario of that number; it follows from the seed, however many are asked for.

    They are drawn when they are needed: ten thousand take minutes.
    """
    from harness.scenarios import drawn  # Hypothesis takes its time to come up

    return drawn.scenario(seed, number)
