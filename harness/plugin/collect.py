"""Scenario files become pytest items."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.items import FAILURES, Disagreement, bench_of, judge
from harness.run import place
from harness.scenarios.features import FEATURES
from harness.scenarios.gather import holds_scenarios, scenarios_of
from harness.scenarios.scenario import Scenario
from harness.scenarios.tree import ScenarioError

if TYPE_CHECKING:
    from harness.plugin import Suites
    from harness.plugin.session import Run


class Collection:
    """Collects the scenario files of suites, and those that are named on the command line."""

    def __init__(self, suites: Suites, run: Run) -> None:
        self.suites = suites
        self.run = run

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        named = parent.session.isinitpath(file_path)
        if (self.suites.holds(file_path) or named) and holds_scenarios(file_path):
            return ScenarioFile.from_parent(parent, path=file_path)
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        if self.run.options.generated is not None:
            from harness.plugin.generated import generated_items

            items += generated_items(session, self.run)
        if self.run.options.manifests is not None:
            from harness.plugin.manifests import manifest_items

            items += manifest_items(session, self.run)
        order: dict[str, int] = {}
        items.sort(key=lambda item: order.setdefault(_begins_with(item), len(order)))
        first: dict[str, str] = {}
        for item in items:
            mark_known(item, self.run)
            if isinstance(item, ScenarioItem):
                other = first.setdefault(item.name, item.nodeid)
                if other != item.nodeid:
                    raise pytest.UsageError(
                        f"the scenario id {item.name!r} is used twice, so records could "
                        f"not tell them apart:\n  {other}\n  {item.nodeid}"
                    )


def _begins_with(item: pytest.Item) -> str:
    """The world that a test begins with: those of one world come one after the other, so that it
    stays up. A test that says nothing of its world has its own place."""
    if not isinstance(item, ScenarioItem) or item.lazy:
        return item.nodeid
    world = item.scenario.world
    return repr((world.namespaces, world.pods, world.services, world.externals))


class ScenarioFile(pytest.File):
    """One file of scenarios, see :mod:`harness.scenarios.gather`."""

    def collect(self) -> Iterable[ScenarioItem]:
        near = Path(os.path.relpath(self.path))  # as people name it
        try:
            for scenario in scenarios_of(near):
                yield ScenarioItem.from_parent(self, name=scenario.id, scenario=scenario)
        except ScenarioError as error:
            raise self.CollectError(str(error)) from None


class ScenarioItem(pytest.Item):
    """One scenario, by whose id it is called: measured and judged in pytest's call phase."""

    def __init__(
        self,
        *,
        scenario: Scenario | Callable[[], Scenario],
        labels: Iterable[str] = (),
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self._scenario = scenario
        for label in sorted(labels or self.scenario.features):
            self.add_marker(label)

    @property
    def lazy(self) -> bool:
        """Whether the scenario is still to be made."""
        return callable(self._scenario)

    @property
    def scenario(self) -> Scenario:
        """The scenario; one that is made when it is needed is made now."""
        if callable(self._scenario):
            self._scenario = self._scenario()
        return self._scenario

    def runtest(self) -> None:
        judge(bench_of(self.config).measure(self, self.scenario))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        line = self.scenario.source.line - 1 if self.scenario.source else None
        return self.path, line, self.name


def features_of(item: pytest.Item) -> frozenset[str]:
    """The feature labels that an item is marked with."""
    return frozenset(mark.name for mark in item.iter_markers() if mark.name in FEATURES)


def mark_known(item: pytest.Item, run: Run) -> None:
    """xfail what is known to fail: strictly where the catalogue says so, for a deviation that was
    mended has to be noticed; loosely where a baseline does."""
    name = identity(item)
    for cni in place.entries(run.cni, run.place):
        deviation = cni.deviation(name, features_of(item), run.place.lab)
        if deviation is not None:
            reason = f"known deviation of {cni.title}: {deviation.reason} ({deviation.link})"
            item.add_marker(pytest.mark.xfail(reason=reason, raises=Disagreement, strict=True))
            return
    if name in run.baseline:
        reason = f"baseline: {run.baseline[name]}"
        item.add_marker(pytest.mark.xfail(reason=reason, raises=FAILURES, strict=False))


def identity(item: pytest.Item) -> str:
    """The id that records know an item by: a scenario's own, or the test's place and name."""
    return item.name if isinstance(item, ScenarioItem) else item.nodeid
