"""``netpol clean``: take away what labs have left behind that ended before their time."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "clean",
        help="take away what labs have left behind",
        description="Takes away what is left of labs of `netpol lab up` that were killed, or that "
        "the machine's end has ended: folders with logs, for the kernel has ended all else. Labs "
        "that are up stay. Takes away kind clusters, too, whose run was killed; those of others, "
        "and those of runs that go on, stay.",
    )
    parser.add_argument(
        "--kept", action="store_true", help="delete kind clusters as well that --lab-keep has kept"
    )
    parser.add_argument("--all", action="store_true", help="end the labs that are up as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.play.home import homes
    from harness.play.tell import end

    kinds, failed = _kind_clusters(kept=arguments.kept)
    found = homes()
    for home in found:
        if not home.is_up():
            home.remove()
            print(f"lab {home.name}: it had ended without `netpol lab down`; cleaned up")
        elif arguments.all:
            end(home)
            print(f"lab {home.name}: ended")
        else:
            print(f"lab {home.name}: it is up, and stays (--all ends it)")
    if not found and not kinds:
        print("nothing to clean up")
    return 1 if failed else 0


def _kind_clusters(*, kept: bool) -> tuple[int, int]:
    """Delete those that were left behind: how many there were, and could not be deleted."""
    import sys

    from harness.labs.base import LabError
    from harness.labs.kind import clean, state

    failed = 0
    left = clean.leftovers(kept=kept)
    stay = [one for one in state.all_known() if one not in left and one.state == state.KEPT]
    for one in left:
        try:
            clean.clean(one)
            print(f"kind cluster {one.name}: deleted")
        except LabError as error:
            failed += 1
            print(f"kind cluster {one.name} is still there: {error}", file=sys.stderr)
    for one in stay:
        print(f"kind cluster {one.name}: it was kept, and stays (--kept deletes it)")
    return len(left) + len(stay), failed
