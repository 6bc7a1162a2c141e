"""``netpol matrix``: the whole reachability of some manifests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_inputs

    parser = commands.add_parser(
        "matrix",
        help="who reaches whom: the whole reachability of some manifests",
        description="Prints what the policies in some manifests allow. Pods that no policy can "
        "tell apart are one row, and so are addresses outside of the cluster.",
    )
    add_inputs(parser)
    parser.add_argument(
        "--format", choices=["text", "csv", "json", "dot", "html"], default="text", help="(text)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="into a file")
    parser.add_argument(
        "-n",
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="only groups with a pod in this namespace (may be given several times)",
    )
    parser.add_argument("--no-outside", action="store_true", help="leave outside addresses out")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk import matrix_forms
    from harness.desk.inputs import InputError, cluster_of, read_world
    from harness.desk.reach import matrix

    world = read_world(
        arguments.manifests, keep_going=arguments.keep_going, cluster=cluster_of(arguments)
    )
    found = matrix(
        world, outside=not arguments.no_outside, namespaces=frozenset(arguments.namespace)
    )
    if not any(not group.outside for group in found.groups):
        names = ", ".join(sorted({pod.namespace for pod in world.pods.values()}))
        raise InputError(f"no running pod is left to show; there are pods in: {names}")
    if arguments.format == "html":
        from harness.desk.matrix_page import as_html

        form = as_html(found)
    else:
        form = matrix_forms.FORMS[arguments.format](found)
    if arguments.output:
        Path(arguments.output).write_bytes(form.encode(errors="replace"))
    else:
        print(form, end="")
    return 0
