"""Covering arrays: few rows in which every combination of any ``strength`` factors occurs.

Greedy, as in AETG: each row begins with a combination that is not covered yet and takes, factor by
factor, the value that covers most of what is left. The package allpairspy does this well for pairs;
its rows for triples miss combinations, and triples are asked for here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]
_Combination = tuple[tuple[str, str], ...]


def rows(factors: Mapping[str, Sequence[str]], strength: int, seed: int) -> list[Row]:
    """Rows with a value for every factor. The same seed gives the same rows.

    Raises ValueError where ``strength`` is less than one or more than there are factors.
    """
    if not 1 <= strength <= len(factors):
        raise ValueError(f"strength {strength}: there are {len(factors)} factors")
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    left: dict[_Combination, None] = {}
    for names in combinations(factors, strength):
        for values in product(*(factors[name] for name in names)):
            left[tuple(zip(names, values, strict=True))] = None
    order = list(left)
    chance.shuffle(order)
    found = []
    for start in order:
        if start in left:
            row = _row(start, factors, strength, left, chance)
            found.append(row)
            for names in combinations(factors, strength):
                left.pop(tuple((name, row[name]) for name in names), None)
    return found


def _row(
    start: _Combination,
    factors: Mapping[str, Sequence[str]],
    strength: int,
    left: Mapping[_Combination, None],
    chance: random.Random,
) -> Row:
    chosen = dict(start)
    others = [name for name in factors if name not in chosen]
    chance.shuffle(others)
    positions = {name: i for i, name in enumerate(factors)}
    for name in others:
        before = sorted(chosen, key=positions.__getitem__)
        best: tuple[int, float, str] | None = None
        for value in factors[name]:
            gain = 0
            for names in combinations(before, strength - 1):
                whole = sorted((*names, name), key=positions.__getitem__)
                with_value = {**chosen, name: value}
                gain += tuple((n, with_value[n]) for n in whole) in left
            candidate = (gain, chance.random(), value)
            best = candidate if best is None else max(best, candidate)
        assert best is not None, f"the factor {name} has no values"
        chosen[name] = best[2]
    return {name: chosen[name] for name in factors}
