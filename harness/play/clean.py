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
        "up stay, and so do clusters that were kept on purpose; those of others are never touched.",
    )
    parser.add_argument("--all", action="store_true", help="end the labs that are up as well")
    parser.add_argument(
        "--kept", action="store_true", help="delete kind clusters that were kept as well"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.labs.base import LabError
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
