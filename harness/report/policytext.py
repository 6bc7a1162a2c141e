"""The policies of a step as lines, and which lines are which policy and which rule of it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml
from markupsafe import Markup, escape

Span = tuple[int, int]  # first and last line, from 1

_LINE = re.compile(r"^(\s*(?:- )*)([A-Za-z][\w./-]*)(:)(.*)$")


@lru_cache(maxsize=2048)
def lines(text: str) -> tuple[Markup, ...]:
    """Each line as HTML: keys set apart from their values."""
    out = []
    for line in text.rstrip("\n").split("\n") if text.strip() else ():
        match = _LINE.match(line)
        if match:
            indent, key, colon, rest = (escape(g) for g in match.groups())
            out.append(Markup("{}<i>{}</i>{}{}").format(indent, key, colon, rest))
        elif line.strip() == "---":
            out.append(Markup("<s>---</s>"))
        else:
            out.append(escape(line))
    return tuple(out)


@lru_cache(maxsize=2048)
def spans(text: str) -> dict[str, dict[str, list[Span]]]:
    """``ns/name`` -> ``{"": [whole policy], "Ingress": [rule, …], "Egress": [rule, …]}``.

    Cluster policies go by their name alone. Text that is no YAML has none.
    """
    found: dict[str, dict[str, list[Span]]] = {}
    try:
        documents = list(yaml.compose_all(text, Loader=_LOADER))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    for document in documents:
        for item in _items(document):
            meta = _child(item, "metadata")
            name, namespace = (_text(_child(meta, key)) for key in ("name", "namespace"))
            spec = _child(item, "spec")
            found[f"{namespace}/{name}" if namespace else name] = {
                "": [_span(item)],
                "Ingress": [_span(rule) for rule in _sequence(_child(spec, "ingress"))],
                "Egress": [_span(rule) for rule in _sequence(_child(spec, "egress"))],
            }
    return found


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _items(document: Any) -> list[Any]:
    listed = _child(document, "items")
    return _sequence(listed) if listed is not None else [document]


def _child(node: Any, key: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value == key:
                return value
    return None


def _text(node: Any) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _sequence(node: Any) -> list[Any]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _span(node: Any) -> Span:
    end = node.end_mark
    # A block ends where the next token begins, which is a line further down.
    last = end.line if end.column == 0 and end.line > node.start_mark.line else end.line + 1
    return node.start_mark.line + 1, max(last, node.start_mark.line + 1)
