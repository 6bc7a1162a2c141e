"""Manifests -> model objects, and back.

* :func:`load` and :func:`load_text` read what people write: YAML and JSON, several documents, every
  fault with file, line, field and hint, several at once; never an exception for bad input.
* :func:`from_manifest` reads one object as an API server gives it out: fast, and without YAML.
* :func:`to_manifest` and :func:`to_yaml` write.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.model.fields import Fault, Reader, dotted
from harness.model.policy import NetworkPolicy, Source
from harness.model.read_objects import (
    TEMPLATES,
    read_namespace,
    read_node,
    read_pod,
    read_service,
    read_workload,
)
from harness.model.read_policy import read_policy
from harness.model.world import Namespace, Node, Pod, Service, World

if TYPE_CHECKING:
    from os import PathLike

    from harness.model.cluster_policy import ClusterNetworkPolicy


__all__ = [
    "Loaded",
    "ManifestError",
    "Problem",
    "documents",
    "from_manifest",
    "load",
    "load_text",
    "to_manifest",
    "to_yaml",
]


def _read_cluster_policy(
    data: dict[str, Any], reader: Reader, source: Source | None
) -> ClusterNetworkPolicy:
    # Imported on demand: most clusters have none, and controllers that import us start sooner.
    from harness.model.read_cluster_policy import read_cluster_policy

    return read_cluster_policy(data, reader, source)


_READERS: Mapping[str, Callable[[dict[str, Any], Reader, Source | None], Any]] = {
    "Namespace": read_namespace,
    "Pod": read_pod,
    "Service": read_service,
    "Node": read_node,
    "NetworkPolicy": read_policy,
    "ClusterNetworkPolicy": _read_cluster_policy,
}
_VERSIONS: Mapping[str, str] = {
    **dict.fromkeys(("Namespace", "Pod", "Service", "Node", "ReplicationController"), "v1"),
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"), "apps/v1"),
    **dict.fromkeys(("Job", "CronJob"), "batch/v1"),
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
}
# Reads an object that is none of the usual ones: (apiVersion, kind) -> reader.
Readers = Mapping[tuple[str, str], Callable[[dict[str, Any], Reader, Source | None], Any]]
_NO_READERS: Readers = {}
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in what was read. ``line`` is 0 and ``field`` empty where there is none.

    ``severity`` is ``error`` (the object was not taken) or ``warning``.
    """

    file: str
    line: int
    field: str
    message: str
    hint: str = ""
    severity: str = "error"

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.where}: {self.severity}: {what}{hint}"


class ManifestError(ValueError):
    """One object cannot be read. ``faults`` says why, with the path of each field."""

    def __init__(self, what: str, faults: Iterable[Fault]) -> None:
        self.what = what
        self.faults = tuple(faults)
        lines = [f"{fault.field or 'the object'}: {fault.message}" for fault in self.faults]
        super().__init__(f"{what} cannot be read: " + "; ".join(lines))


@dataclass(slots=True)
class Loaded:
    """What was read: objects in the order in which they are written, and what was wrong."""

    objects: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "warning"]

    def world(self) -> World:
        """All objects together; of two with one name the later counts, as with ``apply``.

        Namespaces that are only named get just the label that every namespace has.
        """
        homes: dict[type, tuple[str, Callable[[Any], Any]]] = {
            Namespace: ("namespaces", lambda o: o.name),
            Node: ("nodes", lambda o: o.name),
            Pod: ("pods", lambda o: o.key),
            Service: ("services", lambda o: o.key),
            NetworkPolicy: ("policies", lambda o: o.key),
        }
        found: dict[str, dict[Any, Any]] = {}
        for thing in self.objects:
            home, key = homes.get(type(thing), ("cluster_policies", lambda o: o.name))
            found.setdefault(home, {})[key(thing)] = thing
            namespace = getattr(thing, "namespace", "")
            if namespace:
                found.setdefault("namespaces", {}).setdefault(namespace, Namespace(namespace))
        return World(**found)


# -- one object of an API server -------------------------------------------------------------------


