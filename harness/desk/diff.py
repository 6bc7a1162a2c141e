"""``netpol diff``: what opens and what closes between two sets of policies."""

from __future__ import annotations

import argparse
from typing import Any

FAIL_ON = ("any", "opens", "closes", "never")


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_keep_going

    parser = commands.add_parser(
        "diff",
        help="what opens and what closes between two sets of policies",
        description="Compares what two sets of policies allow, group by group of pods that neither "
        "set can tell apart. Made for reviews: `netpol diff main/ branch/ --format markdown`.",
    )
    parser.add_argument("old", metavar="OLD", help="manifests before: a file or a folder")
    parser.add_argument("new", metavar="NEW", help="manifests after")
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk import changes
    from harness.desk.inputs import read_world

    old, new = (
        read_world([side, *arguments.common], keep_going=arguments.keep_going)
        for side in (arguments.old, arguments.new)
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
