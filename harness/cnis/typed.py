"""Values out of a TOML file held against the annotations of the dataclass that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

_WORDS = {str: "a text", int: "a number", float: "a number", bool: "true or false"}


def complaint(kind: type, values: Mapping[str, Any]) -> str:
    """What is wrong with the first value whose type is not the one of its field, or nothing."""
    hints = _hints(kind)
    for key, value in values.items():
        if wanted := _mismatch(value, hints[key]):
            return f"{key} is {wanted}, and here it is {value!r}"
    return ""


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _mismatch(value: Any, hint: Any) -> str:
    """What was wanted, in words, if the value is not it."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return ""
    if origin is UnionType:
        return "" if any(not _mismatch(value, one) for one in inner) else "something else"
    if origin in (tuple, frozenset):
        if not isinstance(value, list | tuple):
            return "a list"
        return next((f"a list of {w}" for one in value if (w := _mismatch(one, inner[0]))), "")
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return "a table"
        wrong = (w for one in value.values() if (w := _mismatch(one, inner[1])))
        return next((f"a table of {w}" for w in wrong), "")
    if hint is float:
        hint = (int, float)
    good = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    return "" if good else _WORDS.get(hint if isinstance(hint, type) else float, "a table")
