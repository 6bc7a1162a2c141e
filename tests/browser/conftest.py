"""Reports on disk and behind a server, for a browser to open."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report import html
from harness.report.record import RunRecord
from tests.fixtures import made_records
from tests.fixtures.chromium import browser

__all__ = ["browser"]


@pytest.fixture(scope="session")
def records() -> dict[str, RunRecord]:
    made = {name: made_records.make(name, extra=4) for name in ("green", "red", "none", "kind")}
    return made | {"hostile": made_records.hostile()}


@pytest.fixture(scope="session")
def reports(records: dict[str, RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one report for each record."""
    directory = tmp_path_factory.mktemp("reports")
    for name, record in records.items():
        html.write(record, directory / f"{name}.html")
    return directory


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", html.content_security_policy())
        super().end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="session")
def served(reports: Path) -> Iterator[str]:
    """Address of a server that sends the reports under their own content security policy."""
    handler = functools.partial(_Handler, directory=str(reports))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
