"""Manifests as the input of a command: files, folders, standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness.model.manifest import Loaded, load
from harness.model.world import World


class InputError(Exception):
    """What was given cannot be worked with; the faults themselves have been printed."""


def add_inputs(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """``FILE...`` and ``--keep-going``."""
    parser.add_argument(
        "manifests",
        nargs=nargs,
        metavar="FILE",
        help="manifests in YAML or JSON: a file, a folder with all that is below it, or - for "
        "standard input",
    )
    add_keep_going(parser)


def add_keep_going(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="leave out objects that cannot be read, and answer for the others",
    )


def read_world(paths: Sequence[str], *, keep_going: bool) -> World:
    """The world that the manifests describe. Raises :class:`InputError`."""
    loaded = read(paths, keep_going=keep_going)
    world = loaded.world()
    if not world.pods:
        raise InputError(
            f"there is no pod in {', '.join(paths)}, so there is nothing to say of policies\n"
            "  hint: give the workloads' manifests as well (Pods, Deployments, StatefulSets, …)"
        )
    return world


def read(paths: Sequence[str], *, keep_going: bool) -> Loaded:
    """What was read; problems go to standard error. Raises :class:`InputError` for errors."""
    loaded = load(paths)
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    if loaded.errors and not keep_going:
        raise InputError(
            "not all of the input could be read, so the answer might be wrong (--keep-going "
            "leaves out what cannot be read)"
        )
    return loaded
