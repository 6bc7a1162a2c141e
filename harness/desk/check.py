"""``netpol check``: assertions about who reaches whom, verified on the model."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_inputs

    parser = commands.add_parser(
        "check",
        help="verify assertions about who reaches whom, with a counter-example",
        description="Verifies assertions, such as 'tenant a never reaches tenant b', against all "
        "pods and policies of some manifests. An assertion that does not hold is a finding, and so "
        "is one that speaks of nobody.",
    )
    parser.add_argument(
        "-a",
        "--assertions",
        action="append",
        required=True,
        metavar="FILE",
        help="assertions in YAML (may be given several times)",
    )
    add_inputs(parser)
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk import verify
    from harness.desk.assertions import read_assertions
    from harness.desk.inputs import InputError, cluster_of, read_world

    assertions, problems = read_assertions(arguments.assertions)
    for problem in problems:
        print(problem, file=sys.stderr)
    if any(problem.severity == "error" for problem in problems):
        raise InputError("the assertions could not be read, so nothing was verified")
    if not assertions:
        raise InputError(f"there is no assertion in {', '.join(arguments.assertions)}")
    world = read_world(
        arguments.manifests, keep_going=arguments.keep_going, cluster=cluster_of(arguments)
    )
    results = verify.verify(world, assertions)
    print(verify.as_json(results) if arguments.json else verify.as_text(results))
    return 0 if all(result.holds for result in results) else 1
