"""Objects that an engine or a person brings along: applied in an order in which they can be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import APPLY, Api, ApiError, path

Json = dict[str, Any]
CRD = "CustomResourceDefinition"

_SECONDS = 30.0
_POLL = 0.02


def apply_all(api: Api, manifests: Sequence[Json]) -> None:
    """CustomResourceDefinitions first, until they are served; then namespaces; then the rest.

    A definition that is there already stays as it is: what some engines bring beside their own
    may be of another version. Kinds that the harness itself never speaks of are found by asking
    the server. Raises LabError.
    """
    definitions = [one for one in manifests if one.get("kind") == CRD]
    for one in definitions:
        if api.find(CRD, "", one["metadata"]["name"]) is None:
            api.apply(one)
    for one in definitions:
        wait_for_crd(api, one["metadata"]["name"])
    rest = [one for one in manifests if one.get("kind") != CRD]
    for one in sorted(rest, key=lambda one: one.get("kind") != "Namespace"):
        _apply(api, one)


def wait_for_crd(api: Api, name: str) -> None:
    """Until the server serves a resource that was just defined. Raises LabError."""
    deadline = time.monotonic() + _SECONDS
    while True:
        data = api.get(CRD, "", name)
        conditions = data.get("status", {}).get("conditions") or ()
        if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            return
        if time.monotonic() > deadline:
            raise LabError(
                f"the API server has not taken {CRD} {name} within {_SECONDS:g} s",
                detail="\n".join(f"  {c['type']}: {c.get('message')}" for c in conditions),
            )
        time.sleep(_POLL)


def _apply(api: Api, manifest: Json) -> None:
    try:
        path(manifest["kind"])
    except KeyError:
        where = _found(api, manifest)
    else:
        api.apply(manifest)
        return
    params = {"fieldManager": "netpol", "force": "true"}
    api.request("PATCH", where, manifest, params, content_type=APPLY)


def _found(api: Api, manifest: Json) -> str:
    """The path of an object of a kind that the server knows."""
    version, kind, meta = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    group = f"/{'apis' if '/' in version else 'api'}/{version}"
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            known = api.request("GET", group)["resources"]
        except ApiError as error:
            if error.status != 404:
                raise
            known = []
        for one in known:
            if one["kind"] == kind and "/" not in one["name"]:
                space = f"/namespaces/{meta['namespace']}" if one["namespaced"] else ""
                return f"{group}{space}/{one['name']}/{meta['name']}"
        # What was defined a moment ago is in the discovery a moment later.
        if time.monotonic() > deadline:
            raise LabError(
                f"{kind} {meta['name']}: the API server knows no kind {kind} in {version}",
                hint="its CustomResourceDefinition has to be among the engine's crds",
            )
        time.sleep(_POLL)
