"""A record that was damaged anywhere is refused with a clear error, or drawn in every form."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.report import badge, baseline, brief, changes, compare, conformance, ctrf, html
from harness.report.document import to_html, to_markdown, to_text
from harness.report.record import RecordError, RunRecord, encode, loads
from harness.report.redact import redact
from tests.fixtures.made_records import make

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None, exclude_categories=[]), max_size=20)
    | st.sampled_from(["<script>", "1e400", "2026-11-25", "../..", "a/b", "node:", ":", "/"]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)


@cache
def whole() -> dict[str, Any]:
    record = make("red")
    record.scenarios = [record.scenarios[0], record.scenarios[4], *record.scenarios[-3:]]
    data: dict[str, Any] = json.loads(json.dumps(encode(record)))
    return data


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A record in which a few values are replaced, taken away, or put where they do not belong."""
    document = copy.deepcopy(whole())
    for _ in range(draw(st.integers(1, 3))):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            child = node[key]
            if isinstance(child, dict | list) and child and draw(st.integers(0, 5)):
                node = child
                continue
            match draw(st.sampled_from(["replace", "delete", "twice"])):
                case "replace":
                    node[key] = draw(JSON)
                case "delete":
                    del node[key]
                case "twice" if isinstance(node, list):
                    node.append(copy.deepcopy(child))
            break
    data = json.dumps(document).encode()
    return data[: draw(st.integers(len(data) - 200, len(data)))] if draw(st.booleans()) else data


@settings(suppress_health_check=list(HealthCheck))
@given(damaged())
def test_a_damaged_record_is_refused_clearly_or_drawn(data: bytes) -> None:
    try:
        record = loads(data, "record.json")
    except RecordError as error:
        assert str(error).startswith("record.json: ")  # noqa: PT017
        return
    draw_all(record)


def draw_all(record: RunRecord) -> None:
    other = make("green")
    for one in (record, redact(record)):
        html.render(one).encode(errors="replace")
    for document in (
        brief.document(record),
        compare.document(compare.compare([record, other])),
        changes.document(changes.changes(other, record), ("before", "now")),
    ):
        to_text(document).encode()
        to_markdown(document).encode()
        to_html(document)
    json.dumps(ctrf.render(record))
    conformance.render(record)
    badge.render(record)
    baseline.text(record)
