"""YAML and JSON texts -> plain data that knows its lines. Bounded in time, depth and memory.

Scalars are read as ``sigs.k8s.io/yaml`` (kubectl, the API server) reads them, which is not quite
as PyYAML does: ``y`` and ``off`` are truth values, ``0o17`` is a number, ``12:30`` and dates are
text. A text is split at its ``---`` lines first, so that a fault in one document hides no other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 100
# Values that aliases may stand for, beyond those written out.
MAX_EXPANSION = 200_000
# JSON above this size is read without lines, for speed.
_PLAIN_JSON_ABOVE = 1024 * 1024


class Mapped(dict[str, Any]):
    """A mapping that knows its own line and its keys' lines (1-based)."""

    __slots__ = ("line", "lines")
    line: int
    lines: dict[str, int]


class Listed(list[Any]):
    """A list that knows its own line and its items' lines (1-based)."""

    __slots__ = ("line", "lines")
    line: int
    lines: list[int]


@dataclass(frozen=True, slots=True)
class Document:
    """One document and its first line."""

    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class BadText:
    """What makes a document unreadable."""

    line: int
    message: str
    hint: str = ""


def documents(text: str) -> Iterator[Document | BadText]:
    """The documents of a text in order; empty ones are left out."""
    if text.lstrip()[:1] in ("{", "[") and (found := _json(text)) is not None:
        yield from found
        return
    for first, chunk in _chunks(text):
        yield from _Builder(first).read(chunk)


