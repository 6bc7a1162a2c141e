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
        "that are up stay.",
    )
    parser.add_argument("--all", action="store_true", help="end the labs that are up as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from harness.play.home import homes
    from harness.play.tell import end

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
    if not found:
        print("nothing to clean up")
    return 0
