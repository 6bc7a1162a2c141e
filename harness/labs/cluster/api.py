"""The Kubernetes API as JSON objects, over the connections of the ``kubernetes`` client.

The client knows kubeconfig files, certificates, tokens and proxies; its typed models would only
be in the way between manifests and the values of :mod:`harness.model`.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from harness.labs.base import LabError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
#: Objects in one answer.
PAGE = 500
_CHECKS = 5
_CHECK_SECONDS = 0.1

_RESOURCES: Mapping[str, tuple[str, bool]] = {
    # kind -> (API group version and resource, whether its objects live in namespaces)
    "Namespace": ("api/v1/namespaces", False),
    "Node": ("api/v1/nodes", False),
    "Pod": ("api/v1/pods", True),
    "Service": ("api/v1/services", True),
    "ServiceAccount": ("api/v1/serviceaccounts", True),
    "ConfigMap": ("api/v1/configmaps", True),
    "Secret": ("api/v1/secrets", True),
    "Event": ("api/v1/events", True),
    "Deployment": ("apis/apps/v1/deployments", True),
    "ReplicaSet": ("apis/apps/v1/replicasets", True),
    "DaemonSet": ("apis/apps/v1/daemonsets", True),
    "StatefulSet": ("apis/apps/v1/statefulsets", True),
    "Job": ("apis/batch/v1/jobs", True),
    "CronJob": ("apis/batch/v1/cronjobs", True),
    "EndpointSlice": ("apis/discovery.k8s.io/v1/endpointslices", True),
    "NetworkPolicy": ("apis/networking.k8s.io/v1/networkpolicies", True),
    "ClusterNetworkPolicy": (
        "apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
        False,
    ),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1/clusterroles", False),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1/clusterrolebindings", False),
    "Role": ("apis/rbac.authorization.k8s.io/v1/roles", True),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1/rolebindings", True),
    "CustomResourceDefinition": (
        "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        False,
    ),
}


def namespaced(kind: str) -> bool:
    """Whether objects of a kind live in namespaces. Raises LabError for one not known here."""
    if kind not in _RESOURCES:
        raise LabError(f"{kind} is no kind that is known here: {', '.join(sorted(_RESOURCES))}")
    return _RESOURCES[kind][1]


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """The path of an object, of the collection it is in (no name), or of a kind everywhere."""
    resource, inner = _RESOURCES[kind]
    if inner and namespace:
        version, _, plural = resource.rpartition("/")
        resource = f"{version}/namespaces/{namespace}/{plural}"
    return f"/{resource}/{name}" if name else f"/{resource}"


_STRANGER = (
    "the server does not know this user: the kubeconfig's token or certificate has run out, or is "
    "of another cluster; `kubectl auth whoami` tells the same"
)


class ApiError(LabError):
    """The server refused a request. ``status`` is HTTP's (0: there was no answer at all)."""

    def __init__(self, message: str, status: int, reason: str = "", body: Object | None = None):
        super().__init__(message, hint=_STRANGER if status == 401 else "")
        self.status = status
        self.reason = reason
        self.body = body or {}


