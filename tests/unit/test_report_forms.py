"""Summaries, comparisons and the forms for machines: what they count and what they claim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from harness.report import badge, baseline, changes, compare, conformance, ctrf, junit, summary
from harness.report.document import (
    Document,
    Heading,
    Items,
    Paragraph,
    Sign,
    Table,
    to_html,
    to_markdown,
    to_text,
)
from harness.report.record import CellRecord, RunRecord, ScenarioRecord, StepRecord
from harness.report.summary import Distribution
from harness.report.words import gist
from tests.fixtures.made_records import HOSTILE, hostile, make


def scenario(id_: str, outcome: str, *features: str, **more: Any) -> ScenarioRecord:
    return ScenarioRecord(id=id_, title=id_, outcome=outcome, features=list(features), **more)


def run(*scenarios: ScenarioRecord, **header: Any) -> RunRecord:
    return RunRecord(run={"cni": "x"} | header, scenarios=list(scenarios))


def cell(expected: str, latency: float | None = None, **more: Any) -> CellRecord:
    values: dict[str, Any] = {
        "source": "a/a", "target": "a/b", "port": 80, "protocol": "TCP", "via": "pod-ip",
        "family": 4, "finding": "agrees", "observed": "allowed",
    }  # fmt: skip
    return CellRecord(**(values | more), expected=expected, latency=latency)


# --- summary ---


@pytest.mark.parametrize(
    ("outcomes", "header", "word", "part"),
    [
        ([], {}, "empty", "nothing is known"),
        (["skipped"], {}, "empty", "No scenario was run"),
        (["passed"], {}, "passed", "The one scenario passed"),
        (["passed", "passed", "skipped"], {}, "passed", "All 2 scenarios"),
        (["passed", "xfailed"], {}, "passed", "1 of them failed as they are known to"),
        (["passed", "failed"], {}, "failed", "1 of 2 scenarios: 1 failed"),
        (["passed", "error"], {}, "error", "could not be measured"),
        (["failed", "error"], {}, "failed", "2 of 2"),
        (["passed", "xpassed"], {"exit_status": 1}, "failed", "although known to deviate"),
        (["passed", "xpassed"], {"exit_status": 0}, "passed", "1 known to fail did not"),
        (["passed"], {"interrupted": True}, "error", "interrupted"),
        (["failed"], {"interrupted": True}, "failed", "interrupted"),
    ],
)
def test_verdict(outcomes: list[str], header: dict[str, Any], word: str, part: str) -> None:
    record = run(*(scenario(str(n), o) for n, o in enumerate(outcomes)), **header)
    verdict = summary.verdict(record)
    assert verdict.word == word
    assert part in verdict.sentence


def test_quantiles() -> None:
    ten = Distribution(tuple(float(n) for n in range(1, 11)))
    assert [ten.quantile(q) for q in (0, 0.1, 0.5, 0.9, 0.99, 1)] == [1, 1, 5, 9, 10, 10]
    assert Distribution(()).quantile(0.5) is None


def test_only_cells_that_turned_tell_of_latency() -> None:
    steps = [
        StepRecord("open", cells=[cell("allow", 9.0)]),  # open before: no policy was there
        StepRecord("shut", cells=[cell("deny", 0.1)]),
        StepRecord("still shut", cells=[cell("deny", 9.0)]),
        StepRecord("opened", cells=[cell("allow", 0.2)]),
        StepRecord("left open by the API", cells=[cell("undefined", 9.0)]),
        StepRecord("never came to it", cells=[cell("deny", None)]),
    ]
    found = summary.latencies([scenario("s", "passed", steps=steps)])
    assert found["allow"].values == (0.2,)
    assert found["deny"].values == (0.1,)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (99.96, "1 min 40 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert summary.duration(seconds) == text


def test_the_gist_of_a_message() -> None:
    assert gist("one\n\ntwo") == "one\ntwo"
    assert gist("a\nb\nc", 2) == "a\nb\n\N{HORIZONTAL ELLIPSIS}"
    assert gist("def f():\n>   g()\nE   KeyError: 'x'\n\nfile.py:3: KeyError") == "KeyError: 'x'"
    assert gist("") == ""


# --- documents ---


def everything() -> Document:
    cells = tuple(HOSTILE)
    return Document(
        HOSTILE[0],
        [
            Heading(HOSTILE[1]),
            Paragraph(HOSTILE[2]),
            Items((HOSTILE[3], (Sign(HOSTILE[4], "failed"), HOSTILE[5]))),
            Table(cells, (cells, tuple(Sign(c, "leak") for c in cells))),
        ],
    )


def test_hostile_names_stay_text_in_html() -> None:
    html = f"<div>{to_html(everything())}</div>"
    for bad in ("<script", "<img", "</style"):
        assert bad not in html
    assert "&lt;script&gt;" in html


def test_hostile_names_stay_text_in_markdown_and_on_a_terminal() -> None:
    for text in (to_text(everything()), to_markdown(everything())):
        for bad in ("\u202e", "\u2066", "\u2028", "\x00", "\ud800"):
            assert bad not in text
        text.encode()
    markdown = to_markdown(everything())
    assert "<" not in markdown.replace("\\<", "")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    pipes = {line.replace("\\|", "").count("|") for line in rows}
    assert pipes == {len(HOSTILE) + 1}


# --- comparison ---


def test_names_are_as_short_as_they_can_be() -> None:
    def named(*headers: dict[str, str]) -> tuple[str, ...]:
        return compare.names([RunRecord(run=h) for h in headers])

    assert named({"cni": "calico"}, {"cni": "none"}) == ("calico", "none")
    assert named(
        {"cni": "enforcer", "dataplane": "iptables", "lab": "netns"},
        {"cni": "enforcer", "dataplane": "nftables", "lab": "netns"},
        {"cni": "none", "lab": "kind"},
    ) == ("enforcer (iptables)", "enforcer (nftables)", "none")
    assert named({"cni": "a", "id": "1"}, {"cni": "a", "id": "2"}) == ("a (1)", "a (2)")
    assert named({"cni": "a"}, {"cni": "a"}, {}) == ("a", "a #2", "?")


def test_different_suites_are_told_and_the_rest_is_compared() -> None:
    one = run(scenario("a", "passed"), scenario("b", "failed"), cni="one")
    two = run(scenario("b", "passed"), scenario("c", "passed"), cni="two")
    found = compare.compare([one, two])
    assert found.common == ["b"]
    assert found.problems == (
        "one ran 1 scenario that not all did: a",
        "two ran 1 scenario that not all did: c",
    )
    three = run(scenario("z", "passed"), cni="three")
    assert "no scenario in common" in compare.compare([one, three]).problems[-1]


def test_damage_is_told_in_a_comparison() -> None:
    damaged = replace(run(scenario("a", "passed")), damage=["cut off"])
    assert compare.compare([damaged, run(scenario("a", "passed"))]).problems == ("x: cut off",)


def rows_of(document: Document, heading: str) -> list[tuple[Any, ...]]:
    blocks: Iterator[Any] = iter(document.blocks)
    for block in blocks:
        if isinstance(block, Heading) and block.text == heading:
            return list(next(b for b in blocks if isinstance(b, Table)).rows)
    raise AssertionError(f"no {heading!r}")


def test_features_side_by_side_count_what_was_run() -> None:
    one = run(scenario("a", "passed", "egress"), scenario("b", "skipped", "egress"), cni="one")
    two = run(scenario("a", "failed", "egress"), scenario("b", "passed", "ipv6"), cni="two")
    document = compare.document(compare.compare([one, two]))
    assert rows_of(document, "By feature") == [
        ("egress", Sign("1/1", "passed"), Sign("0/1", "failed")),
        ("ipv6", compare.NOTHING, Sign("1/1", "passed")),
    ]


def test_scenarios_that_come_out_alike_are_only_counted() -> None:
    one = run(scenario("a", "passed"), scenario("b", "failed"), cni="one")
    document = compare.document(compare.compare([one, replace(one, run={"cni": "two"})]))
    assert [row[0] for row in rows_of(document, "By scenario")] == ["b"]


# --- changes ---


def test_every_kind_of_change_is_told_apart() -> None:
    pairs = {
        "well": ("passed", "passed"),
        "broken": ("passed", "failed"),
        "unmeasured": ("passed", "error"),
        "mended": ("failed", "passed"),
        "mended deviation": ("xfailed", "xpassed"),
        "still": ("failed", "failed"),
        "different": ("failed", "error"),
        "now known": ("passed", "xfailed"),
        "skipped": ("passed", "skipped"),
        "failed, now skipped": ("failed", "skipped"),
    }
    before = run(*(scenario(n, was) for n, (was, _) in pairs.items()), scenario("gone", "passed"))
    after = run(*(scenario(n, now) for n, (_, now) in pairs.items()), scenario("new", "passed"))
    found = changes.changes(before, after)

    def ids(ones: list[changes.Pair]) -> list[str]:
        return [one.id for _, one in ones if one]

    assert ids(found.broken) == ["broken", "unmeasured"]
    assert ids(found.mended) == ["mended", "mended deviation"]
    assert ids(found.still) == ["still"]
    assert ids(found.other) == ["different", "now known"]
    assert ids(found.skipped) == ["skipped", "failed, now skipped"]
    assert [s.id for s in found.new] == ["new"]
    assert [s.id for s in found.gone] == ["gone"]
    assert found.worse
    assert found.any


@pytest.mark.parametrize(
    ("was", "now", "worse"),
    [
        ([("a", "passed")], [("a", "passed")], False),
        ([("a", "failed")], [("a", "failed")], False),
        ([("a", "failed")], [("a", "passed")], False),
        ([("a", "passed")], [("a", "failed")], True),
        ([("a", "passed")], [], True),
        ([], [("a", "passed")], False),
        ([], [("a", "failed")], True),
        ([("a", "passed")], [("a", "skipped")], True),
    ],
)
def test_what_is_worse(was: list[Any], now: list[Any], worse: bool) -> None:
    before, after = (run(*(scenario(*one) for one in ones)) for ones in (was, now))
    assert changes.changes(before, after).worse is worse


def test_the_same_run_twice_has_no_changes() -> None:
    found = changes.changes(make("red"), make("red"))
    assert not found.any
    assert not found.latency
    assert not found.surroundings
    assert changes.sentence(found) == "No result changed; 4 still wrong as before."


def test_latency_profile_and_surroundings_that_changed() -> None:
    def made(latency: float, seen: str, kernel: str) -> RunRecord:
        steps = [
            StepRecord(
                "s",
                cells=[
                    cell("deny", latency),
                    cell("undefined", finding="undefined", observed=seen, reason="hairpin"),
                ],
            )
        ]
        return run(scenario("a", "passed", steps=steps), environment={"kernel": kernel})

    found = changes.changes(made(0.02, "allowed", "6.1"), made(0.2, "timeout", "6.2"))
    assert found.latency == [("deny", 0.02, 0.2)]
    assert found.profile == [("hairpin", "allowed", "timeout")]
    assert found.surroundings == [("kernel", "6.1", "6.2")]
    assert not found.worse
    small = changes.changes(made(0.020, "allowed", "6.1"), made(0.024, "allowed", "6.1"))
    assert small.latency == []


# --- baseline ---


def test_a_baseline_excuses_failures_and_tells_what_is_mended() -> None:
    record = run(
        scenario("known", "failed"),
        scenario("marked", "xfailed"),
        scenario("new", "failed"),
        scenario("unmeasured", "error"),
        scenario("mended", "passed"),
        scenario("fine", "passed"),
        scenario("not run", "skipped"),
    )
    ids = ("known", "marked", "unmeasured", "mended", "not run", "never heard of")
    judged = baseline.judge(dict.fromkeys(ids, "why"), record)
    assert [s.id for s in judged.known] == ["known", "marked"]
    assert [s.id for s in judged.new] == ["new", "unmeasured"]
    assert [s.id for s in judged.mended] == ["mended"]
    assert judged.absent == ("not run", "never heard of")


def test_a_baseline_is_written_and_read(tmp_path: Path) -> None:
    record = make("red")
    file = tmp_path / "known.txt"
    file.write_text(baseline.text(record), encoding="utf-8")
    assert list(baseline.read(file)) == [s.id for s in record.scenarios if s.outcome == "failed"]
    assert list(baseline.of(record)) == list(baseline.read(file))
    judged = baseline.judge(baseline.read(file), record)
    assert [s.outcome for s in judged.new] == ["error"]


def test_a_baseline_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(baseline.BaselineError, match="No such file"):
        baseline.read(tmp_path / "no.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(baseline.BaselineError, match="no text file"):
        baseline.read(tmp_path / "binary")


# --- for machines ---


@pytest.mark.parametrize("name", ["green", "red", "kind", "none", "hostile"])
def test_ctrf_counts_what_it_lists(name: str) -> None:
    record = hostile() if name == "hostile" else make(name)
    report = json.loads(json.dumps(ctrf.render(record)))
    assert (report["reportFormat"], report["specVersion"]) == ("CTRF", "0.0.0")
    results = report["results"]
    counts = results["summary"]
    assert counts["tests"] == len(results["tests"]) == len(record.scenarios)
    for status in ("passed", "failed", "skipped", "pending", "other"):
        assert counts[status] == sum(t["status"] == status for t in results["tests"])
    for test in results["tests"]:
        assert isinstance(test["duration"], int)
        assert test["name"]
        if test["rawStatus"] in ("failed", "error"):
            assert test["message"]
    if name == "red":
        assert counts["start"] == 1_795_575_845_000
        assert counts["stop"] - counts["start"] == 46_000
        assert (counts["failed"], counts["other"]) == (4, 1)


def test_the_conformance_yaml_takes_no_deviation_for_success() -> None:
    def standard(record: RunRecord) -> dict[str, Any]:
        report = yaml.safe_load(conformance.render(record, {"organization": "me"}))
        assert report["kind"] == "ConformanceReport"
        assert report["implementation"]["organization"] == "me"
        profile: dict[str, Any] = report["profiles"][0]["standard"]
        return profile

    good = run(scenario("a", "passed"))
    assert standard(good)["result"] == "success"
    assert standard(run(scenario("a", "passed"), scenario("b", "skipped")))["result"] == "partial"
    for outcome in ("failed", "error", "xfailed", "xpassed"):
        found = standard(run(scenario("a", "passed"), scenario("b", outcome)))
        assert found["result"] == "failure"
        assert found["failedTests"] == ["b"]
        assert found["statistics"] == {"Failed": 1, "Passed": 1, "Skipped": 0}


def test_cluster_policies_have_a_profile_of_their_own() -> None:
    record = run(
        scenario("a", "passed", "egress"), scenario("b", "failed", "cluster-network-policy")
    )
    profiles = yaml.safe_load(conformance.render(record))["profiles"]
    assert [(p["name"], p["standard"]["result"]) for p in profiles] == [
        ("NetworkPolicy", "success"),
        ("ClusterNetworkPolicy", "failure"),
    ]
    assert profiles[0]["experimental"]["supportedFeatures"] == ["egress"]


@pytest.mark.parametrize(
    ("record", "word", "colour"),
    [
        (make("green"), "26/26", "#23705d"),
        (make("red"), "failed", "#b8132b"),
        (run(), "empty", "#5d6673"),
        (run(scenario("a", "error")), "error", "#7350ad"),
        (hostile(), "failed", "#b8132b"),
    ],
    ids=["green", "red", "empty", "error", "hostile"],
)
def test_the_badge_is_svg_and_says_how_it_ended(record: RunRecord, word: str, colour: str) -> None:
    svg = badge.render(record)
    root = ElementTree.fromstring(svg)
    assert colour in svg
    assert word in (root.get("aria-label") or "") or word == "26/26"
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_junit_properties() -> None:
    record = make("red")
    found = dict(junit.properties(record.scenarios[0]))
    assert found["outcome"] == "failed"
    assert found["cells-leak"] == "1"
    assert found["rerun"].startswith("pytest ")
    assert 0 < float(found["latency-deny-longest-seconds"]) < 1
    assert ("verdict", "failed") in junit.suite_properties(record)
