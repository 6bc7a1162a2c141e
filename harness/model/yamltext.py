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
from math import isinf
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

        parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            loader = parser(text)
            try:
                # yaml.parse would look ahead at each event, which takes as long as the event.
                yield from self._read(yaml, iter(loader.get_event, None))
            finally:
                loader.dispose()
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
        """One pass over the events. It is the inner loop of loading large clusters, and written
        for speed: what is open innermost (``here``) has its parts in local variables."""
        scalar, alias = yaml.ScalarEvent, yaml.AliasEvent
        mapping_start, sequence_start = yaml.MappingStartEvent, yaml.SequenceStartEvent
        ends = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
        first = self.first
        stack: list[_Open] = []
        here: Any = None  # a Mapped or Listed, or None outside of all
        lines: Any = None  # its lines
        key: str | None = None  # where a mapping's value is to come
        key_line = first
        anchors: dict[str, tuple[Any, int]] = {}
        seen = 0  # values so far, those that aliases stand for included
        expansion = 0
        value: Any = None
        line = first
        for event in events:
            kind = type(event)
            if kind is scalar:
                seen += 1
                text = event.value
                if event.implicit[0] and event.tag is None:  # plain
                    if text in _WORDS:
                        value = _WORDS[text]
                    else:
                        value = text if text[0] not in _MAY_BE_NUMBER else _number(text)
                else:
                    value = _tagged(event.tag, text, first + event.start_mark.line)
                if event.anchor:
                    anchors[event.anchor] = (value, 1)
                if key is not None:
                    if key in here:
                        self._again(here, key, key_line, value)
                    else:
                        here[key] = value
                        lines[key] = key_line
                    key = None
                    continue
                line = first + event.start_mark.line
                if here is None:
                    continue
                if type(lines) is list:
                    here.append(value)
                    lines.append(line)
                else:
                    key_line = line
                    key = value if type(value) is str else _key(value, line)
                continue
            if kind is mapping_start or kind is sequence_start:
                line = first + event.start_mark.line
                if len(stack) >= MAX_DEPTH:
                    raise _FaultError(line, f"it is nested more than {MAX_DEPTH} levels deep")
                stack.append((here, lines, key, key_line, event.anchor, seen))
                here = Mapped() if kind is mapping_start else Listed()
                lines = here.lines = {} if kind is mapping_start else []
                here.line = line
                key = None
                seen += 1
                if event.anchor:
                    anchors.pop(event.anchor, None)
                continue
            if kind in ends:
                value, line = here, here.line
                here, lines, key, key_line, anchor, before = stack.pop()
                if anchor:
                    anchors[anchor] = (value, seen - before)
            elif kind is alias:
                line = first + event.start_mark.line
                if event.anchor not in anchors:
                    raise _FaultError(
                        line, f"the alias *{event.anchor} stands for nothing before it"
                    )
                value, size = anchors[event.anchor]
                seen += size
                expansion += size
                if expansion > MAX_EXPANSION:
                    raise _FaultError(
                        line,
                        f"its aliases stand for more than {MAX_EXPANSION} values",
                        "write the values out; a few nested aliases grow without bounds",
                    )
            elif kind is yaml.DocumentEndEvent:
                yield from self.faults
                if value is not None and not self.faults:
                    yield Document(value, line)
                self.faults, value = [], None
                anchors.clear()
                continue
            else:
                continue
            if here is None:
                continue
            if type(lines) is list:
                here.append(value)
                lines.append(line)
            elif key is None:
                key, key_line = _key(value, line), line
            else:
                if key == "<<":
                    _merge(here, value, line)
                elif key in here:
                    self._again(here, key, key_line, value)
                else:
                    here[key] = value
                    lines[key] = key_line
                key = None

    def _again(self, here: Mapped, key: str, line: int, value: Any) -> None:
        """A key that is there already: by a merge, which it overrides, or written twice."""
        before = here.lines[key]
        if before < 0:
            here[key] = value
            here.lines[key] = line
            return
        self.faults.append(
            BadText(
                line,
                f"the key {key!r} is written twice in one mapping",
                f"the first is on line {before}; keep one of them",
            )
        )


# What was open around a mapping or list: itself, its lines, the key whose value is to come and
# its line; then the anchor of the inner one, and how many values came before it.
_Open = tuple[Any, Any, str | None, int, str | None, int]


def _merge(into: Mapped, value: Any, line: int) -> None:
    """``<<: *base``: the base's fields, where the mapping does not have its own."""
    for base in value if isinstance(value, list) else [value]:
        if not isinstance(base, dict):
            raise _FaultError(line, "'<<' merges mappings only")
        for key, item in base.items():
            if key not in into:
                into[key] = item
                into.lines[key] = -line  # an own field of that name may still come: no duplicate


def _key(value: Any, line: int) -> str:
    """A key as JSON has it: all keys are text there."""
    if value is None or isinstance(value, dict | list):
        what = "nothing" if value is None else "a list or a mapping"
        raise _FaultError(line, f"{what} is used as a key")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


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
    return text if text[0] not in _MAY_BE_NUMBER else _number(text)


_MAY_BE_NUMBER = frozenset("0123456789+-.")


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
        number = float(text)
        return text if isinf(number) else _whole(number)  # too large to be one
    if text in (".inf", ".Inf", ".INF", "+.inf", "-.inf", ".nan", ".NaN", ".NAN"):
        return float(text.replace(".", ""))
    return text


def _whole(number: Any) -> Any:
    """YAML becomes JSON on its way to the server, where 80.0 and 80 are written alike."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e21:
        return int(number)
    return number


def _tagged(tag: str | None, text: str, line: int) -> Any:
    if tag is None or tag == "!":  # in quotes
        return text
    match tag.removeprefix("tag:yaml.org,2002:"):
        case "null" if plain(text) is not None:
            raise _FaultError(line, f"{text!r} is marked as null, which it is not")
        case "int" | "bool" | "null" | "float":
            return plain(text)
        case "binary":
            raise _FaultError(line, "binary values mean nothing here")
        case _:  # strings, and tags of one's own
            return text