def from_manifest(data: Mapping[str, Any], source: Source | None = None) -> Any:
    """One object as an API server holds it: Namespace, Pod, Service, Node, NetworkPolicy or
    ClusterNetworkPolicy.

    What the server has accepted is taken: fields that this reader does not know are left alone,
    and peers that it does not know are kept as empty ones, which must match nothing. Raises
    :class:`ManifestError`.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _READERS:
        known = ", ".join(_READERS)
        raise ManifestError(
            f"an object of kind {kind!r}", [Fault(("kind",), f"must be one of {known}")]
        )
    reader = Reader(stored=True, file=source.file if source else "")
    assert isinstance(data, dict)
    thing = _READERS[kind](data, reader, source)
    if reader.failed:
        raise ManifestError(
            _title(data), [fault for fault in reader.faults if fault.severity == "error"]
        )
    return thing


def _title(data: Mapping[str, Any]) -> str:
    meta = data.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    name = meta.get("name") or "without a name"
    namespace = meta.get("namespace")
    return f"{data.get('kind')} {namespace}/{name}" if namespace else f"{data.get('kind')} {name}"


# -- texts and files -------------------------------------------------------------------------------


def load_text(
    text: str,
    file: str = "<text>",
    *,
    server_version: tuple[int, int] | None = None,
    also: Readers = _NO_READERS,
) -> Loaded:
    """Read one text. ``server_version`` is (major, minor): whose rules to go by where versions
    differ; None takes what any version takes, with a warning. ``also``: readers of further kinds.
    Never raises for bad input."""
    loaded = Loaded()
    with _no_collection():
        _read_text(_Text(file, loaded, server_version, also), text)
    loaded.problems.sort(key=lambda problem: problem.line)
    return loaded


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing that is read has cycles, and looking for some takes a tenth of a large cluster's
    time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _read_text(one: _Text, text: str) -> None:
    from harness.model import yamltext

    for document in yamltext.documents(text):
        if isinstance(document, yamltext.BadText):
            one.loaded.problems.append(
                Problem(one.file, document.line, "", document.message, document.hint)
            )
            continue
        for path, value in _flattened(document.value):
            one.read(value, yamltext.line_of(document.value, path, document.line))


def _flattened(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The object, or the items of a ``List`` (and of ``PodList``, ``NetworkPolicyList``, …)."""
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        kind = value["kind"]
        items = value.get("items")
        if kind.endswith("List") and isinstance(items, list):
            for i, item in enumerate(items):
                if isinstance(item, dict) and "kind" not in item and kind != "List":
                    item["kind"] = kind.removesuffix("List")
                    item.setdefault("apiVersion", value.get("apiVersion"))
                yield ("items", i), item
            return
    yield (), value


class _Text:
    """Reads the objects of one text."""

    def __init__(
        self,
        file: str,
        loaded: Loaded,
        server_version: tuple[int, int] | None,
        also: Readers,
    ) -> None:
        self.file, self.loaded, self.server_version = file, loaded, server_version
        self.also = also
        self.skipped: set[str] = set()

    def read(self, data: Any, line: int) -> None:
        """One object that begins at ``line``."""
        source = Source(self.file, line)
        reader = Reader(server_version=self.server_version, file=self.file)
        things: list[Any] = []
        if not isinstance(data, dict):
            reader.error(
                (), "is no Kubernetes object: it must be a mapping with apiVersion and kind"
            )
        elif self._known(data, reader):
            version, kind = data["apiVersion"], data["kind"]
            if (version, kind) in self.also:
                things = [self.also[version, kind](data, reader, source)]
            elif kind in TEMPLATES:
                things = [*read_workload(kind, data, reader, source)]
            else:
                things = [_READERS[kind](data, reader, source)]
        self._keep(data, line, reader, things)

    def _keep(self, data: Any, line: int, reader: Reader, things: list[Any]) -> None:
        from harness.model import yamltext

        for fault in reader.faults:
            where = yamltext.line_of(data, fault.path, line)
            self.loaded.problems.append(
                Problem(
                    self.file, where, dotted(fault.path), fault.message, fault.hint, fault.severity
                )
            )
        if not reader.failed:
            self.loaded.objects.extend(things)

    def _known(self, data: dict[str, Any], reader: Reader) -> bool:
        """Whether it is of a kind and version that is read; if not, that is said."""
        for key in ("apiVersion", "kind"):
            if not isinstance(data.get(key), str) or not data[key]:
                hint = "every object says its apiVersion and kind"
                reader.error((key,), "is missing, or no text", hint)
        if reader.failed:
            return False
        version, kind = data["apiVersion"], data["kind"]
        wanted, group = _VERSIONS.get(kind, ""), version.rpartition("/")[0]
        if (version, kind) in self.also or version == wanted:
            return True
        if kind == "NetworkPolicy" and group == "extensions":
            reader.error(
                ("apiVersion",),
                f"{version} NetworkPolicy is the API before Kubernetes 1.7, which is gone",
                "it may have meant something else than the same text in networking.k8s.io/v1: "
                "`netpol convert` says what",
            )
        elif wanted and group == wanted.rpartition("/")[0]:
            message = f"{version} is no version of {kind} that is read here"
            reader.error(("apiVersion",), message, f"write {wanted}")
        elif (name := f"{kind} ({version})") not in self.skipped:
            self.skipped.add(name)
            reader.warn(("kind",), f"{name} is left out: it says nothing that policies go by")
        return False


