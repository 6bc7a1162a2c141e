"""What runs have made on a cluster that others use, and have not deleted: a run that is killed
deletes nothing. Found by its label, and told from runs that are under way by its age."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.lab import KINDS, ClusterLab
from harness.labs.cluster.objects import KEPT_LABEL, RUN_LABEL

Json = dict[str, Any]

#: A run under way makes something every few seconds: one that has made nothing for so long is gone.
QUIET = timedelta(minutes=15)
_GONE_SECONDS = 120.0
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Leftover:
    """What there is of a run: ``namespaces``, and how many ``others`` (in namespaces that are not
    the run's, or in none). ``since``: when the first of it was made; ``idle``: how long ago the
    last was, by the server's clock. ``kept``: on purpose (``--lab-keep``)."""

    run: str
    namespaces: tuple[str, ...]
    others: int
    since: datetime
    idle: timedelta
    kept: bool

    @property
    def gone(self) -> bool:
        """Whether nobody is at it any more."""
        return self.idle >= QUIET

    def __str__(self) -> str:
        """By name."""
        shown = [*self.namespaces[:3], "…"] if len(self.namespaces) > 4 else self.namespaces
        told = [f"namespaces {', '.join(shown)} ({len(self.namespaces)})"] if shown else []
        told += [f"{self.others} objects in none of these"] if self.others else []
        return " and ".join(told)


def leftovers(api: Api) -> list[Leftover]:
    """Of each run that has something there which nobody has deleted yet, the oldest first. Raises
    LabError."""
    now = api.clock()
    found: dict[str, list[Json]] = {}
    for item in _labelled(api, RUN_LABEL):
        found.setdefault(item["metadata"]["labels"][RUN_LABEL], []).append(item)
    return sorted((_of(run, items, now) for run, items in found.items()), key=lambda o: o.since)


def _of(run: str, items: list[Json], now: datetime) -> Leftover:
    namespaces = sorted(one["metadata"]["name"] for one in items if one["kind"] == "Namespace")
    made = [datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in items]
    return Leftover(
        run,
        tuple(namespaces),
        sum(
            one["kind"] != "Namespace" and one["metadata"].get("namespace") not in namespaces
            for one in items
        ),
        min(made),
        now - max(made),
        kept=any(KEPT_LABEL in one["metadata"]["labels"] for one in items),
    )


def _labelled(api: Api, selector: str, *, dying: bool = False) -> Iterator[Json]:
    for kind in KINDS:
        try:
            for item in api.every(kind, labelSelector=selector):
                if dying or "deletionTimestamp" not in item["metadata"]:
                    yield {"kind": kind, **item}
        except ApiError as error:
            # No such kind there, or no right to it: then no run has made any.
            if kind not in ("ClusterNetworkPolicy", "Job") or error.status not in (403, 404):
                raise


def remove(api: Api, run: str) -> None:
    """Delete all that a run has made, and wait until it is gone. Raises LabError."""
    lab = ClusterLab(api, run=run)
    lab.delete(lab.selector)
    deadline = time.monotonic() + _GONE_SECONDS
    while left := list(_labelled(api, lab.selector, dying=True)):
        if time.monotonic() > deadline:
            names = ", ".join(sorted({_name(one) for one in left})[:10])
            raise LabError(
                f"what run {run} has made is still there after {_GONE_SECONDS:.0f} s: {names}",
                hint="`kubectl describe` tells what holds it up; the right to delete, maybe",
            )
        time.sleep(_PAUSE)


def _name(item: Json) -> str:
    meta = item["metadata"]
    return f"{item['kind']} " + "/".join(filter(None, (meta.get("namespace"), meta["name"])))


def keep(api: Api, run: str) -> None:
    """Mark what a run has made as kept on purpose; what cannot be marked is not."""
    for item in api.every("Namespace", labelSelector=f"{RUN_LABEL}={run}"):
        with contextlib.suppress(ApiError):
            labels = {"metadata": {"labels": {KEPT_LABEL: "true"}}}
            api.merge("Namespace", "", item["metadata"]["name"], labels)
