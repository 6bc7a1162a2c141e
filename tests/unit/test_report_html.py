"""The parts of the HTML report: what stands in them, without a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from harness.report import graph, html, matrix, plots, policytext, timeline
from harness.report.record import CellRecord, RunRecord, ScenarioRecord, StepRecord
from harness.report.scenarioview import ScenarioView
from harness.report.summary import Distribution, turned
from tests.fixtures.made_records import ACCESS, DEFAULT_DENY, hostile, make


def cell(source: str, target: str, finding: str = "agrees", **more: Any) -> CellRecord:
    values: dict[str, Any] = {
        "port": 80, "protocol": "TCP", "via": "pod-ip", "family": 4,
        "expected": "allow", "observed": "allowed",
    }  # fmt: skip
    return CellRecord(source, target, finding=finding, **(values | more))


class Page(HTMLParser):
    """Elements with their attributes, the text, and what hangs open at the end."""

    VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


# --- matrix ---


def test_matrix_has_one_table_for_each_way_of_asking() -> None:
    step = StepRecord("s", cells=[cell("x/a", "x/b"), cell("x/a", "x/b", family=6)])
    tables = matrix.tables(step)
    assert [re.findall("<caption>(.*?)</caption>", t)[0] for t in tables] == [
        "80/TCP by pod IP",
        "80/TCP by pod IP, IPv6",
    ]


def test_every_finding_has_a_word_and_a_class_of_its_own() -> None:
    findings = ("leak", "outage", "unknown", "flaky", "undefined", "known-deviation", "strange")
    step = StepRecord("s", cells=[cell("x/a", f"x/{n}", f) for n, f in enumerate(findings)])
    step.cells += [cell("x/a", "x/y"), cell("x/a", "x/z", expected="deny", observed="timeout")]
    page = Page(matrix.tables(step)[0])
    classes = [str(a["class"]).split()[0] for a in page.all("td") if "data-c" in a]
    assert len(set(classes)) == len(step.cells)
    words = [text for text in page.text if text in (*findings, "allow", "deny", "known deviation")]
    assert {"leak", "outage", "unknown", "flaky", "allow", "deny"} <= set(words)
    assert not page.open


def test_matrix_names_stand_with_their_namespace_and_gaps_stay_empty() -> None:
    step = StepRecord(
        "s",
        pods=[{"name": n} for n in ("y/b", "x/a", "y/a")],
        cells=[cell("x/a", "y/a"), cell("y/a", "x/a"), cell("y/b", "node:n1"), cell("x/a", "y/b")],
    )
    page = Page(matrix.tables(step)[0])
    groups = page.all("th", scope="colgroup")
    assert [g["colspan"] for g in groups] == ["2", "1", "1"]  # y (in the step's order), x, nodes
    assert "nodes" in page.text
    assert len(page.all("td")) == 1 + 3 * 4
    assert sum("data-c" in a for a in page.all("td")) == 4


def test_a_huge_matrix_shows_what_there_is_to_see() -> None:
    names = [f"ns/p{n}" for n in range(60)]
    step = StepRecord("s", cells=[cell(a, b) for a in names for b in names])
    step.cells[777] = cell("ns/p12", "ns/p57", "leak")
    table = matrix.tables(step)[0]
    page = Page(table)
    assert [a["data-c"] for a in page.all("td") if "data-c" in a] == ["777"]
    assert "Part of 3,600 cells" in table


# --- graph ---


def test_graph_tells_what_a_step_opened_and_closed() -> None:
    before = StepRecord("1", cells=[cell("x/a", "y/b"), cell("y/b", "x/a", observed="timeout")])
    after = StepRecord("2", cells=[cell("x/a", "y/b", observed="timeout"), cell("y/b", "x/a")])
    first, second = graph.pictures(before, after)
    assert "Before: 1 of 2 pairs get through" in first
    assert "the step opened 1 and closed 1" in second
    assert Page(second).all("path", **{"class": "new one"})
    assert Page(second).all("path", **{"class": "gone one"})


def test_graph_of_the_first_step_stands_alone_and_marks_what_is_wrong() -> None:
    step = StepRecord("1", cells=[cell("x/a", "y/b", "leak"), cell("y/b", "x/a", "leak")])
    (picture,) = graph.pictures(None, step)
    assert len(Page(picture).all("path", **{"class": "lk"})) == 1  # both ways: one line
    assert "Seen: 2 of 2" in picture


def test_graph_of_many_pods_is_drawn_by_namespace_and_of_too_many_not_at_all() -> None:
    def step(spaces: int) -> StepRecord:
        names = [f"n{n}/p{p}" for n in range(spaces) for p in range(9)]
        return StepRecord("s", cells=[cell(a, b) for a in names for b in names if a != b])

    (picture,) = graph.pictures(None, step(4))
    assert "Seen: 12 of 12 pairs" in picture
    assert graph.pictures(None, step(graph.LIMIT + 1)) == []


def test_services_are_no_part_of_the_graph() -> None:
    assert graph.pictures(None, StepRecord("s", cells=[cell("x/a", "svc:x/s")])) == []


def test_places_are_inside_of_the_picture() -> None:
    names = tuple(f"n{n}/p{p}" for n in range(6) for p in range(4))
    laid = graph.layout(names)
    assert set(laid.places) == set(names)
    for x, y in laid.places.values():
        assert 0 < x < graph.WIDTH
        assert laid.top < y < laid.top + laid.height


# --- timeline, YAML, plots ---


def test_timeline_says_that_cells_never_agreed() -> None:
    step = StepRecord("s", timeline={"applied": 0.01, "first_look": 0.02, "ended": 5.0})
    picture = timeline.timeline(step, [cell("x/a", "x/b", latency=0.5)])
    assert "never agreed in 5.0 s" in picture
    assert Page(picture).all("circle", **{"class": "al"})
    agreed = StepRecord("s", timeline={"applied": 0.01, "agreed": 0.2, "ended": 0.8})
    assert "agreed 200 ms" in timeline.timeline(agreed, [])
    assert "never" not in timeline.timeline(agreed, [])
    for times in ({}, {"applied": 0.1, "first_look": 0.2}):  # it did not get far enough
        assert timeline.timeline(StepRecord("s", timeline=times), []) == ""


def test_lines_of_each_policy_and_rule() -> None:
    text = DEFAULT_DENY + "---\n" + ACCESS
    lines = text.splitlines()
    spans = policytext.spans(text)
    assert list(spans) == ["np-demo/default-deny", "np-demo/access-nginx"]
    first, last = spans["np-demo/default-deny"][""][0]
    assert (lines[first - 1], lines[last - 1]) == (lines[0], "  podSelector:")
    (rule,) = spans["np-demo/access-nginx"]["Ingress"]
    assert "from:" in lines[rule[0] - 1]
    assert "run: access" in lines[rule[1] - 1]
    assert len(policytext.lines(text)) == len(lines)


@pytest.mark.parametrize(
    "text", ["", "{", "a: [", "- 1\n- 2", "null", "metadata: 7", "\t", "\ud800", "\x00", "[" * 9999]
)
def test_policies_that_are_no_manifest_have_no_lines_of_their_own(text: str) -> None:
    assert all(name == "" for name in policytext.spans(text))
    policytext.lines(text)


def test_plots_hold_no_style_and_no_more_points_than_can_be_seen() -> None:
    many = Distribution(tuple(n / 10_000 for n in range(1, 20_001)))
    one = Distribution((0.02,))
    svg = plots.ecdf({"al": many, "dn": one, "c1": Distribution(())}, 'a "label"')
    assert "style" not in svg
    assert "&quot;label&quot;" in svg
    assert len(svg) < 30_000
    assert Page(svg).all("g", **{"class": "curve al"})
    assert not Page(svg).all("g", **{"class": "curve c1"})
    assert plots.ecdf({"al": Distribution(())}, "") == ""
    zero = plots.ecdf({"al": Distribution((0.0, 0.0))}, "")
    assert "nan" not in zero.lower()


# --- the page ---


@pytest.mark.parametrize("name", ["green", "red", "none", "kind", "hostile"])
def test_the_page_is_whole_and_loads_nothing(name: str) -> None:
    record = hostile() if name == "hostile" else make(name)
    text = html.render(record)
    page = Page(text)
    assert not page.open
    for tag in ("img", "iframe", "object", "embed", "link", "base"):
        assert not page.all(tag), tag
    for _, attributes in page.elements:
        assert not [a for a in attributes if a.startswith("on") or a in ("src", "style", "srcset")]
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    scripts = page.all("script")
    assert len([s for s in scripts if "type" not in s]) == 1
    assert len(page.all("details")) >= len(record.scenarios)


def test_the_policy_names_exactly_the_script_and_the_style_of_the_page() -> None:
    text = html.render(make("green"))
    policy = html.content_security_policy()
    assert Page(text).all("meta", **{"http-equiv": "Content-Security-Policy", "content": policy})
    for tag in ("style", "script"):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")


def test_what_is_packed_is_what_would_stand_there() -> None:
    record = make("green")
    text = html.render(record)
    packed = []
    for data in re.findall(r'<script type="application/gzip"[^>]*>(.*?)</script>', text):
        packed += json.loads(gzip.decompress(base64.b64decode(data)))
    assert len(packed) == len(record.scenarios)
    assert any("np-demo/nginx-1" in one for one in packed)
    for one in packed:
        assert not Page(one).open


def test_wrong_scenarios_are_packed_as_well_where_they_would_fill_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = make("none")
    whole = html.render(record).count("<td data-c=")
    monkeypatch.setattr(html, "INLINE", 200_000)
    some = html.render(record).count("<td data-c=")
    assert 0 < some < whole


def test_the_same_record_gives_the_same_page() -> None:
    assert html.render(make("red")) == html.render(make("red"))


@pytest.mark.parametrize(
    "record",
    [
        RunRecord(run={}),
        RunRecord(run={}, damage=["cut off <b>"]),
        RunRecord(run={"cni": None, "started": "yesterday", "versions": None}),
        RunRecord(
            run={"cni": "x"},
            scenarios=[
                ScenarioRecord("a", "a", outcome="failed", steps=[StepRecord("", checks=[{}])]),
                ScenarioRecord("a", "a", outcome="what?"),
                ScenarioRecord(
                    "b",
                    "b",
                    outcome="error",
                    steps=[
                        StepRecord(
                            "s",
                            cells=[cell("", "", "leak", because=99), cell("node:n", "external:e")],
                            evidence=[{}],
                            pods=[{"name": "x"}],
                            timeline={"ended": -1.0},
                        )
                    ],
                ),
            ],
        ),
    ],
    ids=["empty", "damaged", "odd header", "odd scenarios"],
)
def test_odd_records_are_drawn_all_the_same(record: RunRecord) -> None:
    page = Page(html.render(record))
    assert not page.open
    for text in record.damage:
        assert text in page.text


def test_latency_dots_are_those_of_cells_that_turned() -> None:
    scenario = make("green").scenarios[0]
    count = sum(1 for step, _ in turned(scenario) if step is scenario.steps[1])
    dots = sum(a.get("r") == "2.5" for a in Page(_body(scenario)).all("circle"))
    assert dots >= count > 0


def _body(scenario: ScenarioRecord) -> str:
    view = ScenarioView(scenario)
    return html._environment().get_template("scenario.html.j2").render(s=view)
