"""``netpol doctor``: what this machine can do, and the one step that mends what it cannot."""

from __future__ import annotations

import argparse
from typing import Any

#: What `--lab` takes; the embedded lab is what the suites run on unless told otherwise.
LABS = ("netns", "netns-api", "kind", "kubeconfig")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this machine can do, and what mends the rest",
        description="Looks at labs, data planes, fabrics, kernel features and tools by trying them "
        "in namespaces of its own; changes nothing. A lab that cannot be used is a finding.",
    )
    parser.add_argument(
        "--lab", choices=LABS, default="netns", help="the lab that decides the exit code (netns)"
    )
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.doctor import examine, show

    checks = examine.everything()
    if arguments.json:
        print(show.as_json(checks))
    else:
        show.as_table(checks)
    usable = any(c.group == "labs" and c.name == arguments.lab and c.can for c in checks)
    return 0 if usable else 1
