"""Policy engines that watch an API: one process in each node, with a service account of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from harness.labs.cluster.api import Api, path
from harness.labs.controlplane.plane import ControlPlane, last_lines
from harness.labs.controlplane.programs import HOME
from harness.labs.netns.client import Process
from harness.labs.netns.engine import argv_for
from harness.labs.netns.topology import node_box

Json = dict[str, Any]

ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
KUBECONFIG = f"{HOME}/engine.kubeconfig"
_TOKEN_SECONDS = 7 * 24 * 3600
_END_SECONDS = 10.0
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ApiEngine:
    """What to run in each node.

    ``argv`` and ``env`` may hold ``{node}``, ``{dataplane}``, ``{kubeconfig}`` (path of a
    kubeconfig of the account, inside of the lab). ``account`` is (namespace, name) of a service
    account that is in ``objects``, which are applied before: accounts, roles, CRDs. ``files``
    (path -> text) are seen in the nodes alone; the account's token is there as in a pod, too.
    ``ready`` is an URL on the node that answers when it has all in force that it was told.
    """

    argv: Sequence[str]
    account: tuple[str, str]
    objects: Sequence[Json] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    ready: str = ""


class ApiEngines:
    """The engines of one lab. ``logs`` takes what they say, a file for each node."""

    def __init__(
        self, plane: ControlPlane, engine: ApiEngine, *, dataplane: str, logs: Path
    ) -> None:
        self.plane = plane
        self.engine = engine
        self.dataplane = dataplane
        self.logs = logs
        self.running: dict[str, Process] = {}
        self.starts: dict[str, int] = {}

    def prepare(self, api: Api) -> None:
        """Apply what it needs, and give it its account. Raises LabError."""
        for manifest in self.engine.objects:
            api.apply(manifest)
        token = account_token(api, *self.engine.account)
        holder = self.plane.holder
        holder.request("write", path=KUBECONFIG, text=self.plane.kubeconfig(token=token))
        files = {
            f"{ACCOUNT_DIRECTORY}/token": token,
            f"{ACCOUNT_DIRECTORY}/ca.crt": self.plane.authority.certificate,
            f"{ACCOUNT_DIRECTORY}/namespace": self.engine.account[0],
            **self.engine.files,
        }
        for node in self.plane.nodes:
            holder.request("place", box=node_box(node), files=files)

    def start(self, node: str) -> Process:
        """Start the engine of a node; one that runs is ended first."""
        self.stop(node)
        words = {"node": node, "dataplane": self.dataplane, "kubeconfig": KUBECONFIG}
        env = {
            "KUBECONFIG": KUBECONFIG,
            "NODE_NAME": node,
            **{key: argv_for([value], words)[0] for key, value in self.engine.env.items()},
        }
        with self.log(node).open("ab") as out, open(os.devnull, "rb") as null:
            process = self.plane.holder.spawn(
                node_box(node),
                argv_for(self.engine.argv, words),
                stdin=null.fileno(),
                stdout=out.fileno(),
                stderr=out.fileno(),
                env=env,
                cwd="/run",
            )
        self.running[node] = process
        self.starts[node] = self.starts.get(node, 0) + 1
        return process

    def stop(self, node: str, number: int = signal.SIGTERM) -> None:
        """End the engine of a node, if it runs; killed if it does not end by itself."""
        process = self.running.pop(node, None)
        if process is None:
            return
        process.signal(number)
        deadline = time.monotonic() + _END_SECONDS
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except LabError:
            process.signal(signal.SIGKILL)
        process.close()

    def wait_ready(self) -> None:
        """Until every engine says that it is. Raises LabError."""
        deadline = time.monotonic() + _READY_SECONDS
        look = ["busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "-", self.engine.ready]
        for node in self.running if self.engine.ready else ():
            while self.plane.holder.run(node_box(node), look).code != 0:
                self.check()
                if time.monotonic() > deadline:
                    raise LabError(
                        f"the policy engine of node {node} is not ready after {_READY_SECONDS:g} s",
                        hint=f"its whole log is {self.log(node)}",
                        detail=last_lines(self.log(node)),
                    )
                time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raises LabError if an engine has ended that nobody has stopped, with its last lines."""
        for node in self.ended():
            raise LabError(
                f"the policy engine of node {node} has ended with exit code "
                f"{self.running[node].poll()}",
                hint=f"its whole log is {self.log(node)}",
                detail=last_lines(self.log(node)),
            )

    def ended(self) -> list[str]:
        """Nodes whose engine has ended by itself."""
        return [node for node, process in self.running.items() if process.poll() is not None]

    def log(self, node: str) -> Path:
        """What the engine of a node says."""
        return self.logs / f"engine-{node}.log"

    def abandon(self) -> None:
        """The lab ends as a whole."""
        for process in self.running.values():
            process.close()
        self.running = {}


def account_token(api: Api, namespace: str, name: str, seconds: int = _TOKEN_SECONDS) -> str:
    """A token of a service account, for this many seconds."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    answer = api.request("POST", path("ServiceAccount", namespace, name) + "/token", body)
    return str(answer["status"]["token"])
