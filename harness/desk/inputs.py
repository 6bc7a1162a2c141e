"""Manifests as the input of a command: files, folders, standard input, a live cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.model.manifest import Loaded, load
from harness.model.world import World


class InputError(Exception):
    """What was given cannot be worked with; the faults themselves have been printed."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A live cluster by its kubeconfig; "" is what kubectl would take."""

    kubeconfig: str = ""
    context: str = ""


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """``FILE...``, ``--keep-going``, ``--kubeconfig`` and ``--context``."""
    parser.add_argument(
        "manifests",
        nargs="*",
        metavar="FILE",
        help="manifests in YAML or JSON: a file, a folder with all that is below it, or - for "
        "standard input; beside a live cluster, as if they were applied to it",
    )
    add_keep_going(parser)
    add_cluster(parser)


def add_keep_going(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="leave out objects that cannot be read, and answer for the others",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """``--kubeconfig`` and ``--context``."""
    parser.add_argument(
        "--kubeconfig",
        nargs="?",
        const="",
        metavar="PATH",
        help="read a live cluster: all that decides who reaches whom, and nothing is changed "
        "(without PATH: $KUBECONFIG, ~/.kube/config)",
    )
    parser.add_argument(
        "--context", metavar="NAME", help="of the kubeconfig (the current one); implies it"
    )


def cluster_of(arguments: argparse.Namespace) -> Cluster | None:
    """The live cluster that was asked for."""
    if arguments.kubeconfig is None and arguments.context is None:
        return None
    return Cluster(arguments.kubeconfig or "", arguments.context or "")


def read_world(
    paths: Sequence[str], *, keep_going: bool = False, cluster: Cluster | None = None
) -> World:
    """The world that they describe. Raises :class:`InputError`, LabError of a cluster."""
    loaded = read(paths, keep_going=keep_going, cluster=cluster)
    world = loaded.world()
    if not world.pods:
        where = ", ".join([*(["the cluster"] if cluster else []), *paths])
        raise InputError(
            f"there is no pod in {where}, so there is nothing to say of policies\n"
            "  hint: give the workloads' manifests as well (Pods, Deployments, StatefulSets, …)"
        )
    return world


def read(
    paths: Sequence[str], *, keep_going: bool = False, cluster: Cluster | None = None
) -> Loaded:
    """What was read, a cluster's objects first; problems go to standard error. Raises
    :class:`InputError` for errors, LabError where a cluster does not give what was asked."""
    loaded = gather(paths, cluster)
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    if loaded.errors and not keep_going:
        raise InputError(
            "not all of the input could be read, so the answer might be wrong (--keep-going "
            "leaves out what cannot be read)"
        )
    return loaded


def gather(paths: Sequence[str], cluster: Cluster | None = None) -> Loaded:
    """What there is, with its problems. Raises as :func:`read`, but for problems."""
    if not paths and cluster is None:
        raise InputError(
            "name the manifests to look at (or - for standard input), or a cluster (--kubeconfig)"
        )
    loaded = load(paths)
    if cluster is None:
        return loaded
    from harness.desk.live import read_cluster  # only here: the client takes half a second

    live = read_cluster(cluster.kubeconfig, cluster.context)
    return Loaded(live.objects + loaded.objects, live.problems + loaded.problems)
