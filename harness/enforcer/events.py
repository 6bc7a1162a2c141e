"""Changes as a stream of JSON lines, and acknowledgements of them.

In:  ``{"seq": 1, "type": "ADDED"|"MODIFIED"|"DELETED"|"SYNCED", "object": {a manifest}}``; the
first ``SYNCED`` ends the initial list, before it nothing is touched.
Out: ``{"seq": 1, "ok": true, "seconds": 0.012, "errors": []}``: everything up to that event is in
force in this node's kernel, ``seconds`` after it was read. ``ok`` is false where an object could
not be read or compiled (``errors`` names it; all others are in force), and where the kernel refused
the change: then it is tried again, and acknowledged once more when it is in force.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import IO, Any

from harness.enforcer.controller import Event

CHUNK = 1 << 20


class NotAnEventError(Exception):
    """Somebody else than a source of events writes to the input."""


class EventStream:
    """A source of changes on a pair of file descriptors."""

    def __init__(self, source: int, sink: IO[str]) -> None:
        self._source = source
        self._sink = sink
        self._rest = b""

    def fileno(self) -> int:
        return self._source

    def read(self) -> Sequence[Event] | None:
        """All whole lines that wait."""
        chunk = os.read(self._source, CHUNK)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [self._event(line) for line in lines if line]

    def done(self, sequence: Any, seconds: float, errors: Sequence[str]) -> None:
        ack = {
            "seq": sequence,
            "ok": not errors,
            "seconds": round(seconds, 6),
            "errors": list(errors),
        }
        print(json.dumps(ack), file=self._sink, flush=True)

    @staticmethod
    def _event(line: bytes) -> Event:
        try:
            said = json.loads(line)
            return Event(said["seq"], said["type"], said.get("object") or {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            shown = line[:80].decode(errors="replace")
            raise NotAnEventError(f"a line on stdin is no event ({error!r}): {shown}") from error
