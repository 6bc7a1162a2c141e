"""One enforcer for a network namespace: two would take each other's rules for foreign ones.

The lock is an abstract socket's name. Such names belong to the network namespace, as the rules do,
and the kernel frees them however a process ends.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

NAME = "\0netpol-enforcer"


class BusyError(Exception):
    """Another enforcer is at work in this network namespace."""


@contextlib.contextmanager
def only_one_here(patience: float) -> Iterator[None]:
    """Hold the lock; wait up to ``patience`` seconds for another to end. Raises BusyError."""
    until = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        while True:
            try:
                holder.bind(NAME)
                break
            except OSError as error:
                if time.monotonic() >= until:
                    raise BusyError(
                        "another enforcer is at work on this node; end that one first"
                    ) from error
                time.sleep(0.05)
        yield
