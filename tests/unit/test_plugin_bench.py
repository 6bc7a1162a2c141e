"""What the plugin tells the runner of the lab that it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.plugin import bench


@pytest.mark.parametrize(
    ("lab", "enforces", "asked", "seconds"),
    [
        ("netns", True, None, None),  # the embedded lab's own
        ("kind", True, None, 15.0),
        ("kubeconfig", True, None, 15.0),
        ("kind", False, None, 0.5),  # nobody to wait for
        ("netns", False, None, 0.5),
        ("kind", True, 3.0, 3.0),
        ("netns", False, 3.0, 3.0),
    ],
)
def test_how_long_a_change_may_take(
    monkeypatch: pytest.MonkeyPatch,
    lab: str,
    enforces: bool,
    asked: float | None,
    seconds: float | None,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(bench, "Runner", lambda *_, **options: given.update(options))
    run = SimpleNamespace(
        options=SimpleNamespace(deadline=asked, timeout=None, hold=None, evidence=None),
        cni=SimpleNamespace(enforces=enforces),
        place=SimpleNamespace(lab=lab),
    )
    config: Any = SimpleNamespace(getoption=lambda _: False)
    bench.Bench(config, run)._runner_on(SimpleNamespace())  # type: ignore[arg-type]
    assert given["deadline"] == seconds
