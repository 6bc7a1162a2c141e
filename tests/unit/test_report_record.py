"""Records: what is written is what is read, and whatever is damaged is told and left out."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.model.flow import (
    Because,
    Cell,
    CellResult,
    Decision,
    Endpoint,
    Finding,
    Observation,
    Outcome,
    Verdict,
)
from harness.model.policy import Direction, Source
from harness.report import files
from harness.report.record import (
    CellRecord,
    RecordError,
    RecordWriter,
    RunRecord,
    ScenarioRecord,
    StepRecord,
    encode,
    encode_scenario,
    loads,
    read,
)
from harness.report.schema import complaint, schema

RUN: dict[str, Any] = {
    "id": "r1",
    "started": "2026-01-02T03:04:05Z",
    "cni": "enforcer",
    "lab": "netns",
    "seed": 7,
}


def cell(n: int, **changes: Any) -> CellRecord:
    values: dict[str, Any] = {
        "source": f"default/p{n % 3}",
        "target": f"default/p{n // 3}",
        "port": 80,
        "protocol": "TCP",
        "via": "pod-ip",
        "family": 4,
        "expected": "allow",
        "finding": "agrees",
        "observed": "allowed",
        "outcomes": {"allowed": 2},
        "because": 0,
        "latency": 0.0123,
        "backend": f"default/p{n // 3}",
    }
    return CellRecord(**(values | changes))


def scenario(name: str = "demo::deny") -> ScenarioRecord:
    step = StepRecord(
        title="default-deny",
        policies="kind: NetworkPolicy\n",
        pods=[{"name": "default/p0", "labels": {"run": "x"}, "node": "n1", "ips": ["10.0.0.1"]}],
        timeline={"applied": 0.01, "agreed": 0.2},
        reasons=[{"verdict": "allow", "reason": "", "because": []}],
        cells=[cell(n) for n in range(9)],
        evidence=[{"title": "rules", "node": "n1", "command": "iptables-save -c", "text": "a\nb"}],
    )
    step.cells[4] = cell(4, expected="deny", finding="leak", latency=None, note='"<b>" \u2028 \x85')
    empty = StepRecord(title="nothing asked")
    return ScenarioRecord(
        id=name, title="The demo", outcome="failed", features=["deny-all"], steps=[step, empty]
    )


def written(path: Path, *scenarios: ScenarioRecord) -> Path:
    writer = RecordWriter(path)
    writer.header(RUN)
    for one in scenarios:
        writer.scenario(one)
    assert writer.close({"exit_status": 1}, [{"what": "sctp", "why": "no module"}])
    assert writer.problem is None
    return path


@pytest.mark.parametrize("name", ["record.json", "record.jsonl", "."])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    written(tmp_path, scenario("a"), scenario("b"))
    record = read(tmp_path / name)
    assert record.scenarios == [scenario("a"), scenario("b")]
    assert record.run == RUN | {"exit_status": 1}
    assert record.not_tested == [{"what": "sctp", "why": "no module"}]
    assert record.damage == []


def test_a_run_without_scenarios_is_a_record(tmp_path: Path) -> None:
    assert read(written(tmp_path)).scenarios == []


def test_a_worker_may_send_its_scenario_encoded(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    writer.header(RUN)
    writer.scenario(json.loads(json.dumps(encode_scenario(scenario()))))
    writer.close()
    assert read(tmp_path).scenarios == [scenario()]


def test_both_files_meet_the_published_schema(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    written(tmp_path, scenario())
    document = json.loads((tmp_path / "record.json").read_bytes())
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document == encode(read(tmp_path))
    document["scenarios"][0]["steps"][0]["cells"]["source"] = "default/p0"
    assert "scenarios.0.steps.0.cells.source" in complaint(document)


def test_equal_columns_and_defaults_are_stored_once() -> None:
    one = scenario()
    one.steps[0].cells = [cell(n) for n in range(150)]
    cells = encode_scenario(one)["steps"][0]["cells"]
    assert cells["port"] == 80
    assert "note" not in cells
    assert "raw" not in cells
    assert len(json.dumps(cells)) < 150 * 25


def test_a_result_becomes_a_cell_and_its_decision_is_kept_once() -> None:
    a, b = Endpoint.parse("x/a"), Endpoint.parse("x/b")
    why = Because(
        Direction.INGRESS, Verdict.DENY, "no-rule", "x/p allows nothing", ("x/p",), None,
        Source("p.yaml", 3),
    )  # fmt: skip
    decision = Decision(Verdict.DENY, (why,))
    question = Cell(a, b, 80)
    seen = [
        Observation(question, outcome, sent=n, answered=n + 0.5, raw=f"raw {n}")
        for n, outcome in enumerate([Outcome.ALLOWED, Outcome.ALLOWED, Outcome.TIMEOUT])
    ]
    step = StepRecord("s")
    step.add(CellResult(question, decision, Finding.AGREES, tuple(seen), latency=2.0))
    step.add(CellResult(Cell(b, a, 80), decision, Finding.UNKNOWN))
    assert len(step.reasons) == 1
    assert step.reasons[0]["because"][0]["source"] == "p.yaml:3"
    first, second = step.cells
    assert (first.source, first.target, first.expected) == ("x/a", "x/b", "deny")
    assert (first.observed, first.outcomes) == ("timeout", {"allowed": 2, "timeout": 1})
    assert (first.raw, first.latency, first.because) == ("raw 2", 2.0, 0)
    assert (second.observed, second.outcomes, second.finding) == ("", {}, "unknown")


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    writer.header(RUN)
    writer.scenario(scenario("a"))
    record = read(tmp_path)  # never closed
    assert [s.id for s in record.scenarios] == ["a"]
    assert record.run == RUN
    assert "interrupted" in record.damage[0]


@pytest.mark.parametrize("name", ["record.json", "record.jsonl"])
def test_a_truncated_record_gives_all_whole_scenarios(tmp_path: Path, name: str) -> None:
    written(tmp_path, scenario("a"), scenario("b"), scenario("c"))
    path = tmp_path / name
    text = path.read_bytes()
    path.write_bytes(text[: text.index(b'"id":"c"') + 40])
    record = read(path)
    assert [s.id for s in record.scenarios] == ["a", "b"]
    assert len(record.damage) == 2
    assert "1 of 4 lines" in record.damage[0]


def test_one_damaged_scenario_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    written(tmp_path, scenario("a"), scenario("b"), scenario("c"))
    path = tmp_path / "record.json"
    document = json.loads(path.read_bytes())
    document["scenarios"][0]["title"] = 5
    document["scenarios"][1]["steps"][0]["cells"]["source"] = [10**6] * 9
    path.write_text(json.dumps(document))
    record = read(path)
    assert [s.id for s in record.scenarios] == ["c"]
    assert "(a)" in record.damage[0]
    assert "title" in record.damage[0]
    assert "(b)" in record.damage[1]
    assert "step 1" in record.damage[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"<html></html>", "not a record of netpol"),
        (b"\xff\xfe\x00", "not a record of netpol"),
        (b"[" * 100_000, "not a record of netpol"),
        (b"[]", "not a record of netpol"),
        (b"7", "not a record of netpol"),
        (b'{"schema": 1}', "not a record of netpol"),
        (b'{"results": {"tool": {"name": "pytest"}}}', "CTRF"),
        (b'{"schema": "netpol-record/1"}', '"run" is a required property'),
        (b'{"schema": "netpol-record/1", "run": {"cni": 5}, "scenarios": []}', "run.cni"),
        (b'{"schema": "netpol-record/1", "run": [], "scenarios": []}', "run"),
        (b'{"schema": "netpol-record/1", "run": {}, "scenarios": {}}', "scenarios"),
        (b'{"schema": "netpol-record/1", "run": {"seed": NaN}, "scenarios": []}', "not a record"),
        (b'{"schema": "netpol-record/0", "run": {}, "scenarios": []}', "not known"),
        (b'{"schema": "netpol-record/x", "run": {}, "scenarios": []}', "not known"),
        (
            b'{"schema": "netpol-record/9", "run": {"cni": "calico"}, "scenarios": []}',
            "up to netpol-record/1",
        ),
    ],
)
def test_what_is_no_record_gives_one_clear_error(data: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        loads(data, "some/file.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("some/file.json: ")


def test_a_newer_record_still_tells_which_run_it_was() -> None:
    newer = b'{"schema": "netpol-record/9", "run": {"cni": "calico", "lab": "kind"}}'
    with pytest.raises(RecordError, match=r"a run of calico, kind"):
        loads(newer)


def test_an_older_record_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_0(document: dict[str, Any]) -> dict[str, Any]:
        return {"run": document["header"], "scenarios": document["scenarios"]}

    monkeypatch.setitem(files.MIGRATIONS, 0, from_0)
    old = {"schema": "netpol-record/0", "header": RUN, "scenarios": [encode_scenario(scenario())]}
    record = loads(json.dumps(old).encode())
    assert record.run == RUN
    assert record.scenarios == [scenario()]
    assert record.schema == "netpol-record/1"


def test_a_file_that_is_too_large_is_refused_with_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, scenario())
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    for name in ("record.json", "record.jsonl"):
        with pytest.raises(RecordError, match=r"too large.*a run of enforcer"):
            read(tmp_path / name)


def test_a_missing_file_and_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        read(tmp_path / "no")
    with pytest.raises(RecordError, match="neither"):
        read(tmp_path)


class Full:
    """A file on a full disk: it takes a few bytes, then has no room."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.left = inner, 10

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write(self, data: Any) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.inner.write(bytes(data[: self.left]))
        self.left = 0
        return int(taken)


