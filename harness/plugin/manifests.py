"""``--lab-manifests``: scenarios derived from the user's own manifests, as pytest items."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin.collect import ScenarioItem
from harness.plugin.options import CLUSTER

if TYPE_CHECKING:
    from harness.play.derived import Derived
    from harness.plugin.session import Run
    from harness.run.place import Place

#: What was taken from a cluster, beside the record of the run.
TAKEN = "manifests.yaml"


def manifest_items(session: pytest.Session, run: Run) -> Iterator[ManifestItem]:
    """An item for each policy and direction. Raises UsageError where nothing can be derived, or
    only a part of what was given without being told to."""
    directory = run.options.manifests
    assert directory is not None
    derived = read(directory, run.place)
    _whole(run, str(directory), derived.lacking)
    if not derived.scenarios:
        raise pytest.UsageError(
            f"--lab-manifests {directory}: there is no pod and no policy in it to derive from"
        )
    for scenario in derived.scenarios:
        item: ManifestItem = ManifestItem.from_parent(
            session, name=scenario.id, nodeid=scenario.id, scenario=scenario
        )
        yield item


def _whole(run: Run, source: str, lacking: Sequence[str]) -> None:
    """Raises UsageError where the model holds only a part, and nobody has said that this will
    do."""
    if lacking and not run.options.manifests_partial:
        told = "\n  ".join(lacking)
        raise pytest.UsageError(
            f"--lab-manifests {source}: the model does not hold all of it, so the answer might "
            f"be wrong:\n  {told}\n  --lab-manifests-partial goes on without these"
        )


def taken(config: pytest.Config, run: Run, file: str | None) -> Run:
    """The run with manifests in the place of the cluster that it names: a worker gets the ``file``
    that the run's first process has written, so that all derive the same. Raises UsageError."""
    if file:
        return _from(run, Path(file))
    from harness.labs.base import LabError
    from harness.labs.cluster.connect import context_name
    from harness.play.taken import take

    source = f"{CLUSTER}{context_name(run.options.manifests_cluster)}"
    directory = run.directory
    if config.getoption("collectonly") or run.options.dry_run:  # these leave nothing behind
        temporary = tempfile.TemporaryDirectory(prefix="netpol-manifests-")
        config.add_cleanup(temporary.cleanup)
        directory = Path(temporary.name)
    try:
        found = take(run.options.manifests_cluster or "", run.options.manifests_namespaces)
        _whole(run, source, found.lacking)
        found.write(directory / TAKEN, source)
    except LabError as error:
        raise pytest.UsageError(f"--lab-manifests {source}: {error}") from None
    notes = [*found.notes, *(f"left out: {text}" for text in found.lacking)]
    run.told.extend(f"{source}: {note}" for note in notes)
    return _from(run, directory / TAKEN)


def _from(run: Run, file: Path) -> Run:
    return replace(run, options=replace(run.options, manifests=file))


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
