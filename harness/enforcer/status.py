"""What the controller says of itself over HTTP: ``/metrics``, ``/readyz``, ``/livez``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness.enforcer.controller import Controller

FORMAT = "text/plain; version=0.0.4; charset=utf-8"


def exposition(controller: Controller, now: float) -> str:
    """The counters in Prometheus's text format. ``now`` is on the monotonic clock, in seconds."""
    return "".join(f"{line}\n" for line in _lines(controller, now))


def _lines(controller: Controller, now: float) -> Iterator[str]:
    tally = controller.tally
    rules, sets = tally.size
    metrics: list[tuple[str, str, str, float | None]] = [
        ("events_total", "counter", "Changes of objects that came in.", tally.events),
        ("applies_total", "counter", "Changes that were brought into force.", tally.applied),
        ("failures_total", "counter", "Changes that the kernel refused.", tally.failures),
        ("mended_total", "counter", "Foreign changes to our rules, mended.", tally.mended),
        ("rules", "gauge", "Rules in force.", rules),
        ("sets", "gauge", "Sets and maps in force.", sets),
        (
            "unclear_objects",
            "gauge",
            "Objects of which a part could not be compiled.",
            len(controller.compiler.problems),
        ),
        (
            "agreement_age_seconds",
            "gauge",
            "Seconds since rules and objects last agreed for certain; absent before.",
            None if tally.agreed is None else now - tally.agreed,
        ),
    ]
    for name, kind, text, value in metrics:
        if value is not None:
            yield f"# HELP netpol_enforcer_{name} {text}"
            yield f"# TYPE netpol_enforcer_{name} {kind}"
            yield f"netpol_enforcer_{name} {value:g}"
    for name, seconds in (("compile", tally.compile_seconds), ("apply", tally.apply_seconds)):
        full = f"netpol_enforcer_{name}_seconds"
        yield f"# HELP {full} Seconds that it took to {name} changes."
        yield f"# TYPE {full} summary"
        yield f"{full}_sum {seconds:g}"
        yield f"{full}_count {tally.applied}"


def serve(controller: Controller, address: str, port: int) -> ThreadingHTTPServer:
    """Answer in a thread of its own until ``shutdown()``. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/metrics":
                    self._say(200, exposition(controller, time.monotonic()), FORMAT)
                case "/readyz" if controller.ready:
                    self._say(200, "rules are in force\n")
                case "/readyz":
                    self._say(503, "rules are not in force yet\n")
                case "/livez":
                    self._say(200, "alive\n")
                case _:
                    self._say(404, "there are /metrics, /readyz and /livez\n")

        def _say(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes come every few seconds: not worth a line each."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
