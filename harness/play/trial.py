"""``netpol try``: manifests on the embedded lab, with real packets, against what is expected."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
exit codes:
  0  every connection is as the policies say
  1  some are not
  2  it could not be tried
"""


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_inputs
    from harness.play import options
    from harness.run.asked import seconds

    parser = commands.add_parser(
        "try",
        help="manifests on the embedded lab, with real packets",
        description="Makes the pods, Services and policies of some manifests on an embedded lab, "
        "asks every connection with real packets, and shows what was seen beside what the "
        "policies say. Policies that come alone get pods with the labels they speak of.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_inputs(parser)
    options.add(parser)
    parser.add_argument(
        "-n",
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="only pods of this namespace (may be given several times)",
    )
    parser.add_argument(
        "--all", action="store_true", help="every pod, and every connection in the answer"
    )
    parser.add_argument(
        "--deadline",
        type=seconds,
        metavar="SECONDS",
        help="how long the policies may take to be enforced (5; more on a machine that is busy)",
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import sys
    import time

    from harness.desk.inputs import cluster_of, read
    from harness.play import options, tried

    began = time.monotonic()
    cni = options.cni_of(arguments)
    place = options.place_of(arguments, cni)
    options.check(cni, place)
    read_in = read(
        arguments.manifests, keep_going=arguments.keep_going, cluster=cluster_of(arguments)
    ).world()
    plan = tried.plan(
        read_in, place, namespaces=frozenset(arguments.namespace), every=arguments.all
    )
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    result = tried.carry_out(plan, cni, place, arguments.deadline)
    seconds = time.monotonic() - began
    what = options.told(cni, place)
    if arguments.json:
        print(tried.as_json(result, what, seconds))
    else:
        print(tried.as_text(result, what, seconds, every=arguments.all))
    return {"passed": 0, "failed": 1}.get(result.outcome, 2)
