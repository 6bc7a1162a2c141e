"""The controller on a stream of events: JSON lines in, acknowledgements out.

In:  ``{"seq": 1, "type": "ADDED"|"MODIFIED"|"DELETED"|"SYNCED", "object": {a manifest}}``; the
first ``SYNCED`` ends the initial list, before it nothing is touched.
Out: ``{"seq": 1, "ok": true, "seconds": 0.012, "errors": []}``: everything up to that event is in
force in this node's kernel, ``seconds`` after it was read.

What waits on the input is taken together, as one change.
"""

from __future__ import annotations

import json
import os
import time
from typing import IO, Any

from harness.enforcer.compiler import Compiler
from harness.enforcer.intake import Intake
from harness.enforcer.plane import Plane
from harness.enforcer.tool import ToolError

CHUNK = 1 << 20


def run(node: str, plane: Plane, source: int, sink: IO[str]) -> None:
    """Serve events from a file descriptor until it ends. The rules stay in force after it."""
    compiler = Compiler(node)
    intake = Intake(compiler)
    synced, rest = False, b""
    while chunk := os.read(source, CHUNK):
        begun = time.monotonic()
        *lines, rest = (rest + chunk).split(b"\n")
        errors: list[str] = []
        seq: Any = None
        for line in filter(None, lines):
            event = json.loads(line)
            seq = event.get("seq")
            if event["type"] == "SYNCED":
                synced = True
            elif problem := intake.take(event["type"], event["object"]):
                errors.append(problem)
        if not synced or seq is None:
            continue
        try:
            plane.apply(compiler.snapshot())
        except ToolError as error:
            errors.append(str(error))
        ack = {
            "seq": seq,
            "ok": not errors,
            "seconds": round(time.monotonic() - begun, 6),
            "errors": errors,
        }
        print(json.dumps(ack), file=sink, flush=True)
