"""Manifests to a cluster, whatever kinds they are of: server-side apply, by what the server serves.

A kind's path is looked up at the server, once for each group version; definitions go first and
are waited for, so that what they define is known when it comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from harness.labs.base import LabError
from harness.labs.cluster.api import APPLY, Api, ApiError

Json = dict[str, Any]

MANAGER = "netpol"
RETRY_SECONDS = 60.0
_DEFINED_SECONDS = 60.0
_PAUSE = 0.1
_FIRST = ("CustomResourceDefinition", "Namespace", "PriorityClass", "ServiceAccount")
#: Too many requests, a conflict, a server or webhook that is just starting, no answer.
_PASSING = (0, 409, 429, 500, 502, 503, 504)


class Applier:
    """Applies objects through one API."""

    def __init__(self, api: Api, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self.api = api
        self.retry_seconds = retry_seconds
        self._served: dict[str, dict[str, tuple[str, bool]]] = {}
        self._defined: set[str] = set()  # groups that were just defined: served in a moment

    def apply(self, objects: Sequence[Json]) -> None:
        """Apply all, definitions and namespaces first. Raises LabError with the object's name."""
        ordered = sorted(objects, key=_rank)
        definitions = [one for one in ordered if one["kind"] == "CustomResourceDefinition"]
        for item in definitions:
            self.apply_one(item)
            self._defined.add(item["spec"]["group"])
        self._wait_defined(definitions)
        for item in ordered[len(definitions) :]:
            self.apply_one(item)

    def apply_one(self, item: Json) -> Json:
        """Apply one object, again and again while that may pass. Raises LabError."""
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_delay(self.retry_seconds),
            wait=wait_exponential(0.1, max=3),
            reraise=True,
        )
        try:
            return retrying(self._apply, item)
        except ApiError as error:
            raise LabError(f"{_title(item)} cannot be applied: {error.message}") from None

    def _apply(self, item: Json) -> Json:
        where = self._path(item)
        params = {"fieldManager": MANAGER, "force": "true"}
        return self.api.request("PATCH", where, item, params, content_type=APPLY)

    def _path(self, item: Json) -> str:
        version, kind = item["apiVersion"], item["kind"]
        resource, namespaced = self._resource(version, kind)
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        meta = item["metadata"]
        space = f"/namespaces/{meta.get('namespace') or 'default'}" if namespaced else ""
        return f"{root}{space}/{resource}/{meta['name']}"

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        """Plural of a kind, and whether its objects live in namespaces."""
        known = self._served.get(version, {})
        if kind not in known:
            known = self._served[version] = self._discover(version)
        if kind not in known:
            raise self._not_served(version, f"the cluster serves no {kind} in {version}")
        return known[kind]

    def _not_served(self, version: str, message: str) -> ApiError:
        passing = version.partition("/")[0] in self._defined
        return ApiError(message, 503 if passing else 404)

    def _discover(self, version: str) -> dict[str, tuple[str, bool]]:
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        try:
            answer = self.api.request("GET", root)
        except ApiError as error:
            if error.status != 404:
                raise
            raise self._not_served(version, f"the cluster does not serve {version}") from None
        return {
            one["kind"]: (one["name"], one["namespaced"])
            for one in answer.get("resources") or ()
            if "/" not in one["name"]
        }

    def _wait_defined(self, definitions: Iterable[Json]) -> None:
        """Until the server serves what was defined."""
        deadline = time.monotonic() + _DEFINED_SECONDS
        left = [one["metadata"]["name"] for one in definitions]
        while left:
            data = self.api.get("CustomResourceDefinition", "", left[0])
            conditions = data.get("status", {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                left.pop(0)
                continue
            if time.monotonic() > deadline:
                raise LabError(
                    f"the cluster has not taken CustomResourceDefinition {left[0]} within "
                    f"{_DEFINED_SECONDS:g} s",
                    detail="\n".join(f"  {c['type']}: {c.get('message')}" for c in conditions),
                )
            time.sleep(_PAUSE)


def _rank(item: Json) -> int:
    return _FIRST.index(item["kind"]) if item["kind"] in _FIRST else len(_FIRST)


def _passes(error: BaseException) -> bool:
    return isinstance(error, ApiError) and error.status in _PASSING


def _title(item: Json) -> str:
    meta = item["metadata"]
    space = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{item['kind']} {space}{meta['name']}"
