"""The run's record: plain data that every report is drawn from, ``netpol-record/1``.

This module is what others import; it only gathers:

* :mod:`harness.report.shape`: the values;
* :mod:`harness.report.codec`: their JSON form;
* :mod:`harness.report.files`: ``record.jsonl`` and ``record.json``.
"""

from harness.report.codec import decode_scenario, encode, encode_scenario
from harness.report.files import RecordError, RecordWriter, loads, read
from harness.report.shape import (
    SCHEMA,
    CellRecord,
    RunRecord,
    ScenarioRecord,
    StepRecord,
    decision_entry,
)

__all__ = [
    "SCHEMA",
    "CellRecord",
    "RecordError",
    "RecordWriter",
    "RunRecord",
    "ScenarioRecord",
    "StepRecord",
    "decision_entry",
    "decode_scenario",
    "encode",
    "encode_scenario",
    "loads",
    "read",
]
