"""The report by the rules of WCAG 2.2 AA, as far as axe-core can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.fixtures.chromium import opened

OPTIONS = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("red", "light"), ("red", "dark"), ("kind", "dark"), ("hostile", "light")],
)
def test_axe_finds_nothing(name: str, scheme: str, browser: Browser, reports: Path) -> None:
    url = (reports / f"{name}.html").as_uri()
    with opened(browser, url, color_scheme=scheme) as it:
        page = it.page
        for summary in page.locator("details.scenario > summary").all()[:3]:
            summary.click()
        # One scenario that departs as it is known to, for its signs occur nowhere else.
        for summary in page.locator("details.xfailed:not([open]) > summary").all()[:1]:
            summary.click()
        for css in ("lk", "ou", "uk", "fl", "kn", "un", "al", "dn"):
            cell = page.locator(f"td.{css}[data-c]:visible").first
            if cell.count():
                cell.click()
        page.mouse.move(0, 0)
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")  # else the head covers targets
        found = Axe().run(page, options=OPTIONS).response["violations"]
        told = [
            f"{v['id']}: {v['help']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for v in found
            for node in v["nodes"][:3]
        ]
        assert told == []
