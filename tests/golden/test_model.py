"""Explanations and error messages of the model, to the letter.

``GOLDEN=write pytest tests/golden`` writes them anew; read the change before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.model.explain import explain
from harness.model.manifest import load
from harness.model.world import External
from tests.unit.model_worlds import cell

FOLDER = Path(__file__).parent / "model"


def compare(got: str, file: Path) -> None:
    if os.environ.get("GOLDEN") == "write":
        file.write_text(got, encoding="utf-8")
    assert got == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["demo", "near-misses", "tiers"])
def test_explanations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER / "explain")
    file = Path(f"{name}.yaml")
    loaded = load([file])
    assert not loaded.problems
    world = loaded.world().with_(externals={"internet": External("internet", ("203.0.113.9",))})
    asked = [
        line.removeprefix("# ask: ")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("# ask: ")
    ]
    assert asked
    texts = [explain(world, cell(question)).text() for question in asked]
    compare("\n\n====\n\n".join(texts) + "\n", FOLDER / "explain" / f"{name}.out")


@pytest.mark.parametrize("name", ["policy", "documents", "cluster-policy"])
def test_error_messages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER / "broken")
    loaded = load([f"{name}.yaml"])
    text = "".join(f"{problem}\n" for problem in loaded.problems)
    compare(text, FOLDER / "broken" / f"{name}.out")
