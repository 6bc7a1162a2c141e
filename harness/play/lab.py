"""``netpol lab``: the embedded lab as a playground that stays until it is told to go."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
example:
  netpol lab up                        # nodes, names, an outside host; nothing else
  netpol lab apply demo.yaml           # pods, Services and policies, for real
  netpol lab shell np-demo/busy        # a shell in a pod: wget -qO- nginx
  netpol lab probe busy nginx          # what the policies say, and what a packet meets
  netpol lab down
"""


def add_parser(commands: Any) -> None:
    from harness.play import options
    from harness.play.home import DEFAULT

    parser = commands.add_parser(
        "lab",
        help="the embedded lab as a playground that stays",
        description="Keeps an embedded lab up between commands, as an ordinary user too: nodes, "
        "pods, Services, names and policies as you apply them, without Docker or an image. With "
        "--api it is a Kubernetes cluster, for kubectl and any other client.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="lab_command", required=True, metavar="COMMAND")

    def action(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.{more}"
        )
        made.add_argument("--name", default=DEFAULT, metavar="LAB", help="which lab (default)")
        made.set_defaults(run=run)
        return made

    options.add(action("up", "make a lab and leave it up"))
    for name, text in (
        ("apply", "take manifests in: what is new is made, what differs is changed"),
        ("delete", "take away what manifests name"),
    ):
        action(name, text).add_argument(
            "manifests", nargs="+", metavar="FILE", help="a file, a folder, or - for standard input"
        )
    shell = action(
        "shell",
        "a shell, or a command, in a pod, a node or an outside host",
        " Its exit code is the command's.",
    )
    shell.add_argument("where", metavar="POD", help="NAMESPACE/POD, node:NAME or external:NAME")
    shell.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="(a shell)")
    probe = action(
        "probe",
        "ask one connection, and say what the policies make of it",
        " One that is not as the policies say is a finding.",
    )
    probe.add_argument("source", metavar="SRC", help="as for `netpol explain`")
    probe.add_argument("target", metavar="DST[:PORT[/PROTO]]", help="likewise")
    probe.add_argument(
        "--via", choices=["name", "ip"], default="name", help="how a Service is asked (name)"
    )
    probe.add_argument("--ipv6", action="store_true", help="over IPv6")
    probe.add_argument("--json", action="store_true", help="the same for programs")
    status = action("status", "what is up, and what is in it", " Nothing up is a finding.")
    status.add_argument("--json", action="store_true", help="the same for programs")
    action("down", "end a lab and all that is in it")


def run(arguments: argparse.Namespace) -> int:
    from harness.play import tell

    command = getattr(tell, arguments.lab_command)
    code: int = command(arguments)
    return code
