"""A real Chromium, and pages that were opened in it the way people do."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import made_records
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from harness.report import html
from harness.report.record import RunRecord

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome-stable")
    if path is None:
        pytest.skip("there is no chromium on PATH (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


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


@dataclass
class Opened:
    """A page, and what went wrong while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, url: str, **context: object) -> Iterator[Opened]:
    """Open ``url`` in a context of its own; ends with no complaint, and with nothing fetched."""
    within = browser.new_context(**context)  # type: ignore[arg-type]
    within.set_default_timeout(15_000)
    result = Opened(within.new_page())
    page = result.page
    page.on("console", lambda m: result.complaints.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: result.complaints.append(str(e)))
    page.on("request", lambda r: result.requests.append(r.url))
    page.goto(url)
    try:
        yield result
        page.wait_for_timeout(0)
        assert result.complaints == []
        assert set(result.requests) <= {url.partition("#")[0]}
    finally:
        within.close()


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
