"""A record's values to JSON values and back.

A run asks tens of thousands of cells that differ in little, so they are stored by column:

* a column is either one JSON scalar (the same for every cell of the step) or an array with one
  entry a cell; a column that is absent has its default everywhere;
* text and objects are not stored in the column but once in the scenario's ``values``; the column
  holds their indices. ``port``, ``family``, ``because`` and ``latency`` are plain numbers.

In the same way the reasons refer to ``values``: a step has many decisions that are combined of
the same few grounds. Everything else is stored as it stands in :mod:`harness.report.shape`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any

from harness.report.shape import SCHEMA, CellRecord, RunRecord, ScenarioRecord, StepRecord

Json = dict[str, Any]

NUMBERS = frozenset({"port", "family", "because", "latency"})
# A tenth of a millisecond is finer than a probe's beat, and keeps records small.
DIGITS = 4

_CELL = {
    f.name: f.default_factory() if f.default_factory is not MISSING else f.default
    for f in fields(CellRecord)
}
_STEP = tuple(f.name for f in fields(StepRecord) if f.name not in ("cells", "_known"))
_SCENARIO = tuple(f.name for f in fields(ScenarioRecord) if f.name != "steps")


class _Pool:
    """Distinct values in the order in which they came, and the index of each."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._texts: dict[str, int] = {}
        self._objects: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        if isinstance(value, str):
            known, key = self._texts, value
        else:
            known, key = self._objects, _key(value)
        found = known.get(key)
        if found is None:
            found = known[key] = len(self.values)
            self.values.append(value)
        return found


def _key(value: Json) -> Any:
    """Something that can be hashed and tells objects apart."""
    key = tuple(value.items())
    try:
        hash(key)
    except TypeError:
        return json.dumps(value, sort_keys=True)
    return key


def encode_scenario(scenario: ScenarioRecord) -> Json:
    """One scenario as JSON values, as it stands on a line of ``record.jsonl``."""
    pool = _Pool()
    out: Json = {name: getattr(scenario, name) for name in _SCENARIO}
    out["seconds"] = round(scenario.seconds, DIGITS)
    steps = []
    for step in scenario.steps:
        one: Json = {name: getattr(step, name) for name in _STEP}
        one["timeline"] = {k: round(v, DIGITS) for k, v in step.timeline.items()}
        one["reasons"] = [
            {**r, "because": [pool.index(b) for b in r.get("because", ())]} for r in step.reasons
        ]
        one["cells"] = _encode_cells(step.cells, pool)
        steps.append(one)
    out["steps"] = steps
    out["values"] = pool.values
    return out


def decode_scenario(data: Json) -> ScenarioRecord:
    """The inverse of :func:`encode_scenario`. Members that are not known are left out.

    Raises ValueError where columns do not fit each other.
    """
    values = data.get("values", [])
    steps = []
    for number, one in enumerate(data.get("steps", ()), start=1):
        step = StepRecord(**{name: one[name] for name in _STEP if name in one})
        try:
            step.reasons = [
                {**r, "because": [_value(values, i) for i in r.get("because", ())]}
                for r in step.reasons
            ]
            step.cells = _decode_cells(one.get("cells", {"count": 0}), values)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"step {number} cannot be decoded: {error}") from None
        steps.append(step)
    known: Json = {name: data[name] for name in _SCENARIO if name in data}
    return ScenarioRecord(**known, steps=steps)


def encode(record: RunRecord) -> Json:
    """A whole record, as it stands in ``record.json``."""
    return {
        "schema": SCHEMA,
        "run": record.run,
        "scenarios": [encode_scenario(s) for s in record.scenarios],
        "not_tested": record.not_tested,
    }


def _encode_cells(cells: list[CellRecord], pool: _Pool) -> Json:
    out: Json = {"count": len(cells)}
    if not cells:
        return out
    for name, default in _CELL.items():
        column = list(map(attrgetter(name), cells))
        if name == "latency":
            column = [None if v is None else round(v, DIGITS) for v in column]
        first = column[0]
        same = all(v == first for v in column)
        if same and default is not MISSING and first == default:
            continue
        if name in NUMBERS:
            out[name] = first if same else column
        else:
            out[name] = pool.index(first) if same else [pool.index(v) for v in column]
    return out


def _decode_cells(data: Json, values: list[Any]) -> list[CellRecord]:
    count = data["count"]
    columns = []
    for name, default in _CELL.items():
        if name not in data:
            if default is MISSING:
                if count:
                    raise ValueError(f"no column {name!r}")
                default = None
            columns.append([default] * count)
            continue
        column = data[name]
        look_up: Callable[[Any], Any] = (
            (lambda v: v) if name in NUMBERS else lambda i: _value(values, i)
        )
        if isinstance(column, list):
            if len(column) != count:
                raise ValueError(f"column {name!r} has {len(column)} entries for {count} cells")
            columns.append([look_up(v) for v in column])
        else:
            columns.append([look_up(column)] * count)
    return [CellRecord(*row) for row in zip(*columns, strict=True)]


def _value(values: list[Any], index: int) -> Any:
    if not 0 <= index < len(values):
        raise ValueError(f"there is no value {index}")
    return values[index]
