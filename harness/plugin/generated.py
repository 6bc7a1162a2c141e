"""Generated scenarios as pytest items: ``--lab-generated N``, ``--lab-strength T``.

One that fails is made small on the lab, where it has just failed, and is told as YAML with the
command that replays it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin.collect import ScenarioItem
from harness.plugin.items import Disagreement, bench_of, judge
from harness.report import failure
from harness.run.smallest import Smallest, smallest
from harness.scenarios import generate
from harness.scenarios.families import in_families
from harness.scenarios.labels import labels_of
from harness.scenarios.write import to_text

if TYPE_CHECKING:
    from harness.plugin.session import Run

#: Failures that a process makes small; where many fail, the first ones tell.
MADE_SMALL = 5
_MADE = pytest.StashKey[int]()


def generated_items(session: pytest.Session, run: Run) -> Iterator[GeneratedItem]:
    """The items of all that the options ask for."""
    options = run.options
    for scenario in generate.combinations(options.strength, run.seed):
        yield _item(session, scenario.id, scenario=scenario)
    for number in range(1, (options.generated or 0) + 1):
        yield _item(
            session,
            generate.random_id(run.seed, number),
            scenario=partial(generate.random, run.seed, number),
            labels=("generated",),
        )


def _item(session: pytest.Session, name: str, **more: object) -> GeneratedItem:
    item: GeneratedItem = GeneratedItem.from_parent(session, name=name, nodeid=name, **more)
    return item


class GeneratedItem(ScenarioItem):
    """A scenario that stands in no file: it is named by the seed and its number."""

    def runtest(self) -> None:
        bench = bench_of(self.config)
        record = bench.measure(self, self.scenario)
        made = self.config.stash.get(_MADE, 0)
        if record.outcome != "failed" or not bench.run.cni.enforces or made >= MADE_SMALL:
            judge(record)
            return
        self.config.stash[_MADE] = made + 1
        bench.live.say(f"{self.name} failed and is made small …")
        spoken = in_families(self.scenario, bench.run.place.families)
        found = smallest(bench.runner, spoken, record)
        if found.scenario is spoken:  # it did not fail again
            judge(record)
        raise Disagreement("\n".join(self._told(bench.run, found)))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path / "generated", None, self.name

    def replay(self) -> list[str]:
        """The arguments that select just this one, besides the run's own."""
        number = int(self.name.rpartition("-")[2])
        drawn = self.name.startswith("generated/")
        asked = ["--lab-generated", str(number)] if drawn else ["--lab-generated", "0"]
        return [*self.config.args, *asked, "-k", self.name]

    def _told(self, run: Run, found: Smallest) -> Iterator[str]:
        name = self.name.replace("/", "-")
        small = replace(found.scenario, id=f"regressions/{name}", title=f"The smallest of {name}")
        small = replace(
            small,
            why=failure.headline(found.record),
            features=labels_of(small) | {"generated"},
        )
        text = to_text(small)
        directory = run.options.regressions
        file = (directory or Path("regressions")) / f"{name}.yaml"
        yield failure.text(found.record)
        yield ""
        yield f"The smallest scenario found that still fails ({found.tried} were run):"
        yield from ("  " + line for line in text.splitlines())
        yield ""
        if directory is None:
            yield f"Saved as {file} (by hand, or by --lab-save-regressions DIR) it is run by:"
        else:
            yield _saved(file, text)
        yield f"  {run.rerun(_near(self.config, file))}"
        yield "And what it was made from:"
        yield f"  {run.rerun(*self.replay())}"


def _saved(file: Path, text: str) -> str:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"{file} could not be written ({error.strerror}); saved by hand it is run by:"
    return f"Saved as {file}; it is run by:"


def _near(config: pytest.Config, file: Path) -> str:
    here = config.invocation_params.dir
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
