"""``netpol explain``: why one connection is allowed or denied."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_inputs

    parser = commands.add_parser(
        "explain",
        help="why one connection is allowed or denied",
        description="Tells whether SRC may connect to DST, which policies and rules decide it, and "
        "what was considered and did not match. A connection that is not allowed is a finding.",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help="NAMESPACE/POD, NAMESPACE/WORKLOAD, node:NAME or an address outside of the cluster",
    )
    parser.add_argument(
        "target",
        metavar="DST[:PORT[/PROTO]]",
        help="as SRC, or svc:NAMESPACE/NAME; PORT by number or name, and only where the target "
        "declares several",
    )
    add_inputs(parser)
    parser.add_argument(
        "--via",
        choices=["name", "ip"],
        default="name",
        help="how a Service is asked: by name, which takes a DNS lookup as well, or by address",
    )
    parser.add_argument("--ipv6", action="store_true", help="over IPv6")
    parser.add_argument(
        "--cni", metavar="NAME", help="complete what the API leaves open as this CNI does"
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import json

    from harness.cnis import catalogue
    from harness.desk.ends import cell_of
    from harness.desk.inputs import cluster_of, read_world
    from harness.model.explain import explain
    from harness.model.flow import Verdict

    world = read_world(
        arguments.manifests, keep_going=arguments.keep_going, cluster=cluster_of(arguments)
    )
    asked = cell_of(
        world,
        arguments.source,
        arguments.target,
        by_name=arguments.via == "name",
        family=6 if arguments.ipv6 else 4,
    )
    profile = catalogue.get(arguments.cni).profile if arguments.cni else {}
    explanation = explain(asked.world, asked.cell, profile)
    for note in asked.notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"schema": "netpol-explain/1", **explanation.data()}, indent=1))
    else:
        print(explanation.text())
    return 0 if explanation.decision.verdict is Verdict.ALLOW else 1
