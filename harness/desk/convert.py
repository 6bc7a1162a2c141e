"""``netpol convert``: policies from before Kubernetes 1.7, their v1 equivalent and what differs."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="policies from before Kubernetes 1.7: the v1 equivalent, and what differs",
        description="Reads extensions/v1beta1 NetworkPolicies and the namespace annotation "
        "net.beta.kubernetes.io/network-policy, prints the networking.k8s.io/v1 objects that mean "
        "the same, and tells on standard error what each old one meant and where a literal copy "
        "would mean something else.",
    )
    parser.add_argument(
        "manifests",
        nargs="+",
        metavar="FILE",
        help="old manifests, with the namespaces that they speak of; - for standard input",
    )
    parser.add_argument("--quiet", action="store_true", help="only the manifests")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk.inputs import InputError
    from harness.model.legacy import LegacyPolicy, convert, load_legacy
    from harness.model.manifest import to_yaml

    loaded = load_legacy(arguments.manifests)
    converted = convert(loaded.objects, loaded.problems)
    for problem in converted.problems:
        print(problem, file=sys.stderr)
    if any(problem.severity == "error" for problem in converted.problems):
        raise InputError("not all of the input could be read, so nothing was converted")
    if not converted.objects and not any(isinstance(o, LegacyPolicy) for o in loaded.objects):
        raise InputError(
            f"there is nothing from before Kubernetes 1.7 in {', '.join(arguments.manifests)}"
        )
    if not arguments.quiet:
        for note in converted.notes:
            where = f"{note.source}: " if note.source else ""
            print(f"{where}{note.text} [{note.code}]", file=sys.stderr)
    print(to_yaml(converted.objects), end="")
    return 0
