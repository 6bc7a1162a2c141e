"""Changes from a Kubernetes API server: list and watch, one thread for each kind.

A list comes in pages; a watch goes on from where the list, or the watch before it, ended, and asks
for bookmarks so that this stays recent. A version that the server has forgotten (410) means a new
list, and what is not on it any more is told as deleted. Whatever fails is tried again with
back-off; until then the rules of before stay in force.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import tenacity
import urllib3
from kubernetes import client, config
from kubernetes.utils.keepalive import tcp_keepalive_socket_options

from harness.enforcer.controller import Event

PAGE = 500  # objects of one answer
WATCH = 300  # seconds until the server ends a watch
LATE = 30  # seconds more, until it is taken for dead
# A server that went without a word (its machine lost power) would leave a watch waiting that long.
# Seconds, but for the count, of the kernel's own asking whether it is there:
KEEPALIVE = {"idle": 10, "interval": 5, "count": 3}
WAIT, WAIT_MOST = 0.2, 15.0  # seconds between attempts
ABSENT = 30.0  # seconds between looks for a kind that the server does not know

Log = Callable[[str, Mapping[str, Any]], None]
Put = Callable[[str, Mapping[str, Any]], None]


class Resource(NamedTuple):
    """A kind and where it is; the server need not know one that is ``optional``."""

    kind: str
    api_version: str
    path: str
    optional: bool = False

    def whole(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """An object with its kind, which items of a list do not tell."""
        return {**item, "kind": self.kind, "apiVersion": self.api_version}


RESOURCES = (
    Resource("Namespace", "v1", "/api/v1/namespaces"),
    Resource("Node", "v1", "/api/v1/nodes"),
    Resource("Pod", "v1", "/api/v1/pods"),
    Resource("NetworkPolicy", "networking.k8s.io/v1", "/apis/networking.k8s.io/v1/networkpolicies"),
    Resource(
        "ClusterNetworkPolicy",
        "policy.networking.k8s.io/v1alpha2",
        "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
        optional=True,
    ),
)


class ApiError(Exception):
    """The server did not give what was asked for; ``status`` is 0 where it did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """GET requests with the identity of a kubeconfig file, or of the pod that this runs in."""

    def __init__(self, kubeconfig: str = "") -> None:
        configuration = client.Configuration()
        try:
            if kubeconfig:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    kubeconfig, client_configuration=configuration
                )
            else:
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
        except (config.ConfigException, OSError) as error:
            hint = "" if kubeconfig else "; outside of a cluster give --kubeconfig FILE"
            raise ApiError(f"no way to the API server: {error}{hint}") from error
        configuration.socket_options = tcp_keepalive_socket_options(**KEEPALIVE)
        self._client = client.ApiClient(configuration)

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """An answer as data. Raises ApiError."""
        response = self._send(path, parameters, timeout=60)
        try:
            return _checked(path, response.status, response.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ApiError(f"{path}: {error}") from error

    def everything(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """All objects of a kind, page by page, and the version to watch from. Raises ApiError."""
        items: list[dict[str, Any]] = []
        parameters: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.get(path, **parameters)
            items += page.get("items") or ()
            more = page["metadata"].get("continue")
            if not more:
                return items, page["metadata"]["resourceVersion"]
            parameters["continue"] = more

    def watch(self, path: str, version: str) -> Iterator[Any]:
        """Events since a version. A connection that breaks ends it like one that ends. Raises
        ApiError."""
        response = self._send(
            path,
            {
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": WATCH,
            },
            timeout=WATCH + LATE,
        )
        try:
            if response.status >= 400:
                _checked(path, response.status, response.data)
            rest = b""
            for chunk in response.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    yield json.loads(line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return
        finally:
            response.close()

    def _send(self, path: str, parameters: Mapping[str, Any], timeout: float) -> Any:
        settings = self._client.configuration.auth_settings().values()
        who = {one["key"]: one["value"] for one in settings if one["in"] == "header"}
        url = f"{self._client.configuration.host}{path}?{urlencode(parameters)}"
        try:
            return self._client.rest_client.pool_manager.request(
                "GET",
                url,
                headers={**self._client.default_headers, **who, "Accept": "application/json"},
                timeout=urllib3.Timeout(connect=10, read=timeout),
                preload_content=False,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{path}: no answer: {error}") from error


def _checked(path: str, status: int, body: bytes) -> dict[str, Any]:
    data: dict[str, Any] = {}
    try:
        data = json.loads(body) if body else data
    except ValueError:  # a path that is not served is answered in plain text
        if status < 400:
            raise
    if status >= 400:
        raise ApiError(f"{path}: {data.get('message') or f'HTTP status {status}'}", status)
    return data


class Follower:
    """Follows one kind for ever. ``put`` gets each change, ``listed`` hears of each list."""

    def __init__(
        self, api: Api, resource: Resource, put: Put, listed: Callable[[Resource], None], log: Log
    ) -> None:
        self.relists = 0
        self._api = api
        self._resource = resource
        self._put = put
        self._listed = listed
        self._log = log
        self._ended = threading.Event()
        self._version = ""
        # what the server was said to hold: key -> metadata, for the news that it is gone
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}

    def run(self) -> None:
        """Until :meth:`end`."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ApiError),
            wait=tenacity.wait_exponential(multiplier=WAIT, max=WAIT_MOST)
            + tenacity.wait_random(0, WAIT),
            stop=lambda _: self._ended.is_set(),
            sleep=self._pause,
            before_sleep=self._tell,
        )
        while not self._ended.is_set():
            try:
                retrying(self._once)
            except tenacity.RetryError:
                return

    def end(self) -> None:
        """Let :meth:`run` return, from a watch with its next event."""
        self._ended.set()

    def _pause(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._log("api", {"kind": self._resource.kind, "error": str(error)})

    def _once(self) -> None:
        """A list if need be, and one watch."""
        try:
            if not self._version:
                self._list()
            begun = time.monotonic()
            self._watch()
            if time.monotonic() < begun + WAIT:  # a server that ends them at once is not well
                self._pause(WAIT)
        except ApiError as error:
            if error.status == 404 and self._resource.optional:
                self._replace({})
                self._listed(self._resource)
                self._pause(ABSENT)
                return
            if error.status == 410:
                self._log("expired", {"kind": self._resource.kind, "version": self._version})
                self._version = ""
                self._pause(WAIT)
                return
            raise

    def _list(self) -> None:
        items, version = self._api.everything(self._resource.path)
        self._replace({_key(item): item for item in items})
        self._version = version
        self.relists += 1
        self._listed(self._resource)

    def _replace(self, found: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        for key in self._known.keys() - found.keys():
            self._change("DELETED", {"metadata": self._known[key]})
        for item in found.values():
            self._change("ADDED", item)

    def _watch(self) -> None:
        for event in self._api.watch(self._resource.path, self._version):
            item = event["object"]
            if event["type"] == "ERROR":
                raise ApiError(f"{self._resource.path}: {item.get('message')}", item.get("code", 0))
            if event["type"] != "BOOKMARK":
                self._change(event["type"], item)
            self._version = item["metadata"]["resourceVersion"]
            if self._ended.is_set():
                return

    def _change(self, type_: str, item: Mapping[str, Any]) -> None:
        whole = self._resource.whole(item)
        if type_ == "DELETED":
            self._known.pop(_key(item), None)
        else:
            metadata = item["metadata"]
            self._known[_key(item)] = {
                name: metadata[name] for name in ("namespace", "name", "uid") if name in metadata
            }
        self._put(type_, whole)


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def objects(api: Api) -> Iterator[dict[str, Any]]:
    """All objects that matter, as they are now. Raises ApiError."""
    for resource in RESOURCES:
        try:
            items, _ = api.everything(resource.path)
        except ApiError as error:
            if error.status == 404 and resource.optional:
                continue
            raise
        yield from map(resource.whole, items)


class KubeSource:
    """A source of changes: all kinds together, ``SYNCED`` once each was listed. ``failed`` tells
    why it ended, if it did so by itself."""

    def __init__(self, api: Api, log: Log) -> None:
        self._log = log
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._end, self._entry = os.pipe()
        os.set_blocking(self._end, False)
        os.set_blocking(self._entry, False)
        self._ended = False
        self._lock = threading.Lock()
        self._sequence = 0
        self._awaited = {resource.kind for resource in RESOURCES}
        self.failed = ""
        self._followers = [
            Follower(api, resource, self._put, self._listed, log) for resource in RESOURCES
        ]
        self._threads = [
            threading.Thread(target=self._follow, args=(follower,), daemon=True)
            for follower in self._followers
        ]

    def start(self) -> None:
        """Begin to list and to watch."""
        for thread in self._threads:
            thread.start()

    def _follow(self, follower: Follower) -> None:
        """A kind that is not followed any more would go unnoticed: better to end, and be started
        again. The rules stay in force."""
        try:
            follower.run()
        except Exception as error:
            self.failed = repr(error)
            self._log("broken", {"error": self.failed, "trace": traceback.format_exc()})
            self.stop()

    def stop(self) -> None:
        """End: :meth:`read` gives None from now on. May be called by a signal's handler."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Let the threads end. They do not keep the process from ending."""
        for follower in self._followers:
            follower.end()

    @property
    def relists(self) -> int:
        """How many lists were made."""
        return sum(follower.relists for follower in self._followers)

    def fileno(self) -> int:
        return self._end

    def read(self) -> Sequence[Event] | None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._end, 1 << 16)
        if self._ended:
            return None
        events: list[Event] = []
        while True:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                return events

    def done(self, sequence: Any, seconds: float, errors: Sequence[str]) -> None:
        details = {"change": sequence, "seconds": round(seconds, 6), "errors": list(errors)}
        self._log("applied", details)

    def _put(self, type_: str, item: Mapping[str, Any]) -> None:
        with self._lock:
            self._sequence += 1
            self._events.put(Event(self._sequence, type_, item))
        self._wake()

    def _listed(self, resource: Resource) -> None:
        with self._lock:
            if not self._awaited:
                return
            self._awaited.discard(resource.kind)
            last = not self._awaited
        if last:
            self._put("SYNCED", {})

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake: the pipe is full of calls
            os.write(self._entry, b"!")
