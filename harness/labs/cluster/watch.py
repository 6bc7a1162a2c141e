"""The pods of a run as the server knows them, kept up to date by one watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import Api

Json = dict[str, Any]
Key = tuple[str, str]

_WATCH_SECONDS = 300.0
_PAUSE = 0.5


class PodWatch:
    """``pods`` by (namespace, name). A thread lists and watches; :meth:`wait` is told of news."""

    def __init__(self, api: Api, selector: str) -> None:
        self._api = api
        self._selector = selector
        self.pods: dict[Key, Json] = {}
        self._news = threading.Condition()
        self._listed = False
        self._closing = False
        self._trouble: LabError | None = None
        self._thread = threading.Thread(target=self._run, name="pod-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; the thread ends with its present watch."""
        self._closing = True
        with self._news:
            self._news.notify_all()

    def wait(self, until: Callable[[dict[Key, Json]], bool], seconds: float) -> bool:
        """Wait until ``until(pods)``; False if that takes too long.

        Raises LabError where the server cannot be asked and its own ``check`` knows why.
        """
        deadline = time.monotonic() + seconds
        with self._news:
            while not (self._listed and until(self.pods)):
                left = deadline - time.monotonic()
                if left <= 0:
                    if self._trouble is not None:
                        raise self._trouble
                    return False
                self._news.wait(min(left, 1.0))
                self._api.check()
        return True

    def get(self, key: Key) -> Json | None:
        """A pod as it was last seen."""
        with self._news:
            return self.pods.get(key)

    def note(self, pod: Json) -> None:
        """What a request has answered, before the watch tells it."""
        with self._news:
            meta = pod["metadata"]
            self.pods.setdefault((meta["namespace"], meta["name"]), pod)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._follow()
                self._trouble = None
            except LabError as error:
                self._trouble = error
                if not self._closing:
                    time.sleep(_PAUSE)

    def _follow(self) -> None:
        listed = self._api.list("Pod", labelSelector=self._selector)
        with self._news:
            self.pods = {_key(pod): pod for pod in listed["items"]}
            self._listed = True
            self._news.notify_all()
        version = listed["metadata"]["resourceVersion"]
        while not self._closing:
            with self._api.watch(
                "Pod", version, seconds=_WATCH_SECONDS, labelSelector=self._selector
            ) as events:
                for event in events:
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])
                    if self._closing:
                        return

    def _take(self, kind: str, pod: Json) -> None:
        if kind == "BOOKMARK":
            return
        with self._news:
            if kind == "DELETED":
                known = self.pods.get(_key(pod))
                if known and known["metadata"]["uid"] == pod["metadata"]["uid"]:
                    del self.pods[_key(pod)]
            else:
                self.pods[_key(pod)] = pod
            self._news.notify_all()


def _key(pod: Json) -> Key:
    meta = pod["metadata"]
    return meta["namespace"], meta["name"]
