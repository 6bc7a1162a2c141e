"""``netpol clean``: take away what labs have left behind that ended before their time."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "clean",
        help="take away what labs have left behind",
        description="Takes away what is left of labs of `netpol lab up` that were killed or that "
        "the machine's end has ended, and kind clusters of runs that were killed. Labs that are "
        "up stay, and so do clusters that were kept on purpose; those of others are never touched. "
        "With --context or --kubeconfig: what runs have left on that cluster, by its label, and "
        "nothing else.",
    )
    parser.add_argument("--all", action="store_true", help="end the labs that are up as well")
    parser.add_argument(
        "--kept", action="store_true", help="delete also what was kept on purpose (--lab-keep)"
    )
    parser.add_argument(
        "--context", metavar="NAME", help="clean a cluster that exists, by its kubeconfig's context"
    )
    parser.add_argument(
        "--kubeconfig",
        nargs="?",
        const="",
        metavar="PATH",
        help="where the context is (without PATH: $KUBECONFIG, ~/.kube/config)",
    )
    parser.add_argument(
        "--run",
        metavar="ID",
        dest="of_run",
        help="on that cluster: only what is left of this run, however young it is (a run that has "
        "made something in the last 15 minutes may be under way, and is left alone)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.labs.base import LabError

    if arguments.context is not None or arguments.kubeconfig is not None:
        return _clean_cluster(arguments)
    if arguments.of_run is not None:
        raise LabError("--run is for a cluster: name it with --context or --kubeconfig")
    from harness.labs.kind import clean as kind
    from harness.play.home import homes
    from harness.play.tell import end

    labs, clusters = homes(), kind.leftovers(kept=arguments.kept)
    for home in labs:
        if not home.is_up():
            home.remove()
            print(f"lab {home.name}: it had ended without `netpol lab down`; cleaned up")
        elif arguments.all:
            end(home)
            print(f"lab {home.name}: ended")
        else:
            print(f"lab {home.name}: it is up, and stays (--all ends it)")
    failed = False
    for cluster in clusters:
        try:
            kind.clean(cluster)
            print(f"kind cluster {cluster.name}: deleted")
        except LabError as error:  # the others can be deleted all the same
            failed = True
            print(f"netpol: {error}", file=sys.stderr)
    if not labs and not clusters:
        print("nothing to clean up")
    return 2 if failed else 0


def _clean_cluster(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from harness.labs.base import LabError
    from harness.labs.cluster.connect import connect, context_name
    from harness.labs.cluster.leftovers import leftovers, remove

    kubeconfig = Path(arguments.kubeconfig) if arguments.kubeconfig else None
    where = context_name(arguments.context, kubeconfig)
    api = connect(kubeconfig, arguments.context)
    found, wanted = leftovers(api), arguments.of_run
    if wanted is not None:
        found = [one for one in found if one.run == wanted]
        if not found:
            raise LabError(f"there is nothing of run {wanted} on {where}")
    for one in found:
        told = f"run {one.run}: {one}"
        if one.kept and not (wanted or arguments.kept):
            print(f"{told}: kept on purpose, and stays (--kept deletes it)")
        elif not (one.gone or one.kept or wanted):
            minutes = one.idle.total_seconds() / 60
            print(
                f"{told}: stays, for it made something {minutes:.0f} minutes ago and may be under "
                f"way (--run {one.run} deletes it all the same)"
            )
        else:
            remove(api, one.run)
            print(f"{told}: deleted")
    if not found:
        print(f"nothing of a run is left on {where}")
    return 0
