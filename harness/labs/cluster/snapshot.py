"""Everything in a cluster that decides who reaches whom, as manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.labs.cluster.api import Api, ApiError, Object, namespaced

#: kind -> apiVersion; all that the model reads of a live cluster.
KINDS = {
    "Namespace": "v1",
    "Node": "v1",
    "Pod": "v1",
    "Service": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
}
#: How kinds of policies are called, whoever's they are.
_POLICIES = ("NetworkPolicy", "ClusterwideNetworkPolicy")
#: Calico's own API shows Kubernetes' policies once more, under such names.
_MIRRORED = ("projectcalico.org/", "knp.")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Policies of a kind that the model does not read. ``number``: how many there are; None where
    they may not be listed."""

    kind: str
    version: str
    number: int | None


def snapshot(api: Api, namespaces: Sequence[str] = ()) -> Iterator[Object]:
    """The objects of all namespaces (or of some, and what lives in none), kind by kind. Clusters
    without ClusterNetworkPolicy have none; a user who may not list nodes sees none. Raises
    ApiError."""
    for kind, version in KINDS.items():
        try:
            for item in _found(api, kind, namespaces):
                yield {"apiVersion": version, "kind": kind, **item}
        except ApiError as error:
            absent = kind == "ClusterNetworkPolicy" and not _served(api, version, error)
            hidden = error.status == 403 and kind == "Node"
            if not (absent or hidden):
                raise


def _found(api: Api, kind: str, namespaces: Sequence[str]) -> Iterator[Object]:
    if kind == "Namespace" and namespaces:
        yield from (api.get(kind, "", name) for name in namespaces)
    else:
        for namespace in (namespaces if namespaced(kind) else ()) or ("",):
            yield from api.every(kind, namespace)


def _served(api: Api, version: str, error: ApiError) -> bool:
    """Whether a server that has refused a kind knows it at all: who may not list it is told so
    even where there is nothing to list."""
    if error.status != 403:
        return error.status != 404
    try:
        api.request("GET", f"/apis/{version}")
    except ApiError as unknown:
        return unknown.status != 404
    return True


def foreign(api: Api, namespaces: Sequence[str] = ()) -> Iterator[Foreign]:
    """Policies of other people's kinds, and of versions that are not read. Raises ApiError."""
    for group in api.request("GET", "/apis")["groups"]:
        name, seen = group["name"], set()
        own = "." not in name or name.endswith(".k8s.io")
        if own and name != "policy.networking.k8s.io":
            continue
        versions = [one["groupVersion"] for one in group["versions"]]
        for version in versions:
            for one in _resources(api, version):
                kind, plural = one["kind"], one["name"]
                read = KINDS.get(kind) in versions  # then all are had, whatever their version
                if kind in seen or read or "/" in plural or not kind.endswith(_POLICIES):
                    continue
                seen.add(kind)
                within = namespaces if one["namespaced"] else ()
                number = _count(api, version, plural, within)
                if number != 0:
                    yield Foreign(kind, version, number)


def _resources(api: Api, version: str) -> list[Object]:
    """Nothing where whoever serves the group is gone, or does not answer."""
    try:
        found: list[Object] = api.request("GET", f"/apis/{version}")["resources"]
    except ApiError as error:
        if error.status in (404, 503):
            return []
        raise
    return found


def _count(api: Api, version: str, plural: str, namespaces: Sequence[str]) -> int | None:
    places = [f"namespaces/{name}/{plural}" for name in namespaces] or [plural]
    mirrored_group, mirrored = _MIRRORED
    try:
        return sum(
            not (
                version.startswith(mirrored_group) and item["metadata"]["name"].startswith(mirrored)
            )
            for place in places
            for item in api.pages(f"/apis/{version}/{place}")
        )
    except ApiError as error:
        if error.status == 403:
            return None
        raise
