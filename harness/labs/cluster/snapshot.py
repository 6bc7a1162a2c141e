"""Everything in a cluster that decides who reaches whom, as manifests."""

from __future__ import annotations

from collections.abc import Iterator

from harness.labs.cluster.api import Api, ApiError, Object

#: kind -> apiVersion; all that the model reads of a live cluster.
KINDS = {
    "Namespace": "v1",
    "Node": "v1",
    "Pod": "v1",
    "Service": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterNetworkPolicy": "policy.networking.k8s.io/v1alpha2",
}
#: Objects in one answer.
PAGE = 500


def snapshot(api: Api) -> Iterator[Object]:
    """The objects of all namespaces, kind by kind. Clusters without ClusterNetworkPolicy have
    none; a user who may not list nodes sees none. Raises ApiError."""
    for kind, version in KINDS.items():
        try:
            for item in _all(api, kind):
                yield {"apiVersion": version, "kind": kind, **item}
        except ApiError as error:
            absent = error.status == 404 and kind == "ClusterNetworkPolicy"
            hidden = error.status == 403 and kind == "Node"
            if not (absent or hidden):
                raise


def _all(api: Api, kind: str) -> Iterator[Object]:
    more: dict[str, str] = {}
    while True:
        page = api.list(kind, limit=PAGE, **more)
        yield from page["items"]
        token = page.get("metadata", {}).get("continue")
        if not token:
            return
        more = {"continue": token}
