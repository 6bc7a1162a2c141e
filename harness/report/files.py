"""Records on disk: ``record.jsonl`` while the run goes on, ``record.json`` at its end.

``record.jsonl``: the first line is ``{"schema", "run"}``, then one line ``{"scenario"}`` for each
scenario as it ends, and at last ``{"end": {"run", "not_tested"}}``, whose ``run`` supersedes the
first. ``record.json`` is one JSON document that also has one scenario a line, so that what is
left of a truncated one can be read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.report.codec import Json, decode_scenario, encode_scenario
from harness.report.schema import complaint
from harness.report.shape import SCHEMA, RunRecord, ScenarioRecord
from harness.report.words import clean

FAMILY = "netpol-record/"
VERSION = int(SCHEMA.removeprefix(FAMILY))
# What a record of this size holds is beyond any run; more likely it is something else.
MAX_BYTES = 512 * 1024 * 1024
# From version n to n + 1, on the decoded JSON document (that is how ``record.json`` stands).
MIGRATIONS: dict[int, Callable[[Json], Json]] = {}


class RecordError(Exception):
    """A record that cannot be read or written. ``known`` is the run's header as far as legible."""

    def __init__(self, path: Path, message: str, *, hint: str = "", known: Json | None = None):
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint
        self.known = known or {}

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"
        if self.known:
            told = [str(self.known[k]) for k in ("cni", "lab", "started") if self.known.get(k)]
            text += f" (a run of {clean(', '.join(told))})" if told else ""
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class RecordWriter:
    """Writes ``record.jsonl`` at ``path`` (or into the directory ``path``), line by line.

    What cannot be written (a full disk) never raises, for a run's verdict is worth more than its
    record: ``problem`` then holds the one message to show, and ``lost`` the ids that are missing.
    A later line is tried again, and the file never holds half a line.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        self.path = path if path.suffix == ".jsonl" else path / "record.jsonl"
        self.problem: RecordError | None = None
        self.lost: list[str] = []
        self._run: Json = {}
        self._size = 0

    def header(self, run: Json) -> None:
        """Begin the file, replacing one that is there. To be called first."""
        self._run = dict(run)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
        except OSError as error:
            self._failed(error)
        self._append({"schema": SCHEMA, "run": run})

    def scenario(self, scenario: ScenarioRecord | Json) -> None:
        """Append one scenario; a dict is one that a worker has encoded already."""
        data = encode_scenario(scenario) if isinstance(scenario, ScenarioRecord) else scenario
        if not self._append({"scenario": data}):
            self.lost.append(str(data.get("id", "?")))

    def close(
        self, run: Json | None = None, not_tested: list[dict[str, str]] | None = None
    ) -> Path | None:
        """End the file and write ``record.json`` beside it; ``run`` updates the header's fields.

        Returns the path of ``record.json``, or None where that could not be written.
        """
        end: Json = {"run": {**self._run, **(run or {})}, "not_tested": not_tested or []}
        if self.lost:
            end["run"]["lost"] = self.lost
        self._append({"end": end})
        whole = self.path.with_suffix(".json")
        part = whole.with_suffix(".json.part")
        try:
            with part.open("wb") as out:
                for chunk in self._document(end):
                    out.write(chunk)
            part.replace(whole)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._failed(error)
            return None
        return whole

    def _document(self, end: Json) -> Iterator[bytes]:
        yield b'{"schema":%s,"run":%s,"scenarios":[' % (_line(SCHEMA), _line(end["run"]))
        separator = b"\n"
        head, tail = b'{"scenario":', b"}\n"
        with self.path.open("rb") as lines:
            for line in lines:
                if line.startswith(head) and line.endswith(tail):
                    yield separator + line[len(head) : -len(tail)]
                    separator = b",\n"
        yield b'\n],"not_tested":%s}\n' % _line(end["not_tested"])

    def _append(self, data: Json) -> bool:
        line = _line(data) + b"\n"
        try:
            # Opened anew each time: no descriptor is held that a forked lab process would inherit.
            with self.path.open("r+b", buffering=0) as out:
                out.seek(self._size)
                rest = memoryview(line)
                try:
                    while rest:
                        rest = rest[out.write(rest) :]
                except OSError:
                    with contextlib.suppress(OSError):
                        out.truncate(self._size)
                    raise
        except OSError as error:
            self._failed(error)
            return False
        self._size += len(line)
        return True

    def _failed(self, error: OSError) -> None:
        if self.problem is None:
            self.problem = RecordError(
                self.path,
                f"the record could not be written: {error.strerror or error}",
                hint="make room there or choose another directory; the verdicts stand, "
                "but the report will lack what could not be written",
            )


def read(path: Path | str) -> RunRecord:
    """Read ``record.json``, ``record.jsonl``, or the one in the directory ``path``.

    What is cut off or damaged is left out and told in ``RunRecord.damage``. Raises RecordError
    where not even the run's header can be made out, or where it is no record of ours.
    """
    path = Path(path)
    try:
        if path.is_dir():
            path = next(
                (p for n in ("record.json", "record.jsonl") if (p := path / n).exists()), path
            )
            if path.is_dir():
                raise RecordError(
                    path,
                    "this directory holds neither record.json nor record.jsonl",
                    hint="name the directory of one run, for instance reports/latest",
                )
        size = path.stat().st_size
        if size > MAX_BYTES:
            with path.open("rb") as lines:
                known = _header_of(lines.readline(1 << 20))
            raise RecordError(
                path,
                f"{size / 2**20:,.0f} MiB is too large for a record (the limit is "
                f"{MAX_BYTES / 2**20:,.0f} MiB)",
                hint="it was probably not written by netpol, or several runs were joined in it",
                known=known,
            )
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(path, f"cannot be read: {error.strerror or error}") from None
    return loads(data, path)


def loads(data: bytes, path: Path | str = "<record>") -> RunRecord:
    """:func:`read`, of bytes."""
    path = Path(path)
    text = data.decode("utf-8", errors="replace")
    if not text.strip():
        raise RecordError(
            path, "the file is empty", hint="the run ended before it could record anything"
        )
    document, damage = _document(text, path)
    document = _migrated(document, path)
    scenarios = document.get("scenarios", [])
    if wrong := complaint(
        document | {"scenarios": [] if isinstance(scenarios, list) else scenarios}
    ):
        raise RecordError(path, wrong, known=_header(document))
    record = RunRecord(
        run=document["run"], not_tested=document.get("not_tested", []), damage=damage
    )
    for number, one in enumerate(scenarios, start=1):
        name = one.get("id") if isinstance(one, dict) else None
        try:
            if wrong := complaint(one, "scenario"):
                raise ValueError(wrong)
            record.scenarios.append(decode_scenario(one))
        except ValueError as error:
            record.damage.append(f"scenario {number} ({name or 'no id'}) is left out: {error}")
    if lost := document["run"].get("lost"):
        record.damage.append(
            f"{len(lost)} scenarios ran but could not be recorded: {', '.join(map(str, lost))}"
        )
    return record


def _document(text: str, path: Path) -> tuple[Json, list[str]]:
    """The JSON document, put together again from the lines where it is not whole."""
    try:
        whole = _json(text)
    except (ValueError, RecursionError):
        whole = None
    if whole is not None and (not isinstance(whole, dict) or "scenarios" in whole):
        return _ours(whole, path), []
    if isinstance(whole, dict):
        _ours(whole, path)
    return _from_lines(text.split("\n"), path)


def _from_lines(lines: list[str], path: Path) -> tuple[Json, list[str]]:
    document: Json = {**_ours(_header_of(lines[0].encode(), whole=True), path), "scenarios": []}
    lost, ended = 0, False
    for line in lines[1:]:
        line = line.strip().removesuffix(",")
        try:
            data = _json(line)
        except (ValueError, RecursionError):
            if line.startswith('],"not_tested":'):
                with contextlib.suppress(ValueError):
                    document["not_tested"] = _json(line[len('],"not_tested":') : -1])
                    ended = True
                    continue
            lost += bool(line)
            continue
        if not isinstance(data, dict):
            lost += 1
        elif isinstance(data.get("end"), dict):
            document |= data["end"]
            ended = True
        else:
            document["scenarios"].append(data.get("scenario", data))
    damage = []
    if lost:
        damage.append(f"{lost} of {len(lines)} lines cannot be read and are left out")
    if not ended:
        damage.append("the record has no end: the run was interrupted, or the file was cut off")
    return document, damage


def _ours(document: Any, path: Path) -> Json:
    """The document, if it is a record; RecordError that says what it is, if it is not."""
    if isinstance(document, dict):
        schema = document.get("schema")
        if isinstance(schema, str) and schema.startswith(FAMILY):
            return document
        if "results" in document and "tool" in document.get("results", {}):
            raise RecordError(
                path,
                "this is a CTRF report, which keeps too little to draw ours from",
                hint="name the record.json that lies beside it",
            )
    raise RecordError(
        path,
        f'this is not a record of netpol (no "schema": "{FAMILY}…" in it)',
        hint="name a record.json or record.jsonl, or the directory of a run under reports/",
    )


def _migrated(document: Json, path: Path) -> Json:
    tag = str(document["schema"]).removeprefix(FAMILY)
    version = int(tag) if tag.isdigit() else 0
    if version > VERSION:
        raise RecordError(
            path,
            f"written with the schema {document['schema']}; this netpol reads up to {SCHEMA}",
            hint="update netpol, or use the version that wrote it",
            known=_header(document),
        )
    while version < VERSION:
        if version not in MIGRATIONS:
            raise RecordError(
                path,
                f"the schema {document['schema']} is not known to this netpol ({SCHEMA})",
                known=_header(document),
            )
        document = MIGRATIONS[version](document)
        version += 1
    return {**document, "schema": SCHEMA}


def _header(document: Json) -> Json:
    run = document.get("run")
    return run if isinstance(run, dict) else {}


def _header_of(line: bytes, *, whole: bool = False) -> Json:
    """The run's header out of a first line, which in ``record.json`` ends in the middle."""
    text = line.decode("utf-8", errors="replace").rstrip()
    for candidate in (text, text.removesuffix(',"scenarios":[') + "}", text + "]}"):
        with contextlib.suppress(ValueError, RecursionError):
            data = _json(candidate)
            if isinstance(data, dict):
                return data if whole else _header(data)
    return {}


def _json(text: str) -> Any:
    """JSON proper: without the NaN, Infinity and halves of surrogate pairs that Python takes."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    data = json.loads(text, parse_constant=refuse)
    return json.loads(_line(data)) if re.search(r"\\u[dD]", text) else data


def _line(data: Any) -> bytes:
    # One line each: JSON escapes line ends, and U+2028 is no line end to the reader's bytes.
    # What is no Unicode (half a surrogate pair out of some tool's output) becomes a question mark.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
