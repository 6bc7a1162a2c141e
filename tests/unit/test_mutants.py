"""The list of mutants, what is tried first against each, and the page made of their results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.scenarios.features import FEATURES
from harness.scenarios.gather import gather
from tests.mutants.bugs import MUTANTS
from tests.mutants.near import NEAR
from tests.mutants.table import KEPT, PAGE, page

SUITES = Path(__file__).resolve().parents[2] / "suites"


def test_every_mutant_has_scenarios_that_are_near() -> None:
    assert NEAR.keys() == MUTANTS.keys()
    scenarios = gather(SUITES)
    for mutant, words in NEAR.items():
        for word in words.split():
            if word.endswith(".py"):
                assert (SUITES / word).exists(), (mutant, word)
            elif "/" in word:
                assert any(name.startswith(word) for name in scenarios), (mutant, word)
            else:
                assert word in FEATURES, (mutant, word)


def test_the_page_is_what_the_runs_have_left() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(kept)
    scenarios = gather(SUITES)
    python = "".join(path.read_text(encoding="utf-8") for path in SUITES.glob("test_*.py"))
    for plane, results in kept.items():
        for name, one in results.items():
            assert plane in MUTANTS[name].planes
            where = one["scenario"]
            assert where, f"{name} was missed on {plane}"
            assert where in scenarios or where.partition("/")[0] + "/" in python


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_can_be_seeded(mutant: str) -> None:
    """In a process of its own, for it stays seeded."""
    child = os.fork()
    if child == 0:
        try:
            MUTANTS[mutant].seed()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
