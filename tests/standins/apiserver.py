"""What answers a client's lists as an API server does, page by page, out of a dictionary."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: shop
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: shop, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{token: known}}}}]
"""
#: Lists that every cluster has.
CORE = (
    *("/api/v1/namespaces", "/api/v1/nodes", "/api/v1/pods", "/api/v1/services"),
    "/apis/networking.k8s.io/v1/networkpolicies",
)


@dataclass
class ApiServer:
    """``lists``: path -> objects. ``forbidden``: paths that are refused. ``asked``: the requests,
    with their query. Pages have ``page`` objects, whatever was asked for."""

    port: int
    lists: dict[str, list[Json]] = field(default_factory=lambda: {path: [] for path in CORE})
    others: dict[str, Json] = field(
        default_factory=lambda: {"/apis": {"groups": []}, "/version": {"gitVersion": "v1.36.0"}}
    )
    forbidden: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    page: int = 2

    def write_kubeconfig(self, file: Path, token: str = "known") -> Path:
        """Of one context, ``shop``."""
        file.write_text(KUBECONFIG.format(port=self.port).replace("known", token))
        return file

    def serve(self, group: str, version: str, kind: str, *names: str) -> None:
        """A further kind of objects in namespace ``shop``."""
        both, plural = f"{group}/{version}", f"{kind.lower()}s"
        if f"/apis/{both}" not in self.others:
            known = {"groupVersion": both, "version": version}
            self.others["/apis"]["groups"].append({"name": group, "versions": [known]})
        kinds = self.others.setdefault(f"/apis/{both}", {"resources": []})
        kinds["resources"].append({"name": plural, "kind": kind, "namespaced": True})
        self.lists[f"/apis/{both}/{plural}"] = [
            {"metadata": {"name": name, "namespace": "shop"}} for name in names
        ]

    def answer(self, path: str, query: Mapping[str, list[str]], token: str) -> tuple[int, Json]:
        """Status and body."""
        if token != "Bearer known":
            return 401, {"message": "Unauthorized"}
        if path in self.forbidden:
            return 403, {"message": f"not allowed: {path}"}
        if path in self.others:
            return 200, self.others[path]
        if path not in self.lists:
            return 404, {"message": "the server could not find the requested resource"}
        begin = int(query.get("continue", ["0"])[0])
        end = begin + self.page
        meta = {"continue": str(end)} if end < len(self.lists[path]) else {}
        return 200, {"items": self.lists[path][begin:end], "metadata": meta}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """One on loopback, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            made.asked.append(self.path)
            token = self.headers.get("Authorization", "")
            status, body = made.answer(parts.path, parse_qs(parts.query), token)
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = ApiServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
