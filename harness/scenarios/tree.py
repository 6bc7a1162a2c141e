"""YAML as a tree that knows its lines, read strictly: what scenario files are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from harness.model.policy import Source

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
T = TypeVar("T")


class ScenarioError(ValueError):
    """A scenario that cannot be run as it stands: where, what, and what to do about it."""

    def __init__(self, source: Source | None, message: str, hint: str = "") -> None:
        where = f"{source}: " if source else ""
        super().__init__(f"{where}{message}" + (f"\n  hint: {hint}" if hint else ""))
        self.source = source
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Tree:
    """One YAML node of a file."""

    file: str
    node: Any
    lines: tuple[str, ...] = ()

    def _sub(self, node: Any) -> Tree:
        return Tree(self.file, node, self.lines)

    @property
    def written(self) -> str:
        """The text of this mapping or list as it stands in the file, at its line and column, so
        that a reader of just this part speaks of the file's own lines."""
        start, end = self.node.start_mark, self.node.end_mark
        lines = list(self.lines[start.line : end.line + 1])
        if len(lines) > end.line - start.line:
            lines[-1] = lines[-1][: end.column]
        lines[0] = " " * start.column + lines[0][start.column :]
        blank = "\n" * int(start.line)
        return blank + "\n".join(lines) + "\n"

    @property
    def source(self) -> Source:
        return Source(self.file, self.node.start_mark.line + 1)

    def wrong(self, message: str, hint: str = "") -> ScenarioError:
        """The error to raise for what stands here."""
        return ScenarioError(self.source, message, hint)

    @property
    def empty(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag.endswith(":null")

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def mapping(
        self, what: str, known: Collection[str] | None = None, required: Collection[str] = ()
    ) -> dict[str, Tree]:
        """The entries in the order in which they are written; with ``known``, no other key."""
        if self.empty:
            if required:
                raise self.wrong(f"{what} is empty; it needs {', '.join(required)}")
            return {}
        if not self.is_mapping:
            raise self.wrong(f"{what} has to be a mapping, KEY: VALUE")
        entries: dict[str, Tree] = {}
        for key_node, value in self.node.value:
            key = self._sub(key_node).text(f"a key of {what}")
            if key in entries:
                raise self._sub(key_node).wrong(f"{what}: the key {key!r} is given twice")
            if known is not None and key not in known:
                near = get_close_matches(key, known, n=1)
                raise self._sub(key_node).wrong(
                    f"{what}: unknown key {key!r}",
                    f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}",
                )
            entries[key] = self._sub(value)
        for key in required:
            if key not in entries:
                raise self.wrong(f"{what} needs the key {key!r}")
        return entries

    def items(self, what: str) -> list[Tree]:
        """The items of a sequence; a single scalar counts as a sequence of one."""
        if self.empty:
            return []
        if isinstance(self.node, yaml.SequenceNode):
            return [self._sub(item) for item in self.node.value]
        if isinstance(self.node, yaml.ScalarNode):
            return [self]
        raise self.wrong(f"{what} has to be a list")

    def text(self, what: str) -> str:
        """A scalar as it is written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.empty:
            raise self.wrong(f"{what} has to be a text")
        return str(self.node.value).strip()

    def optional_text(self, what: str) -> str | None:
        return None if self.empty else self.text(what)

    def number(self, what: str) -> int:
        value = self.plain()
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(f"{what} has to be a whole number, not {self.node.value!r}")
        return value

    def flag(self, what: str) -> bool:
        value = self.plain()
        if not isinstance(value, bool):
            raise self.wrong(f"{what} has to be true or false")
        return value

    def texts(self, what: str) -> dict[str, str]:
        """A mapping of texts, such as labels."""
        return {k: v.text(f"{what}.{k}") for k, v in self.mapping(what).items()}

    def parsed(self, what: str, parse: Callable[[str], T]) -> T:
        """The text put through ``parse``, whose ValueError says what is wrong with it."""
        text = self.text(what)
        try:
            return parse(text)
        except ValueError as wrong:
            raise self.wrong(f"{what}: {wrong}") from None

    def plain(self) -> Any:
        """As plain Python values, read as YAML reads them."""
        loader = _Loader("")
        try:
            return loader.construct_document(self.node)
        except (yaml.YAMLError, ValueError) as wrong:
            raise self.wrong(f"not readable: {getattr(wrong, 'problem', wrong)}") from None
        finally:
            loader.dispose()


def documents(path: Path) -> Iterator[Tree]:
    """The documents of a YAML file, empty ones left out. Raises :class:`ScenarioError`."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as wrong:
        raise ScenarioError(None, f"{name} cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise ScenarioError(None, f"{name} is not UTF-8: {wrong.reason}") from None
    loader = _Loader(text)
    lines = tuple(text.splitlines())
    try:
        while loader.check_node():
            tree = Tree(name, loader.get_node(), lines)
            if not tree.empty:
                yield tree
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        source = Source(name, mark.line + 1) if mark else None
        raise ScenarioError(source, f"not YAML: {wrong.problem or wrong.context}") from None
    except yaml.YAMLError as wrong:
        raise ScenarioError(None, f"{name} is not YAML: {wrong}") from None
    finally:
        loader.dispose()
