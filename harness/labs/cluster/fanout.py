"""Fan-out: probes of very many clients, spread over the pods of an Indexed Job in the cluster.

An exec stream for each client costs this machine a TLS connection, and each word to a client a
message of its own. So the streams are opened inside of the cluster, by workers, the pods of an
Indexed Job; this machine has one stream for each *worker*, over which the words for all clients
of its share go together (:mod:`~harness.labs.cluster.frames`). A client's shell is a shell all the
same: who probes knows of nothing, and makes the same record.

Workers are on their nodes' own network: no policy under test may come between them and the API
server. Their service account may open shells in the pods of the run's own namespaces, by a Role in
each, and do nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from harness.labs.base import LabError
from harness.labs.cluster import stream
from harness.labs.cluster.api import ApiError
from harness.labs.cluster.frames import target
from harness.labs.cluster.line import WorkerLine, WorkerShell, wait_open
from harness.labs.cluster.objects import labelled
from harness.labs.cluster.pods import NO_IMAGE, has_ended, is_ready, states
from harness.labs.cluster.spread import FanOut, shares
from harness.labs.cluster.worker import READY
from harness.model.manifest import to_manifest
from harness.model.world import Namespace, Pod

if TYPE_CHECKING:
    from harness.labs.cluster.lab import ClusterLab

Json = dict[str, Any]
Key = tuple[str, str]

PROGRAM = ("python3", "-m", "harness.labs.cluster.worker")

_CONTAINER = "worker"
_JOB_LABEL = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_RBAC = "rbac.authorization.k8s.io"
_LONGEST_RUN = 24 * 3600
_GONE_SECONDS = 120.0
_PAUSE = 0.1


class Workers:
    """The workers of one lab, made when they are first needed. ``note`` says why there are none
    although there are clients enough for them."""

    def __init__(self, lab: ClusterLab, asked: FanOut) -> None:
        self.lab = lab
        self.asked = asked
        self.note = ""
        self.count = 0
        """How many the Job has."""
        self._lines: dict[int, WorkerLine] = {}
        self._pods: dict[int, str] = {}  # the uids of the pods that those lead to
        self._lost: set[str] = set()
        self._admitted: set[str] = set()
        self._ready: dict[Key, WorkerShell] = {}  # opened, and not yet asked for
        self._wrong: tuple[float, LabError] | None = None  # until when this is not tried again

    @property
    def name(self) -> str:
        """Of the Job, of its account, and of a Role and RoleBinding in each namespace."""
        return self.lab.fan_out_name

    def __str__(self) -> str:
        if self.count:
            return f"{self.count} workers of an Indexed Job ({self.asked.image})"
        return str(FanOut("exec"))

    # -- whether ---------------------------------------------------------------------------------

    def take(self, clients: int) -> bool:
        """Whether clients, of which there are so many in all, are probed by workers; they are
        made if that is so. Raises LabError where they were asked for and cannot be had."""
        asked = self.asked
        if asked.mode == "exec" or self.note:
            return False
        if asked.mode == "auto" and not self.count and clients <= asked.many:
            return False
        if self._lines and asked.workers(clients) <= self.count:
            return True
        try:
            self._have(max(self.count, asked.workers(clients)))
        except LabError as error:
            if asked.mode == "job":
                raise
            self._end()
            self.note = f"no fan-out by a Job, but exec streams: {error.message}"
            return False
        return True

    # -- shells ----------------------------------------------------------------------------------

    def gather(self, clients: Iterable[tuple[Key, str]]) -> None:
        """Open shells in these containers, all at once. Those that cannot be opened tell so when
        they are asked for. Raises LabError where there are no workers."""
        wanted = {key: container for key, container in clients if key not in self._ready}
        for namespace in dict.fromkeys(namespace for namespace, _ in wanted):
            self._admit(namespace)
        lines = self._living()
        loads = {index: line.load for index, line in lines.items()}
        where = shares(loads, map("/".join, wanted))
        opened = {}
        for key, container in wanted.items():
            name = "/".join(key)
            asked = target(*key, container, self.lab.protocols)
            opened[key] = lines[where[name]].open(name, asked)
        wait_open(opened.values())
        self._ready.update(opened)

    def shell(self, key: Key, container: str) -> WorkerShell:
        """A client's shell. Raises LabError."""
        shell = self._ready.pop(key, None)
        if shell is not None:
            shell.line.read()
            if not (shell.opened or shell.line.over):
                raise LabError(shell.why)
        if shell is None or shell.why:  # what was lost with its worker may be had by another
            self.gather([(key, container)])
            shell = self._ready.pop(key)
        if shell.why:
            raise LabError(shell.why)
        return shell

    def forget(self, namespace: str) -> None:
        """A namespace is deleted: one of the same name has no Role yet."""
        self._admitted.discard(namespace)

    def close(self) -> None:
        """End the streams. The Job is deleted by its label, as all that a run makes."""
        self._end()
        self.note = ""

    def _end(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines, self._ready, self._admitted, self.count = {}, {}, set(), 0
        self._wrong = None

    # -- workers ---------------------------------------------------------------------------------

    def _living(self) -> dict[int, WorkerLine]:
        """Lines to workers that live. One whose line broke is tried again only when no other is
        left: its node may be gone, which takes long to find out. Raises LabError."""
        for index, line in list(self._lines.items()):
            if line.over:
                line.close()
                del self._lines[index]
                self._lost.add(self._pods.pop(index))
        self._connect(skip=self._lost)
        if not self._lines:
            self._lost.clear()
            self._wait(1)
        return self._lines

    def _have(self, count: int) -> None:
        """Have so many workers. Raises LabError."""
        api, lab = self.lab.api, self.lab
        if not self.count:
            self._make_namespace()
            marks = lab.fan_out_marks()
            self._create(labelled(_account(lab.node_namespace, self.name), marks))
            self._create(labelled(self._job(count, marks), marks))
        elif count > self.count:
            size = {"spec": {"completions": count, "parallelism": count}}
            api.merge("Job", lab.node_namespace, self.name, size)
        self.count = count
        self._wait(count)

    def _make_namespace(self) -> None:
        """The node clients' own; one that is being deleted has to be gone before."""
        lab = self.lab
        deadline = time.monotonic() + _GONE_SECONDS
        while (there := lab.api.find("Namespace", "", lab.node_namespace)) is not None:
            if "deletionTimestamp" not in there["metadata"]:
                return
            if time.monotonic() > deadline:
                raise LabError(
                    f"namespace {lab.node_namespace} is still there {_GONE_SECONDS:g} s after it "
                    "was deleted"
                )
            time.sleep(_PAUSE)
        manifest = to_manifest(Namespace(lab.node_namespace))
        lab.api.apply(labelled(manifest, lab.marks(lab.node_namespace)))

    def _create(self, manifest: Json) -> None:
        """Make it, if it is not there already."""
        try:
            self.lab.api.create(manifest)
        except ApiError as error:
            if error.status != 409:
                raise

    def _admit(self, namespace: str) -> None:
        """Let the workers open shells in the pods of a namespace."""
        if namespace in self._admitted:
            return
        lab = self.lab
        for manifest in _role(namespace, self.name, lab.node_namespace):
            self._create(labelled(manifest, lab.fan_out_marks()))
        self._admitted.add(namespace)

    def _known(self, pods: dict[Key, Json]) -> list[tuple[int, Json]]:
        """The workers' pods, with their indexes."""
        namespace = self.lab.node_namespace
        found = []
        for key, pod in list(pods.items()):
            meta = pod["metadata"]
            if key[0] == namespace and (meta.get("labels") or {}).get(_JOB_LABEL) == self.name:
                found.append((int((meta.get("annotations") or {}).get(_INDEX, -1)), pod))
        return found

    def _wait(self, count: int) -> None:
        """Wait until so many workers are there, and connect to them. Raises LabError, and for a
        while at once: a hundred clients that ask one after the other are not to wait each."""
        watch = self.lab.watch
        if self._wrong is not None and time.monotonic() < self._wrong[0]:
            raise self._wrong[1]
        before = {pod["metadata"]["uid"] for _, pod in self._known(watch.pods) if has_ended(pod)}
        began = time.monotonic()
        deadline = began + self.lab.ready_seconds

        def settled(pods: dict[Key, Json]) -> bool:
            there = self._known(pods)
            ended = {p["metadata"]["uid"] for _, p in there if has_ended(p)} - before
            failed = ended or any(_lacks_image(p) for _, p in there)
            return len({i for i, p in there if _can_serve(p)}) >= count or bool(failed)

        while True:
            watch.wait(settled, max(0.0, deadline - time.monotonic()))
            wrong = self._connect()
            if len(self._lines) >= count:
                return
            if wrong is None or time.monotonic() > deadline:
                error = self._not_ready(count, time.monotonic() - began, wrong)
                self._wrong = time.monotonic() + self.lab.ready_seconds, error
                raise error
            time.sleep(_PAUSE)  # it has just ended, and the watch does not know yet

    def _not_ready(self, count: int, seconds: float, wrong: LabError | None) -> LabError:
        lab = self.lab
        there = [pod["metadata"] for _, pod in self._known(lab.watch.pods) if not _can_serve(pod)]
        lines = [lab.condition_of(Pod(one["namespace"], one["name"])) for one in there[:5]]
        lines += [f"  {wrong.message}"] if wrong else []
        return LabError(
            f"{len(self._lines)} of {count} workers of Job {lab.node_namespace}/{self.name} are "
            f"ready after {seconds:.0f} s",
            hint="their image is the harness's own (`make enforcer-image` builds it, "
            f"--lab-fanout-image names it; here {self.asked.image}); --lab-fanout exec does "
            "without them",
            detail="\n".join(lines or self._why_no_pods()),
        )

    def _why_no_pods(self) -> list[str]:
        """What the Job controller says of pods that are not admitted, if that may be read."""
        lines = ["  the Job has made no pods"]
        with contextlib.suppress(LabError):
            events = self.lab.api.list(
                "Event", self.lab.node_namespace, fieldSelector=f"involvedObject.name={self.name}"
            )
            lines += [f"    {one.get('message', '')}" for one in events["items"][-3:]]
        return lines

    def _connect(self, skip: Collection[str] = ()) -> LabError | None:
        """Connect to workers that are ready, but for pods of these uids. Returns what went wrong
        with the last that could not be."""
        lab, wrong = self.lab, None
        for index, pod in self._known(lab.watch.pods):
            meta = pod["metadata"]
            known = index in self._lines or not 0 <= index < self.count
            if known or meta["uid"] in skip or not _can_serve(pod):
                continue
            where = meta["namespace"], meta["name"], _CONTAINER, (*PROGRAM, "serve")
            try:
                shell = stream.ExecShell(lab.api, *where, protocols=lab.protocols)
            except LabError as error:
                wrong = error
                continue
            name = f"worker {index} of the fan-out (pod {meta['name']})"
            self._lines[index] = WorkerLine(shell, name)
            self._pods[index] = meta["uid"]
        return wrong

    def _job(self, count: int, marks: dict[str, str]) -> Json:
        probe = {"exec": {"command": ["test", "-e", READY]}, "periodSeconds": 1}
        container = {
            "name": _CONTAINER,
            "image": self.asked.image,
            "imagePullPolicy": "IfNotPresent",
            "command": [*PROGRAM, "wait"],
            "startupProbe": {**probe, "failureThreshold": 60},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {_JOB_LABEL: self.name}},
        }
        pod = {
            "containers": [container],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "serviceAccountName": self.name,
            "enableServiceLinks": False,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "topologySpreadConstraints": [spread],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.lab.node_namespace},
            "spec": {
                "completionMode": "Indexed",
                "completions": count,
                "parallelism": count,
                "backoffLimit": 1000,
                "activeDeadlineSeconds": _LONGEST_RUN,
                "template": {"metadata": {"labels": dict(marks)}, "spec": pod},
            },
        }


def _account(namespace: str, name: str) -> Json:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def _role(namespace: str, name: str, account: str) -> list[Json]:
    """What lets the account of that name in namespace ``account`` open shells in a namespace."""
    meta = {"name": name, "namespace": namespace}
    rule = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": account}],
        },
    ]


def _can_serve(pod: Json) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and is_ready(pod)


def _lacks_image(pod: Json) -> bool:
    return any((one.get("waiting") or {}).get("reason") in NO_IMAGE for one in states(pod))