def fill_the_disk(patch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(path: Path, mode: str = "r", **more: Any) -> Any:
        inner = real(path, mode, **more)
        return inner if mode == "rb" else Full(inner)

    patch.setattr(Path, "open", opened)


def test_a_full_disk_costs_lines_but_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordWriter(tmp_path)
    fill_the_disk(monkeypatch)
    writer.header(RUN)
    writer.scenario(scenario("a"))
    assert writer.lost == ["a"]
    assert writer.close() is None
    assert "No space left" in str(writer.problem)
    assert list(tmp_path.iterdir()) == [tmp_path / "record.jsonl"]


def test_a_disk_that_is_full_for_a_while_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordWriter(tmp_path)
    writer.header(RUN)
    writer.scenario(scenario("a"))
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        writer.scenario(scenario("b"))
    writer.scenario(scenario("c"))
    assert writer.close() is not None
    assert "No space left" in str(writer.problem)
    record = read(tmp_path)
    assert [s.id for s in record.scenarios] == ["a", "c"]
    assert record.damage == ["1 scenarios ran but could not be recorded: b"]
    for line in (tmp_path / "record.jsonl").read_bytes().splitlines():
        json.loads(line)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = RecordWriter(tmp_path / "file" / "below")
    writer.header(RUN)
    writer.scenario(scenario())
    assert writer.close() is None
    assert "could not be written" in str(writer.problem)


def test_hostile_text_survives(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\u202e\u2028\x00\x85" + "x" * 253
    one = scenario(hostile)
    one.steps[0].evidence[0]["text"] = hostile
    record = read(written(tmp_path, one))
    assert record.scenarios == [one]


def test_text_that_is_no_unicode_is_replaced(tmp_path: Path) -> None:
    assert read(written(tmp_path, scenario("half \ud800"))).scenarios[0].id == "half ?"
    path = tmp_path / "record.json"
    path.write_bytes(path.read_bytes().replace(b"half ?", rb"half \ud800 \ud83d\ude00"))
    assert read(path).scenarios[0].id == "half ? \N{GRINNING FACE}"


def test_shape_of_an_empty_record() -> None:
    assert complaint(encode(RunRecord(run={}))) == ""
