"""Reading a manifest's fields: types as the API server wants them, faults collected, never raised.

A *path* is a tuple of keys and indices from the object's root, like ``("spec", "ingress", 0)``.
Where the data came out of a YAML text, mappings and lists know their lines (see
:mod:`harness.model.yamltext`); plain dicts and lists do as well, without lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.model import syntax
from harness.model.policy import LabelSelector, Operator, Requirement, Source

Path = tuple[str | int, ...]
# From this Kubernetes version on, ranges with host bits or leading zeros are refused.
STRICT_CIDRS_SINCE = (1, 36)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. ``severity`` is ``error`` or ``warning``."""

    path: Path
    message: str
    hint: str = ""
    severity: str = "error"

    @property
    def field(self) -> str:
        """``spec.ingress[0].ports``."""
        return dotted(self.path)


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int) or "." in part or "/" in part:
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@dataclass(slots=True)
class Reader:
    """Collects the faults of one object.

    ``stored``: the object comes from an API server, which has accepted it: unknown fields and
    incomplete parts are then those of another version, and are left alone as a Go client would.
    ``server_version``: whose rules to go by; None is lenient, with warnings.
    """

    stored: bool = False
    server_version: tuple[int, int] | None = None
    file: str = ""
    faults: list[Fault] = field(default_factory=list)

    def error(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path, message, hint))

    def warn(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path, message, hint, "warning"))

    @property
    def failed(self) -> bool:
        return any(fault.severity == "error" for fault in self.faults)

    def source(self, value: object, fallback: Source | None = None) -> Source | None:
        line = getattr(value, "line", None)
        return Source(self.file, line) if line is not None else fallback

    # -- types ---------------------------------------------------------------------------------

    def mapping(
        self, value: object, path: Path, known: frozenset[str] | None = None
    ) -> Mapping[str, Any]:
        """A mapping; nothing (null) is an empty one. ``known``: the fields that exist."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.error(path, f"must be a mapping of fields, not {kind_of(value)}")
            return {}
        if known is not None and not self.stored and not value.keys() <= known:
            for key in value:
                if key not in known:
                    self.error((*path, key), f"unknown field {str(key)!r}", _nearest(key, known))
        return value

    def sequence(self, value: object, path: Path) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.error(
                path,
                f"must be a list, not {kind_of(value)}",
                "begin each item with '- '" if isinstance(value, dict) else "",
            )
            return []
        return value

    def string(self, value: object, path: Path) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            hint = ""
            if isinstance(value, bool):
                hint = "put it in quotes: YAML takes y, n, on, off, yes and no for truth values"
            elif isinstance(value, int | float):
                hint = "put it in quotes"
            self.error(path, f"must be text, not {kind_of(value)}", hint)
            return ""
        return value

    def integer(self, value: object, path: Path) -> int | None:
        """A 32-bit integer."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            hint = "write it without quotes" if isinstance(value, str) and value.isdigit() else ""
            self.error(path, f"must be a whole number, not {kind_of(value)}", hint)
            return None
        if not -(2**31) <= value < 2**31:
            self.error(path, "is a number beyond 32 bits")
            return None
        return value

    def boolean(self, value: object, path: Path) -> bool:
        if value is None or isinstance(value, bool):
            return bool(value)
        self.error(path, f"must be true or false, not {kind_of(value)}")
        return False

    def strings(self, value: object, path: Path) -> tuple[str, ...]:
        return tuple(
            self.string(item, (*path, i)) for i, item in enumerate(self.sequence(value, path))
        )

    def string_map(self, value: object, path: Path) -> dict[str, str]:
        mapping = self.mapping(value, path)
        return {str(key): self.string(item, (*path, key)) for key, item in mapping.items()}

    # -- values --------------------------------------------------------------------------------

    def check(self, value: str, path: Path, rule: Callable[[str], str]) -> str:
        """Hold the value against one of :mod:`harness.model.syntax`'s rules."""
        if wrong := rule(value):
            self.error(path, f"{_shortened(value)!r} {wrong}")
        return value

    def choice(self, value: object, path: Path, choices: Iterable[str]) -> str | None:
        """One of some words, exactly as they are spelled; None if it is absent or none of them."""
        text = self.string(value, path)
        choices = list(choices)
        if text in choices:
            return text
        if value is not None and (text or isinstance(value, str)):
            near = next((c for c in choices if c.lower() == text.lower()), "")
            self.error(
                path,
                f"{_shortened(text)!r} is none of {', '.join(choices)}",
                f"write {near}: upper and lower case count" if near else "",
            )
        return None

    def labels(self, value: object, path: Path) -> dict[str, str]:
        labels = self.string_map(value, path)
        if not self.stored:
            for key, text in labels.items():
                self.check(key, (*path, key), syntax.label_key)
                self.check(text, (*path, key), syntax.label_value)
        return labels

    def selector(self, value: object, path: Path) -> LabelSelector:
        """A label selector; null is the empty one, which asks for nothing."""
        data = self.mapping(value, path, _SELECTOR)
        labels = self.labels(data.get("matchLabels"), (*path, "matchLabels"))
        here = (*path, "matchExpressions")
        expressions = tuple(
            self._requirement(item, (*here, i))
            for i, item in enumerate(self.sequence(data.get("matchExpressions"), here))
        )
        return LabelSelector(
            tuple(sorted(labels.items())), tuple(e for e in expressions if e is not None)
        )

    def _requirement(self, value: object, path: Path) -> Requirement | None:
        data = self.mapping(value, path, _REQUIREMENT)
        key = self.string(data.get("key"), (*path, "key"))
        self.check(key, (*path, "key"), syntax.label_key)
        values = self.strings(data.get("values"), (*path, "values"))
        for i, text in enumerate(values):
            self.check(text, (*path, "values", i), syntax.label_value)
        if data.get("operator") is None:
            self.error((*path, "operator"), f"is missing; it is one of {', '.join(Operator)}")
            return None
        word = self.choice(data["operator"], (*path, "operator"), Operator)
        if word is None:
            return None
        operator = Operator(word)
        needs_values = operator in (Operator.IN, Operator.NOT_IN)
        if needs_values and not values:
            self.error((*path, "values"), f"must hold at least one value for {operator}")
        if not needs_values and values:
            instead = Operator.IN if operator is Operator.EXISTS else Operator.NOT_IN
            self.error(
                (*path, "values"),
                f"must be empty for {operator}",
                f"take the values away, or write {instead}",
            )
        return Requirement(key, operator, values)

    def cidr(self, value: object, path: Path) -> str:
        """An address range; "" where it is none."""
        from harness.model import cidr

        text = self.string(value, path)
        if not text:
            if value is None or value == "":
                self.error(path, "is missing: an ipBlock needs a range like 10.1.0.0/16")
            return ""
        try:
            network = cidr.network(text)
        except ValueError:
            single = cidr.is_address(text)
            self.error(
                path,
                f"{_shortened(text)!r} is no range of addresses like 10.1.0.0/16 or 2001:db8::/64",
                f"a single address is written {text}/{128 if ':' in text else 32}"
                if single
                else "",
            )
            return ""
        if (wrong := cidr.lax(text)) and not self.stored:
            note = f"{text!r} {wrong}; it means {network}"
            if self.server_version is not None and self.server_version >= STRICT_CIDRS_SINCE:
                self.error(path, note, f"write {network}: Kubernetes refuses it from 1.36 on")
            else:
                self.warn(path, note, f"write {network}: Kubernetes 1.36 and later refuse it")
        return text


_SELECTOR = frozenset({"matchLabels", "matchExpressions"})
_REQUIREMENT = frozenset({"key", "operator", "values"})


def kind_of(value: object) -> str:
    """What a value is, for somebody who wrote YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {_shortened(str(value))}"
        case str():
            return f"the text {_shortened(value)!r}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return type(value).__name__


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _nearest(word: object, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(word).lower(), [k.lower() for k in known], n=1, cutoff=0.75)
    spelled = next((k for k in known if near and k.lower() == near[0]), "")
    return f"do you mean {spelled}?" if spelled else f"known here: {', '.join(sorted(known))}"
