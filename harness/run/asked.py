"""Numbers on a command line: types of options, for pytest's and for the ``netpol`` command's."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def count(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number, from ``low`` to ``high``."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """The type of an option that takes seconds: more than 0, an hour at the most."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, up to 3600")
    return value
