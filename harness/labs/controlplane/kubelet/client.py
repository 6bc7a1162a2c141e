"""An asynchronous client of the API, whose sockets come out of the lab."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
_SECONDS = 30.0
_WATCH_SECONDS = 300
_PAUSE = 0.2
"""Between tries while the server is away."""


class ApiStatusError(Exception):
    """The server refused: HTTP's status and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status


class Client:
    """Requests with one user's token. To be made and used in one event loop."""

    def __init__(
        self, server: str, authority: str, token: str, sockets: Callable[[int], socket.socket]
    ) -> None:
        def make(address: Any) -> socket.socket:
            return sockets(address[0])

        context = ssl.create_default_context(cadata=authority)
        self._server = server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, socket_factory=make, limit=0),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """One request. Raises ApiStatusError; without an answer ClientError or TimeoutError."""
        async with self._session.request(
            method,
            self._server + path,
            data=json.dumps(body) if body is not None else None,
            params=params,
            headers={"Content-Type": content_type},
        ) as response:
            text = await response.read()
            try:
                data: Json = json.loads(text)
            except ValueError:
                data = {"message": text[:300].decode(errors="replace")}
            if response.status >= 400:
                raise ApiStatusError(response.status, data.get("message", ""))
            return data

    async def insist(
        self, method: str, path: str, body: Json | None = None, **options: Any
    ) -> Json:
        """Like :meth:`request`, again and again while the server is away or overloaded."""
        while True:
            try:
                return await self.request(method, path, body, **options)
            except ApiStatusError as error:
                if error.status not in (429, 500, 503, 504):
                    raise
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(_PAUSE)

    async def follow(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Json]]:
        """List and watch for good: ``("ADDED" | "MODIFIED" | "DELETED", object)``.

        After a list come ``("LISTED", {uid: object})`` with all that there is.
        """
        query = {"fieldSelector": selector} if selector else {}
        while True:
            try:
                listed = await self.request("GET", path, params=query)
                items = {item["metadata"]["uid"]: item for item in listed["items"]}
                yield "LISTED", items
                version = listed["metadata"]["resourceVersion"]
                async for event in self._watch(path, query, version):
                    yield event
            except ApiStatusError as error:
                if error.status == 401:
                    raise
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(_PAUSE)

    async def _watch(
        self, path: str, query: Mapping[str, str], version: str
    ) -> AsyncIterator[tuple[str, Json]]:
        while True:
            params = {
                **query,
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(_WATCH_SECONDS),
            }
            async with self._session.get(
                self._server + path,
                params=params,
                timeout=aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30),
            ) as response:
                if response.status >= 400:
                    raise ApiStatusError(response.status, await response.text())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise ApiStatusError(event["object"].get("code", 410), "watch ended")
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]

    async def event(self, pod: Json, reason: str, message: str, kind: str = "Warning") -> None:
        """Put an Event on record; that it cannot be put is no reason to stop."""
        from harness.labs.controlplane.kubelet.status import now

        meta, stamp = pod["metadata"], now()
        body: Json = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        with contextlib.suppress(ApiStatusError, aiohttp.ClientError, TimeoutError, OSError):
            await self.request("POST", f"/api/v1/namespaces/{meta['namespace']}/events", body)
