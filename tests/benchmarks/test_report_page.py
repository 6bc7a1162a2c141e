"""What a large report costs: size on disk, time to draw, time until it can be used.

The bounds are generous, for the machine may be busy; ``-rP`` shows the figures. Those in the docs
were taken on an idle machine.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.report import html
from harness.report.record import RecordWriter, RunRecord, read
from tests.fixtures.chromium import browser, opened
from tests.fixtures.made_records import make

__all__ = ["browser"]

SCENARIOS = 2000
OPEN = 2.0  # seconds until the page can be used
SLACK = 4  # for a machine that is busy with something else


@pytest.fixture(scope="module")
def large() -> RunRecord:
    """2,000 scenarios of two steps with about 144 cells each, a few of them wrong."""
    small = make("red", extra=40)
    whole, rest = divmod(SCENARIOS, len(small.scenarios))
    scenarios = [
        replace(s, id=f"{s.id}#{n}", outcome=s.outcome if n < 3 else "passed")
        for n in range(whole + 1)
        for s in (small.scenarios if n < whole else small.scenarios[:rest])
    ]
    return replace(small, scenarios=scenarios)


def test_a_record_of_300_scenarios_stays_small_and_quick(tmp_path: Path, large: RunRecord) -> None:
    writer = RecordWriter(tmp_path)
    began = time.monotonic()
    writer.header(large.run)
    for scenario in large.scenarios[:300]:
        writer.scenario(scenario)
    path = writer.close()
    written = time.monotonic() - began
    assert path is not None
    began = time.monotonic()
    record = read(path)
    took = time.monotonic() - began
    cells = sum(len(step.cells) for s in record.scenarios for step in s.steps)
    size = path.stat().st_size
    print(
        f"record of 300 scenarios, {cells:,} cells: {size / 2**20:.1f} MiB "
        f"({size / cells:.0f} bytes a cell), written in {written:.2f} s, read in {took:.2f} s"
    )
    assert size < 12 * 2**20
    assert written < 3 * SLACK
    assert took < 2 * SLACK


def test_2000_scenarios_open_in_two_seconds(
    tmp_path: Path, large: RunRecord, browser: Browser
) -> None:
    began = time.monotonic()
    path = html.write(large, tmp_path / "large.html")
    drawn = time.monotonic() - began
    with opened(browser, path.as_uri()) as it:
        page = it.page
        ready = page.evaluate(
            "new Promise(done => requestAnimationFrame(() => setTimeout("
            "() => done(performance.now()))))"
        )
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        assert page.locator("details.scenario").count() == SCENARIOS
        filtered = page.evaluate(
            """async () => {
                const frame = () => new Promise(requestAnimationFrame);
                const q = document.querySelector('[name=q]');
                const began = performance.now();
                q.value = 'egress of x';
                q.dispatchEvent(new Event('input', { bubbles: true }));
                await frame();
                return (performance.now() - began) / 1000;
            }"""
        )
        assert 0 < page.locator("details.scenario:not([hidden])").count() < SCENARIOS
        unfolded = page.evaluate(
            """async () => {
                const frame = () => new Promise(requestAnimationFrame);
                const one = [...document.querySelectorAll('details.scenario[data-at]')].at(-1);
                const began = performance.now();
                one.hidden = false;
                one.open = true;
                while (!one.querySelector('td[data-c]')) await frame();
                return (performance.now() - began) / 1000;
            }"""
        )
        scrolled = page.evaluate(
            """async () => {
                const frame = () => new Promise(requestAnimationFrame);
                document.querySelector('#filter').reset();
                await frame(); await frame();
                let worst = 0;
                for (let n = 0; n < 30; n++) {
                    const began = performance.now();
                    scrollBy({ top: 900, behavior: 'instant' });
                    await frame();
                    worst = Math.max(worst, performance.now() - began);
                }
                return worst / 1000;
            }"""
        )
    print(
        f"report of {SCENARIOS:,} scenarios: {path.stat().st_size / 2**20:.1f} MiB, drawn in "
        f"{drawn:.1f} s, loaded after {loaded:.2f} s, first frame {ready / 1000:.2f} s, filtered "
        f"in {filtered:.3f} s, unfolded in {unfolded:.3f} s, slowest frame of scrolling "
        f"{scrolled:.3f} s"
    )
    assert loaded < OPEN * SLACK
    assert filtered < 0.2 * SLACK
    assert unfolded < 0.5 * SLACK
    assert scrolled < 0.2 * SLACK
