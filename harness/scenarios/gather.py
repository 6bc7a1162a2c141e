"""All scenarios of a directory: YAML files, and Python files whose ``scenarios()`` yields them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from harness.scenarios.check import check
from harness.scenarios.load import load_file
from harness.scenarios.scenario import Scenario
from harness.scenarios.tree import ScenarioError

#: A directory of this name holds manifests for the scenarios beside it, and no scenarios.
MANIFESTS = "manifests"


def holds_scenarios(path: Path) -> bool:
    """Whether a file is one of scenarios, by its name."""
    if MANIFESTS in path.parts:
        return False
    if path.suffix == ".py":
        return path.name.startswith("scenarios_")
    return path.suffix in (".yaml", ".yml")


def scenarios_of(path: Path) -> Iterator[Scenario]:
    """The scenarios of one file, each checked. Raises ScenarioError."""
    if path.suffix != ".py":
        yield from load_file(path)
        return
    # A name of its own: two directories may hold modules of one name.
    name = "netpol_suite_" + "_".join(path.with_suffix("").parts[-2:])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "scenarios", None)):
        raise ScenarioError(None, f"{path} has no function scenarios()")
    for scenario in module.scenarios():
        check(scenario)
        yield scenario


def gather(directory: Path) -> dict[str, Scenario]:
    """Those of all files under the directory, by id. Raises ScenarioError."""
    found: dict[str, Scenario] = {}
    for path in sorted(directory.rglob("*")):
        if holds_scenarios(path):
            found.update((scenario.id, scenario) for scenario in scenarios_of(path))
    return found
