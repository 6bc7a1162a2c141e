"""``netpol bisect``: which release of a CNI's policy engine changed a verdict.

The scenario is run on the embedded lab with one release's engine after the other: first the two
ends, which have to differ, then the middle of what is left. Tags are resolved to digests, and the
digest is what is run and recorded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cnis.cni import Cni
    from harness.scenarios.scenario import Scenario

SCHEMA = "netpol-bisect/1"
WRONG = ("leak", "outage", "flaky", "unknown")


@dataclass(frozen=True, slots=True)
class Tried:
    """One release: its digest, and what the scenario came to. ``cells``: findings and how many."""

    version: str
    digest: str
    outcome: str
    cells: dict[str, int]
    message: str
    seconds: float

    @property
    def good(self) -> bool:
        return self.outcome == "passed"

    def __str__(self) -> str:
        wrong = ", ".join(f"{n} {what}" for what, n in self.cells.items() if what in WRONG)
        return f"{self.version} ({self.digest[:19]}): {self.outcome}{f', {wrong}' if wrong else ''}"


class BisectError(Exception):
    """It cannot be told which release it was; the text says why."""


def add_parser(commands: Any) -> None:
    text = "which release of a CNI's engine changed a verdict"
    parser = commands.add_parser(
        "bisect",
        help=text,
        description="Runs one scenario on one release's policy engine after the other, on the "
        "embedded lab, and tells which release changed its outcome.",
    )
    option = parser.add_argument
    option(
        "scenario", metavar="SCENARIO", type=Path, help="file with a scenario (FILE or FILE::ID)"
    )
    option("--cni", required=True, metavar="CNI", help="catalogue name, or a file in its form")
    option("--good", required=True, metavar="3.28", help="release that does as it should")
    option("--bad", required=True, metavar="3.32", help="release that does not")
    option("--image", metavar="NAME", default="", help="its image in another registry")
    option("--crds", type=Path, metavar="PATH", help="CustomResourceDefinitions for all of them")
    option("--lab-dataplane", choices=["iptables", "nftables"], help="data plane (its first)")
    option("--lab-nodes", type=int, default=3, metavar="N", help="nodes (3)")
    option("--lab-deadline", type=float, metavar="SECONDS", help="as for pytest (5)")
    option("--lab-timeout", type=float, metavar="SECONDS", help="as for pytest")
    option("-o", "--output", type=Path, metavar="FILE", help="leave all that was seen as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.engines import cli, releases, store

    cni = cli.entry(arguments.cni)
    engine = store.with_image(cni)
    repository = arguments.image or engine.image
    scenario = _scenario(arguments.scenario)
    known = releases.released(engine, repository)
    good = releases.exact(arguments.good, known, repository)
    bad = releases.exact(arguments.bad, known, repository)
    versions = releases.between(good, bad, known)
    told = partial(print, flush=True)
    told(f"{len(versions)} releases from {good} to {bad}, of {repository}")
    attempt = partial(_attempt, cni, arguments, scenario, told)
    tried: list[Tried] = []

    def judge(version: str) -> bool:
        found = attempt(version)
        tried.append(found)
        told(str(found))
        return found.good

    try:
        last_good, first_bad = narrow(versions, judge)
    finally:
        _save(arguments.output, cni.name, scenario.id, tried)
    by_version = {one.version: one for one in tried}
    told(
        f"{cni.title} {first_bad} changed it: {last_good} still does {scenario.id} as it should\n"
        f"  good: {repository}@{by_version[last_good].digest}\n"
        f"  bad:  {repository}@{by_version[first_bad].digest}\n"
        f"  {by_version[first_bad].message.partition(chr(10))[0]}"
    )
    return 1


def narrow(versions: Sequence[str], good: Callable[[str], bool]) -> tuple[str, str]:
    """The last good version and the first bad one that follow each other. The first is expected
    to be good and the last to be bad. Raises BisectError where they are not."""
    if len(versions) < 2:
        raise BisectError("good and bad are one and the same release: nothing lies between them")
    if not good(versions[0]):
        raise BisectError(f"{versions[0]}, which is to be good, is bad already: take an older one")
    if good(versions[-1]):
        raise BisectError(f"{versions[-1]}, which is to be bad, is good: nothing to be found")
    low, high = 0, len(versions) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if good(versions[middle]):
            low = middle
        else:
            high = middle
    return versions[low], versions[high]


def _attempt(
    cni: Cni,
    arguments: argparse.Namespace,
    scenario: Scenario,
    told: Callable[[str], None],
    version: str,
) -> Tried:
    """Get a release's engine and run the scenario on a lab of its own. Raises LabError."""
    from harness.engines import choose, store
    from harness.run import place
    from harness.run.runner import Runner

    home = store.fetch(
        cni, version, told, repository=arguments.image, crds=arguments.crds, again=True
    )
    text = None
    if arguments.cni.endswith(".toml"):
        text = Path(arguments.cni).read_text(encoding="utf-8")
    mine, found = choose.choose(choose.Wanted(cni.name, text, engine=home))
    assert found is not None
    assert mine.api_engine is not None
    planes = tuple(mine.api_engine.dataplanes) or ("iptables",)
    where = place.Place(
        fabric=mine.fabric,
        dataplane=arguments.lab_dataplane or planes[0],
        api=True,
        brought=found,
        nodes=arguments.lab_nodes,
    )
    place.check(mine, where)
    with tempfile.TemporaryDirectory(prefix="netpol-bisect-") as directory:
        lab = place.make(mine, where, Path(directory))
        lab.up()
        try:
            runner = Runner(
                lab, mine, deadline=arguments.lab_deadline, timeout=arguments.lab_timeout
            )
            try:
                record = runner.run(scenario)
            finally:
                runner.close()
        finally:
            lab.down()
    cells = Counter(cell.finding for step in record.steps for cell in step.cells)
    if record.outcome in ("error", "skipped"):
        raise BisectError(f"{version}: the scenario could not be judged: {record.message}")
    return Tried(version, found.digest, record.outcome, dict(cells), record.message, record.seconds)


def _scenario(path: Path) -> Scenario:
    """The one scenario that is meant. Raises BisectError and what the loader raises."""
    from harness.scenarios.load import load_file

    name, _, wanted = str(path).partition("::")
    found = load_file(Path(name))
    fits = [one for one in found if not wanted or one.id == wanted]
    if len(fits) != 1:
        names = ", ".join(one.id for one in found)
        raise BisectError(f"{name} holds {len(found)} scenarios: say which, {name}::ID of {names}")
    return fits[0]


def _save(path: Path | None, cni: str, scenario: str, tried: Sequence[Tried]) -> None:
    if path is None:
        return
    data = {"schema": SCHEMA, "cni": cni, "scenario": scenario, "tried": [asdict(t) for t in tried]}
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
