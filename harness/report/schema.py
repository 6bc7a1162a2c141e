"""The published JSON Schema of records, and what is wrong with a document in its terms."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

# The Rust implementation: a record of 2,000 scenarios is checked in a third of a second, where
# the pure Python one takes most of a minute.
import jsonschema_rs


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of ``record.json``."""
    text = files("harness.report").joinpath("record.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _validator(part: str) -> jsonschema_rs.Validator:
    root = schema()
    if part:
        root = {"$ref": f"#/$defs/{part}", "$defs": root["$defs"]}
    return jsonschema_rs.Draft202012Validator(root)


def complaint(document: Any, part: str = "") -> str:
    """The first thing that is wrong with a record, or with one of its ``$defs``; "" if none."""
    try:
        error = next(_validator(part).iter_errors(document), None)
    except ValueError as wrong:  # what JSON cannot hold: half a surrogate pair, infinity
        return str(wrong)
    if error is None:
        return ""
    where = ".".join(str(p) for p in error.instance_path)
    message = error.message if len(error.message) < 200 else error.message[:200] + "…"
    return f"{where}: {message}" if where else message
