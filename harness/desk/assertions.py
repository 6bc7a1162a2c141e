"""What ``netpol check`` reads: assertions about who reaches whom, in YAML.

A file is a list; each item has ``from``, ``to`` and ``expect`` (``allow`` or ``deny``), and may
have ``name``, ``why`` and ``ports`` (numbers, names, ``53/UDP``; without it every port of every
protocol is meant). An end is

* ``pods`` (labels, or a selector with matchLabels and matchExpressions) or ``pod`` (a name), in
  ``namespace`` (a name) or ``namespaces`` (labels or a selector); what is left out is any; or
* ``outside``: an address or a range of addresses outside of the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.desk.inputs import InputError
from harness.model import cidr, yamltext
from harness.model.fields import Path as FieldPath
from harness.model.fields import Reader
from harness.model.flow import Verdict
from harness.model.manifest import Problem
from harness.model.policy import EVERYTHING, LabelSelector, Protocol, Source
from harness.model.selectors import selects
from harness.model.world import Pod, World

_ITEM = frozenset({"name", "why", "from", "to", "ports", "expect"})
_END = frozenset({"pods", "pod", "namespace", "namespaces", "outside"})
_EXAMPLE = "- {from: {namespace: shop}, to: {namespaces: {tenant: b}}, expect: deny}"


@dataclass(frozen=True, slots=True)
class End:
    """Pods (``outside`` is empty), or addresses outside of the cluster."""

    pods: LabelSelector = EVERYTHING
    pod: str = ""
    namespace: str = ""
    namespaces: LabelSelector = EVERYTHING
    outside: str = ""

    def matches(self, world: World, pod: Pod) -> bool:
        return (
            not self.outside
            and self.pod in ("", pod.name)
            and self.namespace in ("", pod.namespace)
            and selects(self.namespaces, world.namespace_labels(pod.namespace))
            and selects(self.pods, pod.labels)
        )


@dataclass(frozen=True, slots=True)
class Port:
    """A port by number, or by the target's name for it."""

    port: int | str
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Assertion:
    """One item. ``ports`` empty: every port of every protocol."""

    name: str
    source: End
    target: End
    expect: Verdict
    ports: tuple[Port, ...]
    why: str
    where: Source


def read_assertions(files: list[str]) -> tuple[list[Assertion], list[Problem]]:
    """All assertions of some files, and what is wrong with them. Raises OSError, InputError."""
    assertions: list[Assertion] = []
    problems: list[Problem] = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: is not UTF-8") from error
        for document in yamltext.documents(text):
            if isinstance(document, yamltext.BadText):
                problems.append(Problem(file, document.line, "", document.message, document.hint))
                continue
            reader = Reader(file=file)
            if not isinstance(document.value, list):
                reader.error((), "must be a list of assertions", f"such as {_EXAMPLE}")
            for i, item in enumerate(document.value if isinstance(document.value, list) else ()):
                line = yamltext.line_of(document.value, (i,), document.line)
                assertion = _assertion(item, reader, (i,), Source(file, line))
                if assertion is not None:
                    assertions.append(assertion)
            for fault in reader.faults:
                where = yamltext.line_of(document.value, fault.path, document.line)
                problems.append(
                    Problem(file, where, fault.field, fault.message, fault.hint, fault.severity)
                )
    return assertions, problems


def _assertion(value: Any, reader: Reader, path: FieldPath, where: Source) -> Assertion | None:
    data = reader.mapping(value, path, _ITEM)
    if not data:
        reader.error(path, "is no assertion", f"such as {_EXAMPLE}")
        return None
    for key in ("from", "to", "expect"):
        if data.get(key) is None:
            reader.error((*path, key), "is missing")
    expect = reader.choice(data.get("expect"), (*path, "expect"), ("allow", "deny"))
    source = _end(data.get("from"), reader, (*path, "from"))
    target = _end(data.get("to"), reader, (*path, "to"))
    if source.outside and target.outside:
        reader.error(path, "both ends are outside of the cluster", "policies say nothing of that")
    here = (*path, "ports")
    ports = tuple(
        port
        for i, item in enumerate(reader.sequence(data.get("ports"), here))
        if (port := _port(item, reader, (*here, i))) is not None
    )
    name = reader.string(data.get("name"), (*path, "name")) or f"assertion {path[-1]}"
    why = reader.string(data.get("why"), (*path, "why"))
    if reader.failed or expect is None:
        return None
    return Assertion(name, source, target, Verdict(expect), ports, why, where)


def _end(value: Any, reader: Reader, path: FieldPath) -> End:
    data = reader.mapping(value, path, _END)
    outside = reader.string(data.get("outside"), (*path, "outside"))
    if outside:
        if len(data) > 1:
            reader.error((*path, "outside"), "stands alone: selectors never match an outside host")
        if cidr.is_address(outside):
            outside += "/128" if ":" in outside else "/32"
        reader.cidr(outside, (*path, "outside"))
    for one, many in (("pod", "pods"), ("namespace", "namespaces")):
        if one in data and many in data:
            reader.error((*path, one), f"cannot stand beside {many}")
    return End(
        _selector(data.get("pods"), reader, (*path, "pods")),
        reader.string(data.get("pod"), (*path, "pod")),
        reader.string(data.get("namespace"), (*path, "namespace")),
        _selector(data.get("namespaces"), reader, (*path, "namespaces")),
        outside,
    )


def _selector(value: Any, reader: Reader, path: FieldPath) -> LabelSelector:
    """Labels, or a whole selector."""
    if isinstance(value, dict) and value.keys() & {"matchLabels", "matchExpressions"}:
        return reader.selector(value, path)
    return LabelSelector(tuple(sorted(reader.labels(value, path).items())))


def _port(value: Any, reader: Reader, path: FieldPath) -> Port | None:
    text, _, protocol = str(value).partition("/")
    number: int | str = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else text
    good = isinstance(value, int | str) and not isinstance(value, bool) and text
    if not good or (isinstance(number, int) and not 1 <= number <= 65535):
        reader.error(path, f"{value!r} is no port", "write 8080, http or 53/UDP")
        return None
    kind = reader.choice(protocol or "TCP", path, Protocol)
    return Port(number, Protocol(kind)) if kind is not None else None