class Api:
    """One cluster's API as one user. Any thread may call it.

    ``check`` is called when the server does not answer and may raise a LabError that tells why.
    ``dial`` makes connections where the ordinary way does not lead to the server; streams need
    it (:mod:`harness.labs.cluster.stream`), the requests of ``client`` have been told.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        check: Callable[[], None] | None = None,
        dial: Callable[[], Any] | None = None,
    ) -> None:
        self.client = client
        self.check = check or (lambda: None)
        self._explained = check is not None
        self.dial = dial
        self.requests = 0
        self.tls: ssl.SSLContext | None = None
        """What streams are secured with, once there has been one."""

    @property
    def server(self) -> str:
        """Its URL."""
        return str(self.client.configuration.host)

    def headers(self) -> dict[str, str]:
        """What goes with every request: who asks."""
        headers: dict[str, str] = dict(self.client.default_headers)
        for setting in self.client.configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        return headers

    def close(self) -> None:
        """Close the connections that are kept open."""
        self.client.rest_client.pool_manager.clear()

    # -- requests ----------------------------------------------------------------------------

    def request(
        self,
        method: str,
        where: str,
        body: Object | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        timeout: float = 30.0,
    ) -> Object:
        """One request; its answer as data. Raises ApiError, or what ``check`` raises."""
        response = self._send(method, where, body, params, content_type, timeout)
        try:
            text = response.data
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(method, where, error) from None
        if response.status >= 500:
            self._explain()  # what the server stands on may have ended before it
        return _data(method, where, response.status, text)

    def text(
        self, where: str, params: Mapping[str, Any] | None = None, timeout: float = 30.0
    ) -> str:
        """GET of something that is not JSON (logs, health)."""
        response = self._send("GET", where, None, params, "", timeout)
        try:
            raw: bytes = response.data
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer("GET", where, error) from None
        if response.status >= 400:
            _data("GET", where, response.status, raw)
        return raw.decode(errors="replace")

    def clock(self) -> datetime:
        """What time it is for the server, by which its objects are dated. Raises ApiError."""
        response = self._send("GET", "/version", None, None, "", 30.0)
        response.drain_conn()
        told = response.headers.get("Date")
        return parsedate_to_datetime(told) if told else datetime.now(UTC)

    def get(self, kind: str, namespace: str = "", name: str = "") -> Object:
        return self.request("GET", path(kind, namespace, name))

    def find(self, kind: str, namespace: str = "", name: str = "") -> Object | None:
        """Like :meth:`get`; None if it is not there."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", **params: Any) -> Object:
        """``params`` in the API's spelling: ``labelSelector``, ``limit``, …"""
        return self.request("GET", path(kind, namespace), params=params)

    def every(self, kind: str, namespace: str = "", **params: Any) -> Iterator[Object]:
        """All objects of a kind, however many they are; ``params`` as for :meth:`list`."""
        return self.pages(path(kind, namespace), **params)

    def pages(self, where: str, **params: Any) -> Iterator[Object]:
        """All objects of a collection, asked for page by page."""
        more: dict[str, Any] = {}
        while True:
            page = self.request("GET", where, params={"limit": PAGE, **params, **more})
            yield from page["items"]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            more = {"continue": token}

    def create(self, manifest: Object, **params: Any) -> Object:
        where = path(manifest["kind"], manifest["metadata"].get("namespace", ""))
        return self.request("POST", where, manifest, params)

    def apply(self, manifest: Object, manager: str = "netpol", **params: Any) -> Object:
        """Server-side apply: create it, or set what the manifest says."""
        meta = manifest["metadata"]
        where = path(manifest["kind"], meta.get("namespace", ""), meta["name"])
        params = {"fieldManager": manager, "force": "true", **params}
        return self.request("PATCH", where, manifest, params, content_type=APPLY)

    def merge(self, kind: str, namespace: str, name: str, change: Object) -> Object:
        """JSON merge patch; a value of None takes a field away."""
        return self.request("PATCH", path(kind, namespace, name), change, content_type=MERGE)

    def delete(self, kind: str, namespace: str, name: str, **options: Any) -> Object:
        """``options`` as in DeleteOptions (``gracePeriodSeconds``, ``propagationPolicy``)."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options} if options else None
        return self.request("DELETE", path(kind, namespace, name), body)

    # -- watches -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def watch(
        self, kind: str, version: str, namespace: str = "", seconds: float = 60.0, **params: Any
    ) -> Iterator[Iterator[Object]]:
        """Events since ``version``, until the server ends the watch after about ``seconds``.

        Leaving the block ends it at once. Raises ApiError (status 410: the version is too old).
        """
        query = {
            **params,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
            "allowWatchBookmarks": "true",
        }
        where = path(kind, namespace)
        response = self._send("GET", where, None, query, "", seconds + 30)
        try:
            if response.status >= 400:
                _data("GET", where, response.status, response.data)
            yield self._events(response, where)
        finally:
            # Not drained: the connection cannot be used again.
            response.close()

    def _events(self, response: Any, where: str) -> Iterator[Object]:
        rest = b""
        try:
            for chunk in response.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(
                            f"watch of {where}: {status.get('message')}",
                            status.get("code", 0),
                            status.get("reason", ""),
                            status,
                        )
                    yield event
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer("GET", where, error) from None

    # -- the wire ----------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        where: str,
        body: Object | None,
        params: Mapping[str, Any] | None,
        content_type: str,
        timeout: float,
    ) -> Any:
        url = self.server + where + (f"?{urlencode(params, doseq=True)}" if params else "")
        headers = {**self.headers(), "Accept": "application/json" if content_type else "*/*"}
        if body is not None:
            headers["Content-Type"] = content_type
        self.requests += 1
        try:
            return self.client.rest_client.pool_manager.request(
                method,
                url,
                body=json.dumps(body) if body is not None else None,
                headers=headers,
                timeout=urllib3.Timeout(connect=10.0, read=timeout),
                preload_content=False,
                # A connection that the server has closed meanwhile is no failure.
                retries=urllib3.Retry(
                    total=2, connect=0, status=0, redirect=0, allowed_methods={"GET"}
                ),
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(method, where, error) from None

    def _explain(self) -> None:
        """Raise what ``check`` says: why a server is gone may be known a moment after its
        connections are."""
        for _ in range(_CHECKS if self._explained else 0):
            self.check()
            time.sleep(_CHECK_SECONDS)

    def _no_answer(self, method: str, where: str, error: Exception) -> ApiError:
        self._explain()
        reason = getattr(error, "reason", None) or error
        return ApiError(f"{self.server} does not answer to {method} {where}: {reason}", 0)


def _data(method: str, where: str, status: int, text: bytes) -> Object:
    try:
        data: Object = json.loads(text)
    except ValueError:
        data = {"message": text[:500].decode(errors="replace")}
    if status >= 400:
        message = data.get("message") or f"HTTP status {status}"
        raise ApiError(f"{method} {where}: {message}", status, data.get("reason", ""), data)
    return data