def load(
    paths: Iterable[str | PathLike[str]],
    *,
    server_version: tuple[int, int] | None = None,
    also: Readers = _NO_READERS,
) -> Loaded:
    """Read files, directories (all ``.yaml``, ``.yml`` and ``.json`` below them) and ``-``
    (standard input). Options as for :func:`load_text`. Never raises for bad input or unreadable
    files: see ``problems``."""
    loaded = Loaded()
    for path in paths:
        for file, content in _contents(str(path)):
            if isinstance(content, Problem):
                loaded.problems.append(content)
                continue
            one = load_text(content, file, server_version=server_version, also=also)
            loaded.objects += one.objects
            loaded.problems += one.problems
    loaded.problems += _doubles(loaded.objects)
    return loaded


def documents(paths: Iterable[str | PathLike[str]]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The objects of the same files as plain data, whatever they are, for a server to judge; and
    what is no Kubernetes object at all."""
    from harness.model import yamltext

    found: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path in paths:
        for file, content in _contents(str(path)):
            if isinstance(content, Problem):
                problems.append(content)
                continue
            for document in yamltext.documents(content):
                if isinstance(document, yamltext.BadText):
                    wrong = Problem(file, document.line, "", document.message, document.hint)
                    problems.append(wrong)
                    continue
                for where, value in _flattened(document.value):
                    if _is_object(value):
                        found.append(value)
                        continue
                    line = yamltext.line_of(document.value, where, document.line)
                    message = (
                        "is no Kubernetes object: apiVersion, kind or name is missing or no text"
                    )
                    problems.append(Problem(file, line, "", message))
    return found, problems


def _is_object(value: Any) -> bool:
    """Whether it says what it is, what it is called and where it lives, each as text."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return False
    meta = value["metadata"]
    own = [value.get("apiVersion"), value.get("kind")]
    told = [*own, meta.get("name"), meta.get("namespace", "default")]
    return all(isinstance(word, str) and word for word in told)


def _contents(path: str) -> Iterator[tuple[str, str | Problem]]:
    import sys
    from pathlib import Path

    if path == "-":
        yield _decoded("<stdin>", sys.stdin.buffer.read)
        return
    where = Path(path)
    if where.is_dir():
        files = sorted(
            file
            for file in where.rglob("*")
            if file.suffix in _SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(where).parts)
        )
        if not files:
            hint = f"manifests end in {', '.join(_SUFFIXES)}"
            yield path, Problem(path, 0, "", "the directory holds no manifests", hint)
        for file in files:
            yield from _contents(str(file))
        return
    try:
        with where.open("rb") as stream:
            yield _decoded(path, stream.read)
    except OSError as error:
        yield path, Problem(path, 0, "", f"cannot be read: {error.strerror or error}")


def _decoded(file: str, read: Callable[[int], bytes]) -> tuple[str, str | Problem]:
    from harness.model import yamltext

    raw = read(yamltext.MAX_BYTES + 1)
    if len(raw) > yamltext.MAX_BYTES:
        mebibytes = yamltext.MAX_BYTES // 1024 // 1024
        return file, Problem(
            file, 0, "", f"is bigger than {mebibytes} MiB", "split it into several files"
        )
    try:
        return file, raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8: the byte 0x{raw[error.start]:02x} is none of its characters"
        return file, Problem(file, line, "", message, "save it as UTF-8")


def _doubles(objects: Iterable[Any]) -> Iterator[Problem]:
    """A warning for each object that is written again; the later one counts."""
    first: dict[tuple[str, str], Source | None] = {}
    for thing in objects:
        key = (type(thing).__name__, str(getattr(thing, "key", thing.name)))
        source = getattr(thing, "source", None)
        if key in first and source is not None:
            earlier = first[key]
            named = f"{key[0]} {thing if hasattr(thing, 'key') else thing.name}"
            yield Problem(
                source.file,
                source.line,
                "metadata.name",
                f"{named} is written twice; this one counts",
                f"the other is at {earlier}" if earlier else "",
                "warning",
            )
        first[key] = source


def to_manifest(thing: object) -> dict[str, Any]:
    """The manifest of an object, as an API server would take it; reading it again gives an equal
    object. Raises TypeError for what is no Kubernetes object (an External)."""
    from harness.model import write

    return write.to_manifest(thing)


def to_yaml(objects: Iterable[Any]) -> str:
    """A YAML text with a document for each object; empty text for none."""
    import yaml

    dumper = _dumper()
    return "---\n".join(
        yaml.dump(to_manifest(thing), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
        for thing in objects
    )


@cache
def _dumper() -> Any:
    """Quotes each text that Kubernetes would take for something else, like ``y`` or ``1e3``;
    PyYAML's own idea of those is another."""
    import yaml

    from harness.model.yamltext import plain

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        style = None if plain(value) == value else "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