def line_of(value: Any, path: tuple[str | int, ...], default: int) -> int:
    """The line of the innermost part of ``path`` that is written down."""
    line = default
    for part in path:
        lines = getattr(value, "lines", None)
        try:
            if lines is not None:
                line = abs(lines[part])
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _json(text: str) -> list[Document | BadText] | None:
    """A big JSON text, or one that YAML would not take (tabs); None: read it as YAML."""
    if len(text) < _PLAIN_JSON_ABOVE and "\t" not in text:
        return None
    doubled: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            doubled.extend(k for k, _ in items if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        return result

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    if doubled:
        return [BadText(1, f"the key {key!r} is written twice in one mapping") for key in doubled]
    return [Document(value, 1)]


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document: kubectl splits at ``---`` lines as well."""
    chunk: list[str] = []
    first = 1
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        starts = line.startswith("---") and (len(line) < 4 or line[3] in " \t\r\n")
        if starts and any(c.strip() and c[0] not in "%#" for c in chunk):
            yield first, "".join(chunk)
            chunk, first = [], number
        chunk.append(line)
    yield first, "".join(chunk)


class _FaultError(Exception):
    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.bad = BadText(line, message, hint)


class _Builder:
    """Builds values out of the parser's events, with a stack of its own instead of recursion."""

    def __init__(self, first_line: int) -> None:
        self.first = first_line
        self.faults: list[BadText] = []

    def read(self, text: str) -> Iterator[Document | BadText]:
        import yaml

        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            events = yaml.parse(text, Loader=loader)
            yield from self._read(yaml, events)
        except _FaultError as fault:
            yield from self.faults
            yield fault.bad
        except yaml.MarkedYAMLError as error:
            yield from self.faults
            mark = error.problem_mark or error.context_mark
            yield self._explained(text, mark.line if mark else 0, error)
        except yaml.reader.ReaderError as error:
            yield from self.faults
            before = text[: error.position] if isinstance(error.position, int) else ""
            character = error.character
            code = ord(character) if isinstance(character, str) else int(character)
            yield BadText(
                self.first + before.count("\n"),
                f"a character that YAML does not allow: U+{code:04X}",
                "take it away, or write it as an escape in double quotes",
            )

    def _explained(self, text: str, index: int, error: Any) -> BadText:
        lines = text.splitlines()
        line = lines[index] if index < len(lines) else ""
        line_number = self.first + index
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return BadText(
                line_number, "a tab is used for indentation", "YAML wants spaces: replace the tab"
            )
        problem = error.problem or "it cannot be read"
        context = f" ({error.context})" if error.context else ""
        hints = {
            "mapping values are not allowed in this context": "put text that holds ': ' in "
            "quotes, or look at the indentation of this line and the one above",
            "did not find expected key": "look at the indentation of this line: fields of one "
            "mapping begin in the same column",
            "did not find expected '-' indicator": "items of one list begin in the same column",
        }
        return BadText(line_number, f"not YAML: {problem}{context}", hints.get(problem, ""))

    def _read(self, yaml: Any, events: Any) -> Iterator[Document | BadText]:
        mapping_start, sequence_start = yaml.MappingStartEvent, yaml.SequenceStartEvent
        scalar, alias = yaml.ScalarEvent, yaml.AliasEvent
        mapping_end, sequence_end = yaml.MappingEndEvent, yaml.SequenceEndEvent
        document_end = yaml.DocumentEndEvent
        first = self.first
        stack: list[_Open] = []
        anchors: dict[str, tuple[Any, int]] = {}
        expansion = 0
        value: Any = None
        line = first
        for event in events:
            kind = type(event)
            if kind is scalar:
                mark = event.start_mark
                line = first + mark.line
                if event.implicit[0]:  # plain, and without a tag
                    value = plain(event.value)
                elif event.tag is None or event.tag == "!":
                    value = event.value
                else:
                    value = _tagged(event.tag, event.value, line)
                size = 1
                if event.anchor:
                    anchors[event.anchor] = (value, 1)
            elif kind is mapping_start or kind is sequence_start:
                line = first + event.start_mark.line
                if len(stack) >= MAX_DEPTH:
                    raise _FaultError(line, f"it is nested more than {MAX_DEPTH} levels deep")
                stack.append(_Open(kind is mapping_start, line, event.anchor))
                if event.anchor:
                    anchors.pop(event.anchor, None)
                continue
            elif kind is alias:
                line = first + event.start_mark.line
                if event.anchor not in anchors:
                    raise _FaultError(
                        line, f"the alias *{event.anchor} stands for nothing before it"
                    )
                value, size = anchors[event.anchor]
                expansion += size
                if expansion > MAX_EXPANSION:
                    raise _FaultError(
                        line,
                        f"its aliases stand for more than {MAX_EXPANSION} values",
                        "write the values out; a few nested aliases grow without bounds",
                    )
            elif kind is mapping_end or kind is sequence_end:
                done = stack.pop()
                value, size, line = done.value, done.size, done.line
                if done.anchor:
                    anchors[done.anchor] = (value, size)
            elif kind is document_end:
                yield from self.faults
                if value is not None and not self.faults:
                    yield Document(value, line)
                self.faults, value = [], None
                anchors.clear()
                continue
            else:
                continue
            if stack:
                self._add(stack[-1], value, size, line)

    def _add(self, into: _Open, value: Any, size: int, line: int) -> None:
        into.size += size
        if not into.is_mapping:
            into.sequence.append(value)
            into.sequence.lines.append(line)
        elif not into.has_key:
            if isinstance(value, dict | list):
                raise _FaultError(line, "a list or a mapping is used as a key")
            into.has_key, into.key, into.key_line = True, _key(value), line
        else:
            into.has_key = False
            mapping = into.mapping
            if into.key == "<<" and isinstance(value, dict | list):
                _merge(mapping, value, line)
                return
            if into.key in mapping.lines and mapping.lines[into.key] > 0:
                self.faults.append(
                    BadText(
                        into.key_line,
                        f"the key {into.key!r} is written twice in one mapping",
                        f"the first is on line {mapping.lines[into.key]}; keep one of them",
                    )
                )
                return
            mapping[into.key] = value
            mapping.lines[into.key] = into.key_line


class _Open:
    """A mapping or a list whose end has not come yet."""

    __slots__ = (
        "anchor",
        "has_key",
        "is_mapping",
        "key",
        "key_line",
        "line",
        "mapping",
        "sequence",
        "size",
    )

    def __init__(self, is_mapping: bool, line: int, anchor: str | None) -> None:
        self.is_mapping, self.line, self.anchor, self.size = is_mapping, line, anchor, 1
        self.has_key, self.key, self.key_line = False, "", line
        if is_mapping:
            self.mapping = Mapped()
            self.mapping.line, self.mapping.lines = line, {}
        else:
            self.sequence = Listed()
            self.sequence.line, self.sequence.lines = line, []

    @property
    def value(self) -> Mapped | Listed:
        return self.mapping if self.is_mapping else self.sequence


def _merge(into: Mapped, value: Any, line: int) -> None:
    """``<<: *base``: the base's fields, where the mapping does not have its own."""
    for base in value if isinstance(value, list) else [value]:
        if not isinstance(base, dict):
            raise _FaultError(line, "'<<' merges mappings only")
        for key, item in base.items():
            if key not in into:
                into[key] = item
                into.lines[key] = -line  # an own field of that name may still come: no duplicate


def _key(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


_TRUE = ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"]
_FALSE = ["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"]
_WORDS: dict[str, Any] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(_TRUE, True),
    **dict.fromkeys(_FALSE, False),
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(
    r"[-+]?(0b[01]+|0o[0-7]+|0x[0-9a-fA-F]+|[0-9]+)",
)


def plain(text: str) -> Any:
    """A scalar without quotes: null, truth value, number or text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "0123456789+-.":
        return text
    return _number(text)


def _number(text: str) -> Any:
    digits = text.replace("_", "")
    if len(digits) > 400:
        return text
    if _INTEGER.fullmatch(digits):
        body = digits.lstrip("+-")
        if body[:2].lower() not in ("0b", "0o", "0x") and len(body) > 1 and body[0] == "0":
            # A leading zero means octal; what is no octal number is a decimal fraction's look.
            number: Any = int(body, 8) if set(body) <= set("01234567") else float(body)
        else:
            number = int(body, 0)
        number = -number if digits[0] == "-" else number
        return _whole(number)
    if _FLOAT.fullmatch(text):
        return _whole(float(text))
    if text in (".inf", ".Inf", ".INF", "+.inf", "-.inf", ".nan", ".NaN", ".NAN"):
        return float(text.replace(".", ""))
    return text


def _whole(number: Any) -> Any:
    """YAML becomes JSON on its way to the server, where 80.0 and 80 are written alike."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e21:
        return int(number)
    return number


def _tagged(tag: str, text: str, line: int) -> Any:
    match tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return text
        case "int" | "bool" | "null" | "float":
            return plain(text)
        case other:
            raise _FaultError(line, f"the YAML tag {other!r} means nothing to Kubernetes")
