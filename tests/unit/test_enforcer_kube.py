"""List and watch against a server that plays a script: pages, expiry, outages, what is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import yaml

from harness.enforcer import kube
from harness.enforcer.kube import Api, ApiError, Follower, KubeSource, Resource

PODS = Resource("Pod", "v1", "/api/v1/pods")
Answer = tuple[int, Any]


class Script:
    """Answers one request after the other as it is told; a list is a watch's events. When the
    script is at its end, the last answer is given again."""

    def __init__(self, *answers: Answer | list[Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {k: v[0] for k, v in parse_qs(urlparse(self.path).query).items()}
                script.asked.append(query)
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                if isinstance(answer, list):
                    self.send_response(200)
                    self.end_headers()
                    for event in answer:
                        self.wfile.write(json.dumps(event).encode() + b"\n")
                    return
                status, body = answer
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def watches(self) -> list[str]:
        """From which version each watch began."""
        return [query["resourceVersion"] for query in self.asked if "watch" in query]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "WAIT", 0.01)
    monkeypatch.setattr(kube, "WAIT_MOST", 0.05)


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[..., tuple[Script, list[Any], list[Any]]]]:
    """Follow a script until a number of changes came; gives the script, the changes, the log."""
    running: list[tuple[Script, Follower, threading.Thread]] = []

    def run(*answers: Answer | list[Any], until: Callable[[Script, list[Any]], bool]) -> Any:
        script = Script(*answers)
        changes: list[Any] = []
        log: list[Any] = []
        follower = Follower(
            api_to(script.url, tmp_path),
            PODS,
            lambda type_, item: changes.append((type_, item["metadata"]["name"], item)),
            lambda _: changes.append(("LISTED", "", {})),
            lambda *line: log.append(line),
        )
        thread = threading.Thread(target=follower.run, daemon=True)
        running.append((script, follower, thread))
        thread.start()
        deadline = time.monotonic() + 20
        while not until(script, changes):
            assert time.monotonic() < deadline, (changes, log)
            time.sleep(0.005)
        return script, [change[:2] for change in changes], log

    yield run
    for script, follower, thread in running:
        follower.end()
        thread.join(10)
        script.server.shutdown()
        script.server.server_close()


def api_to(url: str, directory: Path) -> Api:
    file = directory / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": url}}
    user = {"name": "u", "user": {"token": "secret"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    known = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **known}))
    return Api(str(file))


def pod(name: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"namespace": "x", "name": name, "uid": name, "resourceVersion": version}}


def page(version: str, *names: str, more: str = "") -> Answer:
    metadata = {"resourceVersion": version, **({"continue": more} if more else {})}
    return 200, {"metadata": metadata, "items": [pod(name) for name in names]}


def event(type_: str, name: str, version: str) -> dict[str, Any]:
    return {"type": type_, "object": pod(name, version)}


def came(*wanted: tuple[str, str]) -> Callable[[Script, list[Any]], bool]:
    return lambda _, changes: all(one in [c[:2] for c in changes] for one in wanted)


QUIET: list[Any] = []
EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}


def test_a_list_comes_in_pages(follow: Any) -> None:
    script, changes, _ = follow(
        page("5", "a", "b", more="next"), page("5", "c"), QUIET, until=came(("LISTED", ""))
    )
    assert changes[:4] == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("LISTED", "")]
    assert "continue" not in script.asked[0]
    assert script.asked[1]["continue"] == "next"
    assert script.asked[0]["limit"] == "500"


def test_a_watch_goes_on_from_the_last_event_or_bookmark(follow: Any) -> None:
    script, changes, _ = follow(
        page("5", "a"),
        [event("MODIFIED", "a", "6"), event("ADDED", "b", "7")],
        [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "90"}}}],
        QUIET,
        until=lambda script, _: "90" in script.watches(),
    )
    assert script.watches()[:3] == ["5", "7", "90"]
    assert all(query.get("allowWatchBookmarks") == "true" for query in script.asked[1:])
    assert changes == [("ADDED", "a"), ("LISTED", ""), ("MODIFIED", "a"), ("ADDED", "b")]


@pytest.mark.parametrize("expired", [[EXPIRED], (410, {"message": "too old"})])
def test_an_expired_version_is_a_new_list_and_what_is_gone_is_told(
    follow: Any, expired: Any
) -> None:
    script, changes, _ = follow(
        page("5", "a", "b"), expired, page("50", "b", "c"), QUIET, until=came(("ADDED", "c"))
    )
    assert ("DELETED", "a") in changes
    assert ("DELETED", "b") not in changes
    assert "50" in script.watches() or len(script.asked) == 3


def test_a_page_that_expires_begins_the_list_anew(follow: Any) -> None:
    script, changes, _ = follow(
        page("5", "a", more="next"),
        (410, {"message": "the continue token is too old"}),
        page("9", "b"),
        QUIET,
        until=came(("ADDED", "b")),
    )
    assert ("ADDED", "a") not in changes  # half a list is none
    assert "continue" not in script.asked[2]


def test_an_outage_is_tried_again_and_told(follow: Any) -> None:
    _, changes, log = follow(
        (500, {"message": "no etcd"}),
        (503, {"message": "starting"}),
        page("5", "a"),
        QUIET,
        until=came(("ADDED", "a")),
    )
    assert changes[0] == ("ADDED", "a")
    assert [line[1]["error"] for line in log][:2] == [
        "/api/v1/pods: no etcd",
        "/api/v1/pods: starting",
    ]


def test_an_outage_in_between_deletes_nothing(follow: Any) -> None:
    _, changes, _ = follow(
        page("5", "a"),
        (500, {"message": "no etcd"}),
        [event("ADDED", "b", "6")],
        QUIET,
        until=came(("ADDED", "b")),
    )
    assert ("DELETED", "a") not in changes


def test_a_deletion_is_told(follow: Any) -> None:
    _, changes, _ = follow(
        page("5", "a"), [event("DELETED", "a", "6")], QUIET, until=came(("DELETED", "a"))
    )
    assert changes[-1] == ("DELETED", "a")


def test_the_token_goes_along(tmp_path: Path) -> None:
    api = api_to("http://127.0.0.1:1", tmp_path)
    settings = api._client.configuration.auth_settings()
    assert settings["BearerToken"]["value"] == "Bearer secret"


def test_no_server_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="/api/v1/pods: no answer"):
        api_to("http://127.0.0.1:1", tmp_path).get("/api/v1/pods")


def test_outside_of_a_cluster_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiError, match="--kubeconfig FILE"):
        Api()


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="no way to the API server"):
        Api(str(tmp_path / "none"))


def test_synced_comes_once_when_every_kind_was_listed(tmp_path: Path) -> None:
    script = Script(page("5"))
    source = KubeSource(api_to(script.url, tmp_path), lambda *_: None)
    try:
        for resource in kube.RESOURCES[:-1]:
            source._listed(resource)
        assert source.read() == []
        source._put("ADDED", pod("a"))
        for _ in range(2):
            source._listed(kube.RESOURCES[-1])
        events = source.read()
        assert events is not None
        assert [one.type for one in events] == ["ADDED", "SYNCED"]
    finally:
        source.close()
        script.server.shutdown()
        script.server.server_close()


def test_a_kind_that_cannot_be_followed_any_more_ends_the_source(tmp_path: Path) -> None:
    script = Script((200, {"metadata": {"resourceVersion": "1"}, "items": [{"no": "metadata"}]}))
    log: list[Any] = []
    source = KubeSource(api_to(script.url, tmp_path), lambda *line: log.append(line))
    source.start()
    try:
        deadline = time.monotonic() + 20
        while source.read() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "metadata" in source.failed
        assert log[0][0] == "broken"
    finally:
        source.close()
        script.server.shutdown()
        script.server.server_close()
