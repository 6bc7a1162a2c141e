"""A few of the mutants: that the suites would notice. All of them: ``make mutants``."""

from __future__ import annotations

import pytest

from tests.mutants.trial import attempt


@pytest.mark.parametrize(
    ("mutant", "dataplane"),
    [
        ("named-port-any-protocol", "nftables"),
        ("except-skips-the-rest", "iptables"),
        ("pod-relabel-ignored", "iptables"),
    ],
)
def test_a_mutant_is_caught(mutant: str, dataplane: str) -> None:
    caught = attempt(mutant, dataplane)
    assert caught.scenario, caught.why
    assert caught.cell.startswith(("leak: ", "outage: ", "failed: "))
    assert caught.tried < 30
