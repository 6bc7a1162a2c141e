"""``--lab-manifests DIR``: scenarios derived from the user's own manifests, as pytest items."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin.collect import ScenarioItem

if TYPE_CHECKING:
    from harness.play.derived import Derived
    from harness.plugin.session import Run
    from harness.run.place import Place


def manifest_items(session: pytest.Session, run: Run) -> Iterator[ManifestItem]:
    """An item for each policy and direction. Raises UsageError where nothing can be derived, or
    only a part of what was given without being told to."""
    directory = run.options.manifests
    assert directory is not None
    derived = read(directory, run.place)
    if derived.lacking and not run.options.manifests_partial:
        told = "\n  ".join(derived.lacking)
        raise pytest.UsageError(
            f"--lab-manifests {directory}: the model does not hold all of it, so the answer might "
            f"be wrong:\n  {told}\n  --lab-manifests-partial goes on without these"
        )
    if not derived.scenarios:
        raise pytest.UsageError(
            f"--lab-manifests {directory}: there is no pod and no policy in it to derive from"
        )
    for scenario in derived.scenarios:
        item: ManifestItem = ManifestItem.from_parent(
            session, name=scenario.id, nodeid=scenario.id, scenario=scenario
        )
        yield item


@lru_cache(maxsize=1)
def read(directory: Path, place: Place) -> Derived:
    """What is derived from the manifests of a directory (or a file)."""
    from harness.model.manifest import load
    from harness.play.derived import derive

    return derive(load([os.path.relpath(directory)]), place)


class ManifestItem(ScenarioItem):
    """A scenario that stands in no file of the suites."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path / "manifests", None, self.name

    def replay(self) -> list[str]:
        """The arguments that select just this one, besides the run's own."""
        return [*self.config.args, "-k", self.name]
