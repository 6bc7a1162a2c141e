"""Engines for tests: as the lab starts them, but told what to do wrong."""

from __future__ import annotations

import json
import os
import sys
import time


def main(log: str, fault: str) -> None:
    """Write every event to ``log``; acknowledge each, with one fault of these:

    ``none``; ``slow``: pods take half a second; ``stubborn``: errors at pods; ``mute``: no
    acknowledgement after the initial list; ``exits``: ends at the first policy; ``babbles``:
    writes what is no JSON.
    """
    for line in sys.stdin:
        event = json.loads(line)
        kind = event.get("object", {}).get("kind", "")
        with open(log, "a") as out:
            out.write(json.dumps({**event, "at": time.monotonic()}) + "\n")
        if kind == "NetworkPolicy" and fault == "exits":
            print("no more of this", file=sys.stderr)
            os._exit(5)
        own = kind == "Pod" and event["object"]["metadata"]["namespace"] == "e"
        if own and fault == "slow":
            time.sleep(0.5)
        if own and fault == "mute":
            time.sleep(3600)
        if own and fault == "babbles":
            print("ready!", flush=True)
            continue
        errors = ["the kernel said no"] if own and fault == "stubborn" else []
        answer = {"seq": event["seq"], "ok": not errors, "seconds": 0.0, "errors": errors}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
