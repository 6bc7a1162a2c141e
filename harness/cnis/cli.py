"""``netpol cni``: what the catalogue knows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cnis.cni import Cni


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "cni",
        help="the catalogue of CNIs",
        description="What the catalogue knows: every name that --cni takes.",
    )
    actions = parser.add_subparsers(dest="cni_command", required=True, metavar="COMMAND")
    text = "list the names, and what each enforces"
    actions.add_parser("list", help=text, description=f"{text.capitalize()}.").set_defaults(run=run)
    for name, text in (
        ("show", "show one entry: where it runs, what is pinned, known deviations"),
        ("images", "list the images to bring where nothing can be pulled, one a line"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        action.add_argument("name", metavar="NAME")
        action.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.cnis import catalogue

    if arguments.cni_command == "list":
        entries = [catalogue.get(name) for name in catalogue.names()]
        width = max(len(cni.name) for cni in entries)
        for cni in entries:
            says = "enforces" if cni.enforces else "enforces nothing"
            print(f"{cni.name:<{width}}  {says}, on {', '.join(cni.labs)}: {cni.summary}")
        return 0
    cni = catalogue.get(arguments.name)
    lines = cni.images if arguments.cni_command == "images" else _lines(cni)
    print("\n".join(lines))
    return 0


def _lines(cni: Cni) -> Iterator[str]:
    yield f"{cni.name}: {cni.title} {cni.version}".rstrip()
    yield from (f"  {text}" for text in (cni.summary, cni.link) if text)
    yield f"  network: {cni.network}; labs: {', '.join(cni.labs)}"
    denies = f"denies by {cni.deny}" if cni.enforces else "enforces nothing: the negative control"
    yield f"  {denies}"
    if cni.config:
        yield f"  kind config: clusters/{cni.config}"
    if cni.modules:
        yield f"  kernel modules: {', '.join(cni.modules)}"
    for manifest in cni.manifests:
        yield f"  manifest {manifest.version}: {manifest.url}"
        yield f"    sha256 {manifest.sha256}"
    for setting in cni.settings:
        yield f"  set in {setting.workload}: {setting.name}={setting.value} ({setting.why})"
    yield from (f"  image: {image}" for image in cni.images)
    yield from (f"  ready: {r.namespace} {r.kind}/{r.name}" for r in cni.ready)
    yield from (f"  lacks {feature}: {why}" for feature, why in cni.lacks.items())
    for deviation in cni.deviations:
        what = ", ".join(sorted(deviation.features)) or deviation.scenario
        versions = f" ({deviation.versions})" if deviation.versions else ""
        yield f"  known deviation, {what}{versions}: {deviation.reason}"
        yield f"    {deviation.link}"
    yield from (f"  pinned: {row} is {reading}" for row, reading in cni.profile.items())
    yield from (f"  note: {note}" for note in cni.notes)
