"""``netpol lint``: what is wrong, or likely wrong, with policies."""

from __future__ import annotations

import argparse
from typing import Any

FAIL_ON = ("error", "warning", "info", "never")


def add_parser(commands: Any) -> None:
    from harness.desk.inputs import add_cluster

    parser = commands.add_parser(
        "lint",
        help="what is wrong, or likely wrong, with policies",
        description="Looks for policies that do nothing or not what they seem to. A comment in the "
        "YAML document silences a code: # netpol-lint: ignore NP104 because REASON",
    )
    parser.add_argument(
        "manifests",
        nargs="*",
        metavar="FILE",
        help="manifests: a file, a folder with all that is below it, or - for standard input",
    )
    add_cluster(parser)
    parser.add_argument("--format", choices=["text", "json", "sarif"], default="text")
    parser.add_argument(
        "--fail-on", choices=FAIL_ON, default="warning", help="what is a finding (warning)"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="CODE", help="leave this code out"
    )
    parser.add_argument(
        "--cni",
        action="append",
        default=[],
        metavar="NAME",
        help="tell what this CNI treats differently (may be given several times; `all`: everyone)",
    )
    parser.add_argument("--rules", action="store_true", help="list the rules and stop")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.desk.findings import Severity, counted, in_order, without_silenced
    from harness.desk.inputs import InputError, cluster_of, gather
    from harness.desk.look import all_rules, as_json, as_text, look
    from harness.desk.sarif import as_sarif

    rules = all_rules()
    if arguments.rules:
        for rule in rules:
            print(f"{rule.code} {rule.severity!s:<8} {rule.name}: {rule.help}")
        return 0
    unknown = sorted(set(arguments.ignore) - {rule.code for rule in rules})
    if unknown:
        raise InputError(f"there is no rule {unknown[0]}; `netpol lint --rules` lists them")
    findings, comments = look(gather(arguments.manifests, cluster_of(arguments)), arguments.cni)
    left, silenced = without_silenced(findings, comments)
    left = in_order(finding for finding in left if finding.rule.code not in arguments.ignore)
    counts = counted(left)
    if arguments.format == "sarif":
        print(as_sarif(left, silenced, rules))
    else:
        print((as_json if arguments.format == "json" else as_text)(left, silenced))
    if arguments.fail_on == "never":
        return 0
    least = Severity[arguments.fail_on.upper()]
    return 1 if any(count for severity, count in counts.items() if severity >= least) else 0
