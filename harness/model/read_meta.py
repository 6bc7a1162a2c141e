"""``metadata`` of any object: name, namespace, labels, annotations.

Source of the rules: ``k8s.io/apimachinery/pkg/api/validation`` (``ValidateObjectMeta``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.model import syntax
from harness.model.fields import Reader
from harness.model.policy import Labels

DEFAULT_NAMESPACE = "default"
_MAX_ANNOTATIONS = 256 * 1024
_META = frozenset(
    {"name", "generateName", "namespace", "labels", "annotations", "uid", "resourceVersion"}
    | {"selfLink", "generation", "creationTimestamp", "deletionTimestamp", "ownerReferences"}
    | {"deletionGracePeriodSeconds", "finalizers", "managedFields"}
)


@dataclass(frozen=True, slots=True)
class Meta:
    """What matters of ``metadata``. ``namespace`` is empty for cluster-scoped kinds."""

    namespace: str
    name: str
    labels: Labels
    annotations: Labels
    uid: str
    deleted: bool


def read_meta(
    value: object, reader: Reader, name_rule: Callable[[str], str], *, namespaced: bool
) -> Meta:
    """``name_rule`` is the kind's own rule for names (:mod:`harness.model.syntax`)."""
    data = reader.mapping(value, ("metadata",), _META)
    return Meta(
        _namespace(data, reader, namespaced=namespaced),
        _name(data, reader, name_rule),
        reader.labels(data.get("labels"), ("metadata", "labels")),
        _annotations(data, reader),
        reader.string(data.get("uid"), ("metadata", "uid")),
        data.get("deletionTimestamp") is not None,
    )


def _name(data: Mapping[str, Any], reader: Reader, rule: Callable[[str], str]) -> str:
    name = reader.string(data.get("name"), ("metadata", "name"))
    prefix = reader.string(data.get("generateName"), ("metadata", "generateName"))
    if prefix:
        # The server puts five characters after it, so it may end with '-' or '.'.
        reader.check(prefix[:-1] + "x", ("metadata", "generateName"), rule)
    if not name and prefix:
        return f"{prefix}xxxxx"
    if not name and not isinstance(data.get("name"), int | float | bool | list | dict):
        reader.error(("metadata", "name"), "is missing", "every object needs a name")
    if name:
        reader.check(name, ("metadata", "name"), rule)
    return name


def _namespace(data: Mapping[str, Any], reader: Reader, *, namespaced: bool) -> str:
    path = ("metadata", "namespace")
    namespace = reader.string(data.get("namespace"), path)
    if namespaced:
        return reader.check(namespace, path, syntax.dns_label) if namespace else DEFAULT_NAMESPACE
    if namespace:
        reader.error(path, "must not be there: objects of this kind live in no namespace")
    return ""


def _annotations(data: Mapping[str, Any], reader: Reader) -> dict[str, str]:
    path = ("metadata", "annotations")
    annotations = reader.string_map(data.get("annotations"), path)
    if annotations and not reader.stored:
        for key in annotations:
            if wrong := syntax.label_key(key.lower()):
                reader.error((*path, key), f"the key {key[:80]!r} {wrong}")
        size = sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items())
        if size > _MAX_ANNOTATIONS:
            reader.error(path, f"hold {size} bytes; at most {_MAX_ANNOTATIONS} are allowed")
    return annotations
