"""The report in a browser: opened from disk and from a server, read, filtered, clicked, linked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.report.record import RunRecord, ScenarioRecord
from harness.report.scenarioview import anchor
from harness.report.summary import BAD_OUTCOMES, by_outcome, verdict
from harness.report.words import cell_key
from tests.fixtures.chromium import opened
from tests.fixtures.made_records import HOSTILE

ALL = ("green", "red", "none", "kind", "hostile")
DEMO = "suites/test_demo.py::test_demo"


def scenario(record: RunRecord, id_: str) -> ScenarioRecord:
    return next(s for s in record.scenarios if s.id == id_)


def shown(page: Page) -> int:
    return page.locator("details.scenario:not([hidden])").count()


def by_id(page: Page, id_: str) -> object:
    return page.locator(f'details[id="{anchor(id_)}"]')


@pytest.mark.parametrize("name", ALL)
def test_opens_from_disk(
    name: str, browser: Browser, reports: Path, records: dict[str, RunRecord]
) -> None:
    with opened(browser, (reports / f"{name}.html").as_uri()) as it:
        expect(it.page.locator(".verdict strong")).to_have_text(verdict(records[name]).word)
        expect(it.page.locator("html")).to_have_class("js")
        assert shown(it.page) == len(records[name].scenarios)


@pytest.mark.parametrize("name", ["red", "hostile"])
def test_works_under_its_own_strict_policy(name: str, browser: Browser, served: str) -> None:
    with opened(browser, f"{served}/{name}.html") as it:
        page = it.page
        expect(page.locator("html")).to_have_class("js")
        page.locator("details.scenario.passed > summary").first.click()
        page.locator("details.scenario[open] td[data-c]").first.click()
        expect(page.locator("details.scenario[open] .cell dl").first).to_be_visible()
        # The style sheet is in force: without it a matrix would have no squares.
        box = page.locator("details.scenario[open] td[data-c]").first.bounding_box()
        assert box is not None
        assert box["width"] == pytest.approx(24, abs=2)


def test_the_policy_stops_foreign_script(browser: Browser, served: str) -> None:
    with pytest.raises(AssertionError, match="Content Security Policy"):  # noqa: PT012, SIM117
        with opened(browser, f"{served}/green.html") as it:
            it.page.evaluate(
                "() => { const s = document.createElement('script');"
                " s.textContent = 'window.ran = true'; document.body.append(s); }"
            )
            assert it.page.evaluate("window.ran") is None


def test_every_scenario_unpacks_with_all_its_cells(
    browser: Browser, reports: Path, records: dict[str, RunRecord]
) -> None:
    with opened(browser, (reports / "red.html").as_uri()) as it:
        for one in records["red"].scenarios:
            details = it.page.locator(f'details[id="{anchor(one.id)}"]')
            details.evaluate("one => { one.open = true; }")
            expect(details.locator(".step")).to_have_count(len(one.steps))
            cells = sum(len(step.cells) for step in one.steps)
            expect(details.locator("td[data-c]")).to_have_count(cells)
            details.evaluate("one => { one.open = false; }")


def test_filter_by_outcome_feature_namespace_finding_and_words(
    browser: Browser, reports: Path, records: dict[str, RunRecord]
) -> None:
    record = records["red"]
    counts = by_outcome(record.scenarios)
    with opened(browser, (reports / "red.html").as_uri()) as it:
        page = it.page
        page.locator("input[value=failed]").check()
        assert shown(page) == counts["failed"]
        page.locator("input[value=error]").check()
        assert shown(page) == counts["failed"] + counts["error"]
        expect(page.locator("#shown")).to_have_text(f"4 of {len(record.scenarios)} scenarios")
        page.get_by_role("button", name="Clear", exact=True).click()
        expect(page.locator("#shown")).to_have_text(f"{len(record.scenarios)} scenarios")
        page.locator("[name=feature]").select_option("demo")
        assert shown(page) == 1
        assert page.url.endswith("#feature=demo")
        page.locator("[name=feature]").select_option("")
        page.locator("[name=namespace]").select_option("np-demo")
        assert shown(page) == 1
        page.locator("[name=namespace]").select_option("")
        page.locator("[name=finding]").select_option("outage")
        assert shown(page) == 1
        page.locator("[name=finding]").select_option("")
        page.keyboard.press("/")
        page.keyboard.type("own-tenant apart")  # a policy's name and a word of the title
        assert shown(page) == 1
        page.keyboard.type(" nothing")
        expect(page.locator("#none")).to_be_visible()
        page.locator("#none button").click()
        expect(page.locator("#none")).to_be_hidden()


def test_a_filter_can_be_shared(browser: Browser, reports: Path) -> None:
    url = (reports / "red.html").as_uri() + "#feature=ingress&outcome=failed,error&q=port"
    with opened(browser, url) as it:
        assert shown(it.page) == 1
        expect(it.page.locator("[name=feature]")).to_have_value("ingress")
        assert it.page.locator("[name=outcome]:checked").count() == 2
        it.page.locator('#features a[href="#feature=tenants"]').click()
        expect(it.page.locator("#shown")).to_contain_text("1 of ")


def test_a_feature_that_does_not_exist_shows_nothing_it_should_not(
    browser: Browser, reports: Path
) -> None:
    with opened(browser, (reports / "red.html").as_uri() + "#nonsense=%E0%A4%A&scenario=no") as it:
        assert shown(it.page) > 1


def test_a_cell_tells_what_decided_it(browser: Browser, reports: Path) -> None:
    with opened(browser, (reports / "red.html").as_uri()) as it:
        page = it.page
        details = page.locator(f'details[id="{anchor(DEMO)}"]')
        details.locator("> summary").click()
        step = details.locator(".step").nth(2)
        leak = step.locator("td.lk")
        leak.hover()
        tip = page.locator("#tip")
        expect(tip).to_contain_text("leak: expected deny, seen allowed")
        expect(tip).to_contain_text("np-demo/access-nginx and np-demo/default-deny select")
        leak.click()
        panel = step.locator(".cell")
        for text in ("other/access", "np-demo/nginx-1", "allowed 8", "no rule of theirs"):
            expect(panel).to_contain_text(text)
        expect(step.locator(".yaml span.in").first).to_contain_text("apiVersion")
        # One that a rule allows: that rule is marked in the YAML.
        step.locator("td.al").first.click()
        marked = "".join(step.locator(".yaml span.rule").all_text_contents())
        assert marked.split() == [
            "-",
            "from:",
            "-",
            "podSelector:",
            "matchLabels:",
            "run:",
            "access",
        ]


def test_a_matrix_is_used_by_keyboard(browser: Browser, reports: Path) -> None:
    with opened(browser, (reports / "green.html").as_uri()) as it:
        page = it.page
        details = page.locator(f'details[id="{anchor("suites/tenants.yaml::namespaces-apart")}"]')
        details.locator("> summary").focus()
        page.keyboard.press("Enter")
        table = details.locator(".mx table").first
        expect(table).to_have_attribute("role", "grid")
        assert table.locator("td[tabindex='0']").count() == 1
        table.locator("td[tabindex='0']").focus()
        # The first row is x/a; its own cell is empty and skipped: x/b, x/c, then down to y.
        for key in ("End", "ArrowDown", "ArrowLeft", "Home", "ArrowRight"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        panel = details.locator(".cell").first
        expect(panel).to_contain_text("x/b")
        assert "x/c" in panel.inner_text()
        assert page.locator("td[tabindex='0']").count() == details.locator(".mx").count()


def test_a_link_leads_to_one_cell(
    browser: Browser, reports: Path, records: dict[str, RunRecord]
) -> None:
    id_ = "suites/tenants.yaml::namespaces-apart"  # it passed, so it has to be unpacked first
    step = scenario(records["green"], id_).steps[1]
    cell = step.cells[37]
    url = f"{(reports / 'green.html').as_uri()}#{anchor(id_, 2, cell_key(cell))}"
    with opened(browser, url) as it:
        page = it.page
        section = page.locator(f'[id="{anchor(id_, 2)}"]')
        expect(section.locator("td.on")).to_have_attribute("data-c", "37")
        expect(section.locator("td.on")).to_be_in_viewport()
        panel = section.locator(".cell")
        expect(panel).to_contain_text(cell.source)
        expect(panel).to_contain_text(cell.target)
        link = panel.get_by_role("link", name="Link to this cell").get_attribute("href")
        assert link is not None
        assert url.endswith(link)


def test_all_links_of_the_summary_lead_somewhere(browser: Browser, reports: Path) -> None:
    with opened(browser, (reports / "red.html").as_uri()) as it:
        links = it.page.locator(".wrong .who a")
        assert links.count() > 3
        for n in range(links.count()):
            it.page.evaluate("history.replaceState(null, '', location.pathname)")
            links.nth(n).click()
            target = re.sub("&.*", "", links.nth(n).get_attribute("href") or "")
            expect(it.page.locator(f'details[id="{target[1:]}"]')).to_have_attribute("open", "")


def test_all_probes_are_listed_raw(browser: Browser, reports: Path) -> None:
    with opened(browser, (reports / "red.html").as_uri()) as it:
        details = it.page.locator(f'details[id="{anchor(DEMO)}"]')
        details.locator("> summary").click()
        raw = details.locator(".raw").nth(2)
        raw.locator("summary").click()
        expect(raw.locator("tbody tr")).to_have_count(24)
        expect(raw).to_contain_text("wget: download timed out")


@pytest.mark.parametrize("way", ["disk", "server"])
def test_hostile_names_are_shown_and_never_run(
    way: str, browser: Browser, reports: Path, served: str, records: dict[str, RunRecord]
) -> None:
    url = f"{served}/hostile.html" if way == "server" else (reports / "hostile.html").as_uri()
    with opened(browser, url) as it:
        page = it.page
        before = page.title()
        for summary in page.locator("details.scenario > summary").all():
            summary.click()
        for summary in page.locator("details.scenario details > summary:visible").all():
            summary.click()
        for td in page.locator("td[data-c]").all()[::7]:
            td.hover()
            td.click()
        page.locator("#filter select").first.select_option(index=1)
        page.get_by_role("button", name="Clear", exact=True).click()
        assert page.title() == before != "broken"
        assert page.locator("img, iframe, object, embed, form:not(#filter)").count() == 0
        scripts = "script:not([type='application/json']):not([type='application/gzip'])"
        assert page.locator(scripts).count() == 1
        text = page.locator("body").inner_text()
        for payload in HOSTILE[:2]:
            assert payload in text
        record = records["hostile"]
        source = record.scenarios[0].steps[0].cells[0].source
        assert source in page.locator("body").text_content()  # type: ignore[operator]


def test_without_script_everything_wrong_is_told(
    browser: Browser, reports: Path, records: dict[str, RunRecord]
) -> None:
    bad = [s for s in records["red"].scenarios if s.outcome in BAD_OUTCOMES]
    url = (reports / "red.html").as_uri()
    with opened(browser, url, java_script_enabled=False) as it:
        page = it.page
        expect(page.locator("#filter")).to_be_hidden()
        expect(page.locator(".noscript")).to_be_visible()
        expect(page.locator("details.scenario")).to_have_count(len(records["red"].scenarios))
        for one in bad:
            details = page.locator(f'details[id="{anchor(one.id)}"]')
            details.locator("> summary").click()
            cells = sum(len(step.cells) for step in one.steps)
            expect(details.locator("td[data-c]")).to_have_count(cells)
        body = page.locator("body").inner_text()
        assert "no rule of theirs matches this connection" in body
        assert "LabError: node-2 did not answer within 30 s" in body
        # A link from the summary works as a plain anchor.
        page.locator(".wrong .who a").first.click()
        expect(page.locator("li:target")).to_contain_text("np-demo/nginx-1")


@pytest.mark.parametrize("name", ["red", "hostile"])
@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_telephone(
    name: str, width: int, browser: Browser, reports: Path
) -> None:
    url = (reports / f"{name}.html").as_uri()
    with opened(browser, url, viewport={"width": width, "height": 740}) as it:
        for summary in it.page.locator("details.scenario > summary").all()[:6]:
            summary.click()
        assert it.page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark(browser: Browser, served: str) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, f"{served}/green.html", color_scheme="light") as it:
        page = it.page
        light = page.evaluate(background)
        page.locator("#theme").click()
        dark = page.evaluate(background)
        assert dark != light
        page.reload()
        assert page.evaluate(background) == dark
    with opened(browser, f"{served}/green.html", color_scheme="dark") as it:
        assert it.page.evaluate(background) == dark


def test_prints_what_went_wrong(browser: Browser, reports: Path) -> None:
    with opened(browser, (reports / "red.html").as_uri()) as it:
        document = it.page.pdf(format="A4", print_background=True)
        assert document.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", document)) > 5
        for details in it.page.locator("details.scenario.failed, details.scenario.error").all():
            expect(details).to_have_attribute("open", "")
        assert it.page.locator("details.scenario.passed[open]").count() == 0
