"""Intake: change events in, objects into the compiler; what is doubled or late is left out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from harness.enforcer.compiler import Compiler

KINDS = frozenset({"Namespace", "Pod", "Node", "NetworkPolicy", "ClusterNetworkPolicy"})
REMEMBERED = 10_000  # deleted objects whose late events are recognised

Key = tuple[str, str, str]


class Intake:
    """Takes events for one compiler. Objects are Kubernetes manifests (JSON values)."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._versions: dict[Key, tuple[str, int]] = {}
        self._deleted: OrderedDict[tuple[Key, str], None] = OrderedDict()
        self.events = 0

    def take(self, type_: str, manifest: Mapping[str, Any]) -> str:
        """One event; returns what is wrong with the object, or an empty text.

        An object that cannot be read leaves the one of that name that was there before.
        """
        self.events += 1
        kind = manifest.get("kind", "")
        if kind not in KINDS:
            return ""
        metadata = manifest.get("metadata")
        if not isinstance(metadata, Mapping):
            return f"a {kind} without metadata"
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        key, uid = (kind, namespace, name), metadata.get("uid", "")
        if type_ == "DELETED":
            self._forget(key, uid)
            self._compiler.drop(*key, uid=uid)
            return ""
        if self._is_late(key, uid, metadata.get("resourceVersion", "")):
            return ""
        from harness.model.manifest import ManifestError, from_manifest

        try:
            self._compiler.put(from_manifest(manifest))
        except ManifestError as error:
            return f"{kind} {namespace}/{name}: {error}" if namespace else f"{kind} {name}: {error}"
        return ""

    def keys(self) -> set[Key]:
        """The objects that are known to be there."""
        return set(self._versions)

    def _forget(self, key: Key, uid: str) -> None:
        there = self._versions.get(key)
        if there is not None and (not uid or uid == there[0] or not there[0]):
            del self._versions[key]
        if uid:
            self._deleted[key, uid] = None
            if len(self._deleted) > REMEMBERED:
                self._deleted.popitem(last=False)

    def _is_late(self, key: Key, uid: str, version: str) -> bool:
        """Is this an event of an object that is gone, or no newer than what is known of it?

        Resource versions of one object can be compared as numbers (KEP-5504).
        """
        if uid and (key, uid) in self._deleted:
            return True
        number = int(version) if version.isdigit() else 0
        known_uid, known_number = self._versions.get(key, ("", 0))
        if uid == known_uid and number and number <= known_number:
            return True
        self._versions[key] = uid, number
        return False
