"""``netpol api``: where the embedded control plane's programs are, and how to get them."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "api",
        help="the programs of a Kubernetes control plane: find, fetch, build",
        description="The programs that --lab-api runs: etcd, kube-apiserver, "
        "kube-controller-manager, kube-scheduler and kube-proxy.",
    )
    actions = parser.add_subparsers(dest="api_command", required=True, metavar="COMMAND")
    for name, text in (
        ("find", "tell where they are, looking as --lab-api does"),
        ("fetch", "download a release's programs, checked by their published digests"),
        ("build", "build them out of their published Go modules (some minutes, once)"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        action.add_argument("--version", metavar="1.36", help="Kubernetes version")
        action.add_argument(
            "--dir",
            type=Path,
            metavar="DIR",
            help="only in this folder" if name == "find" else "into this folder (the user's cache)",
        )
        action.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.labs.controlplane import binaries

    version = arguments.version or binaries.DEFAULT_VERSION
    told = partial(print, flush=True)
    match arguments.api_command:
        case "find":
            print(binaries.find(version, arguments.dir))
        case "fetch":
            from harness.labs.controlplane.fetch import fetch

            print(fetch(version, arguments.dir, told))
        case _:
            from harness.labs.controlplane.build import build

            print(build(version, arguments.dir, told))
    return 0
