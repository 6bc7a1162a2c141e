"""``netpol matrix --format html``: for eyes, screen readers and telephones, without any script."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from harness import __main__ as cli
from harness.desk.matrix_page import MOST_GROUPS, as_html
from harness.desk.reach import matrix
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, PolicyPort, Rule
from harness.model.world import Pod, World
from tests.browser.test_report_accessibility import OPTIONS
from tests.fixtures.chromium import opened

SHOP = Path(__file__).parents[1] / "golden/desk/shop.yaml"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_and_runs_nothing(scheme: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "matrix.html"
    assert cli.main(["matrix", str(SHOP), "--format", "html", "-o", str(path)]) == 0
    with opened(browser, path.as_uri(), color_scheme=scheme) as it:
        page = it.page
        assert page.locator("script").count() == 0
        assert page.title() == "Who reaches whom"
        row = page.locator(".mx tbody tr", has_text="shop/web-* (3)")
        left = "left to the implementation"
        told = [left, "TCP 5432", left, "no port", "every port"]
        expect(row.locator("td")).to_have_text(told)
        expect(page.locator("svg[role=img]")).to_be_visible()
        expect(page.locator("svg[role=img] text", has_text="web-*")).to_be_visible()
        found = Axe().run(page, options=OPTIONS).response["violations"]
        assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found] == []


def test_it_fits_a_telephone(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "matrix.html"
    cli.main(["matrix", str(SHOP), "--format", "html", "-o", str(path)])
    with opened(browser, path.as_uri(), viewport={"width": 360, "height": 740}) as it:
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_large_one_is_still_a_page(browser: Browser, tmp_path: Path) -> None:
    """Namespaces are drawn in the place of groups, and a list takes the place of the squares."""
    count = MOST_GROUPS + 5
    pods, policies = {}, {}
    for i in range(count):
        pod = Pod(f"n{i % 8}", f"p{i}", {"i": str(i)})
        before = Peer(pod_selector=LabelSelector((("i", str(i - 8)),)))
        rule = Rule((before,), (PolicyPort(port=1000 + i),))
        pods[pod.key] = pod
        policies[pod.key] = NetworkPolicy(
            *pod.key, LabelSelector((("i", str(i)),)), ingress=(rule,)
        )
    path = tmp_path / "matrix.html"
    path.write_text(as_html(matrix(World(pods=pods, policies=policies))), encoding="utf-8")
    with opened(browser, path.as_uri()) as it:
        assert it.page.locator(".mx").count() == 0
        expect(it.page.locator("body")).to_contain_text("65 pods in 65 groups")
        assert it.page.locator("svg[role=img] .ns").count() == 9  # eight, and outside
