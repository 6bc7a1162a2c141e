"""``netpol diff``: what opens and what closes between two sets of policies."""

from __future__ import annotations

import argparse
from typing import Any

FAIL_ON = ("any", "opens", "closes", "never")


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_cluster, add_keep_going

    parser = commands.add_parser(
        "diff",
        help="what opens and what closes between two sets of policies",
        description="Compares what two sets of policies allow, group by group of pods that neither "
        "set can tell apart. Made for reviews: `netpol diff main/ branch/ --format markdown`.",
    )
    parser.add_argument(
        "sides",
        nargs="+",
        metavar="OLD NEW",
        help="manifests before and after, a file or a folder each; beside a live cluster only NEW: "
        "what would change if it were applied",
    )
    parser.add_argument(
        "--with",
        dest="common",
        action="append",
        default=[],
        metavar="FILE",
        help="manifests that are the same on both sides, such as the workloads",
    )
    parser.add_argument("--format", choices=["text", "markdown", "json"], default="text")
    parser.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        default="any",
        help="which change is a finding (exit code 1)",
    )
    add_keep_going(parser)
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk import changes
    from harness.desk.inputs import InputError, cluster_of, read_world

    cluster = cluster_of(arguments)
    sides = [[one, *arguments.common] for one in arguments.sides]
    if cluster is not None:
        sides.insert(0, arguments.common)
    if len(sides) != 2:
        raise InputError(
            "name OLD and NEW, two files or folders"
            if cluster is None
            else "beside a live cluster name just NEW, one file or folder"
        )
    old, new = (
        read_world(side, keep_going=arguments.keep_going, cluster=cluster) for side in sides
    )
    found = changes.compare(old, new)
    print(changes.FORMS[arguments.format](found))
    wrong = {
        "any": bool(found.opened or found.closed or found.blurred),
        "opens": bool(found.opened),
        "closes": bool(found.closed),
        "never": False,
    }
    return 1 if wrong[arguments.fail_on] else 0
