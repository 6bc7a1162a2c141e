"""``netpol enforcer …`` and ``python -m harness.enforcer …``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.enforcer.lock import BusyError, only_one_here
from harness.enforcer.plane import Plane
from harness.enforcer.tool import AbsentError, ToolError

if TYPE_CHECKING:
    from harness.enforcer.controller import Controller, Source

DATAPLANES = ("iptables", "nftables")


def plane_of(options: argparse.Namespace, name: str = "") -> Plane:
    """The data plane of a name, or that of the options; only it is imported. Raises AbsentError."""
    if (name or options.dataplane) == "nftables":
        from harness.enforcer.nftables.plane import Nftables

        return Nftables()
    from harness.enforcer.iptables.plane import Iptables

    return Iptables(options.iptables)


def planes_but(options: argparse.Namespace, which: str | None) -> Iterator[Plane]:
    """All data planes but one, each made when it is asked for; none whose tools are not here."""
    for name in DATAPLANES:
        if name != which:
            with contextlib.suppress(AbsentError):
                yield plane_of(options, name)


def add_parser(subparsers: Any) -> None:
    """Add ``enforcer`` to the subcommands of another parser (argparse's ``add_subparsers()``)."""
    parser = subparsers.add_parser(
        "enforcer",
        help="the in-house NetworkPolicy controller",
        description="The in-house NetworkPolicy controller of one node.",
    )
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The controller's own commands."""
    commands = parser.add_subparsers(dest="enforcer_command", required=True, metavar="COMMAND")
    variant = argparse.ArgumentParser(add_help=False)
    variant.add_argument(
        "--iptables",
        choices=("", "nft", "legacy"),
        default="",
        help="which iptables to use; default: what is called iptables here",
    )
    common = argparse.ArgumentParser(add_help=False, parents=[variant])
    common.add_argument(
        "--dataplane", choices=DATAPLANES, default="nftables", help="default: %(default)s"
    )
    events = commands.add_parser(
        "events", parents=[common], help="enforce what change events on stdin say"
    )
    events.add_argument("--node", required=True, help="name of the node whose pods to protect")
    events.set_defaults(run=run_events)
    run = commands.add_parser(
        "run", parents=[common], help="enforce what a Kubernetes API server says"
    )
    run.add_argument(
        "--node",
        default=os.environ.get("NODE_NAME", ""),
        help="name of the node whose pods to protect; default: $NODE_NAME",
    )
    run.add_argument("--kubeconfig", default="", help="default: the pod's own service account")
    run.add_argument(
        "--listen",
        default="127.0.0.1:9470",
        metavar="ADDRESS:PORT",
        help="where /metrics, /readyz and /livez are answered; default: %(default)s",
    )
    run.set_defaults(run=run_controller)
    dump = commands.add_parser(
        "dump", parents=[common], help="show the rules that are in force on this node"
    )
    dump.add_argument(
        "--explain",
        action="store_true",
        help="say what each rule is for, and which rules of which policies it comes from",
    )
    dump.add_argument(
        "--kubeconfig",
        default="",
        help="ask the API server for the full names where a rule comes from many policies; "
        "default: the pod's own service account, if there is one",
    )
    dump.add_argument("--node", default=os.environ.get("NODE_NAME", ""), help="default: $NODE_NAME")
    dump.set_defaults(run=run_dump)
    clean = commands.add_parser(
        "clean", parents=[variant], help="take all rules and sets of the enforcer away"
    )
    clean.add_argument("--dataplane", choices=DATAPLANES, help="default: both")
    clean.set_defaults(run=run_clean)


def controller_of(options: argparse.Namespace, source: Source) -> Controller:
    """A controller with the data plane of the options, that replaces one of another plane."""
    from harness.enforcer.controller import Controller

    others = planes_but(options, options.dataplane)
    return Controller(options.node, plane_of(options), source, log_to_stderr, others)


def run_events(options: argparse.Namespace) -> int:
    from harness.enforcer.events import EventStream, NotAnEventError

    stream = EventStream(sys.stdin.fileno(), sys.stdout)
    try:
        with only_one_here(patience=5.0):
            controller_of(options, stream).run()
    except NotAnEventError as error:
        return complain(str(error))
    return 0


def run_controller(options: argparse.Namespace) -> int:
    import signal

    from harness.enforcer import status
    from harness.enforcer.kube import Api, ApiError, KubeSource

    address, colon, port = options.listen.rpartition(":")
    if not options.node:
        return complain("which node? Give --node NAME, or set NODE_NAME")
    if not colon or not port.isdigit():
        return complain(f"--listen wants ADDRESS:PORT, not {options.listen!r}")
    try:
        api = Api(options.kubeconfig)
    except ApiError as error:
        return complain(str(error))
    with only_one_here(patience=float("inf")):
        source = KubeSource(api, log_to_stderr)
        controller = controller_of(options, source)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: source.stop())
        try:
            server = status.serve(controller, address.strip("[]"), int(port))
        except (OSError, OverflowError) as error:
            return complain(f"cannot listen on {options.listen}: {error}")
        source.start()
        controller.run()
        server.shutdown()
        source.close()
    return complain(source.failed) if source.failed else 0


def run_dump(options: argparse.Namespace) -> int:
    from harness.enforcer import listing

    live = plane_of(options).live()
    if not live:
        return complain(f"no rules of the enforcer's data plane {options.dataplane} are in force")
    legend: dict[str, str] = {}
    if options.explain and (options.kubeconfig or "KUBERNETES_SERVICE_HOST" in os.environ):
        from harness.enforcer.kube import ApiError

        try:
            legend = legend_from_api(options)
        except ApiError as error:
            return complain(str(error))
    for family in live:
        print(f"{options.dataplane}, IPv{family.family}")
        lines = listing.explain(family, legend) if options.explain else listing.dump(family)
        for line in lines:
            print(f"  {line}")
    return 0


def legend_from_api(options: argparse.Namespace) -> dict[str, str]:
    """What comments that were cut say. Raises ApiError."""
    from harness.enforcer import kube
    from harness.enforcer.compiler import Compiler
    from harness.enforcer.intake import Intake
    from harness.enforcer.listing import legend_of

    compiler = Compiler(options.node)
    intake = Intake(compiler)
    for manifest in kube.objects(kube.Api(options.kubeconfig)):
        intake.take("ADDED", manifest)
    return legend_of(compiler.snapshot())


def run_clean(options: argparse.Namespace) -> int:
    planes = [plane_of(options)] if options.dataplane else planes_but(options, None)
    for plane in planes:
        plane.clean()
    return 0


def complain(text: str) -> int:
    """Say on stderr what is wrong; the exit code for it."""
    print(f"netpol enforcer: {text}", file=sys.stderr)
    return 1


def log_to_stderr(what: str, details: Mapping[str, Any]) -> None:
    """One JSON line on stderr."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"time": stamp, "event": what, **details}), file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="netpol enforcer", description=__doc__)
    add_commands(parser)
    options = parser.parse_args(argv)
    try:
        code: int = options.run(options)
    except (ToolError, BusyError) as error:
        return complain(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of the acknowledgements is gone; the rules stay
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
