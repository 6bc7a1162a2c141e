"""``netpol engine``: which policy engines are here, and how to get one out of its image."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cnis.cni import Cni


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "engine",
        help="policy engines of other CNIs: which are here, fetch one",
        description="The programs that enforce policies for other CNIs, as the embedded lab runs "
        "them in its nodes: without containers and without root.",
    )
    actions = parser.add_subparsers(dest="engine_command", required=True, metavar="COMMAND")
    text = "list the CNIs whose engine the lab can run, and where each is"
    actions.add_parser("list", help=text, description=f"{text.capitalize()}.").set_defaults(run=run)
    text = "get a release's engine out of its image, by digest, into the user's cache"
    action = actions.add_parser("fetch", help=text, description=f"{text.capitalize()}.")
    action.add_argument("cni", metavar="CNI", help="name in the catalogue, or a file in its form")
    action.add_argument("--version", metavar="3.32.1", help="release (the entry's own)")
    action.add_argument(
        "--image", metavar="NAME", help="the image's name in another registry, without a tag"
    )
    action.add_argument(
        "--crds",
        type=Path,
        metavar="PATH",
        help="file or folder with the release's CustomResourceDefinitions",
    )
    action.add_argument(
        "--again", action="store_true", help="ask what the tag stands for now, also if it is here"
    )
    action.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.engine_command == "list":
        return _list()
    from harness.engines import found, store

    cni = entry(arguments.cni)
    version = arguments.version or cni.version
    if not version:
        raise found.EngineError(
            f"the entry of {cni.title} names no release", hint="say which: --version VERSION"
        )
    told = partial(print, flush=True)
    home = store.fetch(
        cni,
        version,
        told,
        repository=arguments.image or "",
        crds=arguments.crds,
        again=arguments.again,
    )
    here = found.in_directory(cni, home)
    print(f"{cni.title} {here.version}: {here.source}\n  in {home}")
    return 0


def entry(name: str) -> Cni:
    """An entry of the catalogue, or of a file in its form. Raises CniError and OSError."""
    from harness.cnis import catalogue

    if not name.endswith(".toml"):
        return catalogue.get(name)
    return catalogue.parse(Path(name).stem, Path(name).read_text(encoding="utf-8"))


def _list() -> int:
    from harness.cnis import catalogue
    from harness.engines import choose
    from harness.labs.base import LabError

    for name in catalogue.names():
        cni = catalogue.get(name)
        if cni.api_engine is None or not cni.api_engine.foreign:
            continue
        places = choose.here(cni)
        if not places:
            image = cni.api_engine.image
            get = f"netpol engine fetch {name}" if cni.version else f"{image}, or --lab-engine PATH"
            print(f"{name}: none here ({get})")
        for place in places:
            try:
                _, here = choose.choose(choose.Wanted(name, engine=place))
            except LabError as error:
                print(f"{name}: {error}")
            else:
                assert here is not None
                print(f"{name}: {here.version or 'version not told'}, {here.digest}, in {place}")
    return 0
