"""``netpol cni``: what the catalogue knows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cnis.cni import Cni, Patch


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
        ("show", "show one entry: where it runs, what is pinned and changed, known deviations"),
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
    if arguments.cni_command == "images":
        print("\n".join(_images(cni)))
        if cni.name == "enforcer":
            print("netpol-enforcer is built here: make enforcer-image", file=sys.stderr)
        return 0
    print("\n".join(_lines(cni)))
    return 0


def _images(cni: Cni) -> list[str]:
    """The node's, the CNI's with those of its network, and the probes'."""
    from harness.cnis import catalogue
    from harness.labs.cluster.objects import Images
    from harness.labs.kind import versions
    from harness.model.image import full

    base = catalogue.get(cni.base).images if cni.base else ()
    probes = Images()
    node = versions.node_image(max(versions.NODE_IMAGES))
    wanted = [node, *base, *cni.images, probes.server, probes.client]
    return list(dict.fromkeys(map(full, wanted)))


def _lines(cni: Cni) -> Iterator[str]:
    yield f"{cni.name}: {cni.title} {cni.version}".rstrip()
    yield from (f"  {text}" for text in (cni.summary, cni.link) if text)
    yield f"  network: {cni.network}; labs: {', '.join(cni.labs)}"
    denies = f"denies by {cni.deny}" if cni.enforces else "enforces nothing: the negative control"
    yield f"  {denies}"
    if (engine := cni.api_engine) is not None and engine.foreign:
        planes = f", on {' or '.join(engine.dataplanes)}" if engine.dataplanes else ""
        where = f"on lab netns (fabric {cni.fabric}{planes})"
        yield f"  its policy engine alone, {where}: {engine.image}"
    yield from _installation(cni)
    yield from (f"  ready: {r.namespace} {r.kind}/{r.name}" for r in cni.ready if r.required)
    yield from (f"  ready: {path} on every node" for path in cni.ready_files)
    yield from (
        f"  waited for, but not required: {r.namespace} {r.kind}/{r.name}"
        for r in cni.ready
        if not r.required
    )
    yield from (f"  lacks {feature}: {why}" for feature, why in cni.lacks.items())
    for deviation in cni.deviations:
        what = ", ".join(sorted(deviation.features)) or deviation.scenario
        versions = f" ({deviation.versions})" if deviation.versions else ""
        labs = f" on lab {' and '.join(deviation.labs)}" if deviation.labs else ""
        yield f"  known deviation, {what}{versions}{labs}: {deviation.reason}"
        yield f"    {deviation.link}"
    yield from (f"  pinned: {row} is {reading}" for row, reading in cni.profile.items())
    yield from (f"  note: {note}" for note in cni.notes)


def _installation(cni: Cni) -> Iterator[str]:
    """How it comes onto a kind cluster."""
    if cni.config:
        yield f"  kind config: clusters/{cni.config}; families: {', '.join(cni.cluster_families)}"
    if cni.base:
        yield f"  network by: {cni.base} (--lab-network names another)"
    if cni.routes:
        yield "  network made on the nodes: plugins ptp and host-local, a route for every node"
    if cni.modules:
        yield f"  kernel modules: {', '.join(cni.modules)}"
    if cni.plugins:
        yield f"  CNI plugins that kind's nodes lack: {', '.join(cni.plugins)}"
    for manifest in cni.manifests:
        if manifest.file:
            yield f"  manifest: {manifest.file}"
        else:
            yield f"  manifest {manifest.version}: {manifest.url}"
            yield f"    sha256 {manifest.sha256}"
    yield from (f"  image: {image}" for image in cni.images)
    if cni.manifests:
        yield "  set everywhere: images without a fixed tag get one of those; none is pulled twice"
    for setting in cni.settings:
        yield f"  set in {setting.workload}: {setting.name}={setting.value} ({setting.why})"
    yield from (_patched(patch) for patch in cni.patches)
    yield from (f"  applied beside it, because {extra.why}" for extra in cni.extras)


def _patched(patch: Patch) -> str:
    words = patch.value
    value = " ".join(map(str, words)) if isinstance(words, tuple) else words
    change = f"{patch.find} -> {value}" if patch.find else f"= {value}"
    return f"  patched in {patch.object}: {patch.field}: {change} ({patch.why})"
