"""The comparison as a page: without any script, for eyes, screen readers and telephones."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from harness.report import compare, html, summary
from harness.report.record import RunRecord
from tests.browser.test_report_accessibility import OPTIONS
from tests.fixtures.chromium import opened


@pytest.fixture(scope="module")
def page_of(records: dict[str, RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    comparison = compare.compare(list(records.values()), ["x.json: cannot be read"])
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    text = html.render_document(compare.document(comparison))
    path.write_bytes(text.encode(errors="replace"))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_and_runs_nothing(
    scheme: str, browser: Browser, page_of: Path, records: dict[str, RunRecord]
) -> None:
    latencies = [summary.latencies(r.scenarios) for r in records.values()]
    curves = sum(bool(of.values) for by_verdict in latencies for of in by_verdict.values())
    with opened(browser, page_of.as_uri(), color_scheme=scheme) as it:
        page = it.page
        assert page.locator("script").count() == 0
        assert page.title() == "NetworkPolicy conformance compared"
        expect(page.locator("body")).to_contain_text("Note: x.json: cannot be read")
        expect(page.locator("svg.plot .curve")).to_have_count(curves)
        found = Axe().run(page, options=OPTIONS).response["violations"]
        assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found] == []


def test_it_fits_a_telephone(browser: Browser, page_of: Path) -> None:
    url = page_of.as_uri()
    with opened(browser, url, viewport={"width": 360, "height": 740}) as it:
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 360
