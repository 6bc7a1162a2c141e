"""Policy engines that watch an API: one process in each node, with a service account of its own.

One loop runs all of them, the in-house enforcer and other people's alike: objects, account and
files first, then set-up commands, the process, its own word that it is ready. One that dies is
started again, a few times, and each death is remembered.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.labs.base import Evidence, LabError
from harness.labs.cluster.api import Api, path
from harness.labs.controlplane.apply import apply_all
from harness.labs.controlplane.plane import ControlPlane, last_lines
from harness.labs.controlplane.programs import HOME, PORT
from harness.labs.netns import addresses as ip
from harness.labs.netns import rootfs, wire
from harness.labs.netns.client import Completed, Process
from harness.labs.netns.engine import argv_for
from harness.labs.netns.topology import node_box

Json = dict[str, Any]

ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
KUBECONFIG = f"{HOME}/engine.kubeconfig"
_TOKEN_SECONDS = 7 * 24 * 3600
_END_SECONDS = 10.0
_READY_SECONDS = 60.0
_COMMAND_SECONDS = 30.0
_POLL_SECONDS = 0.05
#: Before an engine is started again for the n-th time: 0.1 s, 0.4 s, 1.6 s …
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked image to run the engine on: its root file system and its own environment."""

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiEngine:
    """What to run in each node.

    ``argv``, ``env``, ``files``, ``setup``, ``clean``, ``looks`` and what ``objects`` say may hold
    ``{node}``, ``{node_ip}``, ``{dataplane}``, ``{kubeconfig}`` (path of a kubeconfig of the
    account, inside of the lab), ``{api_host}``, ``{api_port}``, ``{pod_subnet}``,
    ``{service_subnet}``, ``{ipv4}`` and ``{ipv6}``. ``account`` is (namespace, name) of a service
    account that is in ``objects``, which are applied before: CRDs, accounts, roles. ``files``
    (path -> text) and ``directories`` are the node's own; the account's token is there as in a
    pod, too. ``image``: the file system that commands run on; None: this machine's.

    ``ready`` is an URL on the node that answers when it has all in force that it was told.
    ``restarts``: how often it is started again on a node after it has died. ``probe``: a lab sees
    that a policy acts before it is up. ``looks``: (title, command), evidence. ``about`` is what
    the record says of it.
    """

    argv: Sequence[str]
    account: tuple[str, str]
    objects: Sequence[Json] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    ready: str = ""
    directories: Sequence[str] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    setup: Sequence[Sequence[str]] = ()
    image: Image | None = None
    ready_seconds: float = _READY_SECONDS
    probe: bool = False
    restarts: int = 0
    stop: signal.Signals = signal.SIGTERM
    clean: Sequence[Sequence[str]] = ()
    looks: Sequence[tuple[str, Sequence[str]]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Death:
    """An engine that has ended and that nobody has stopped: after how many seconds, how, and the
    last line that it said. ``again``: it was started again."""

    node: str
    seconds: float
    code: int
    again: bool
    said: str

    def __str__(self) -> str:
        how = f"by signal {-self.code}" if self.code < 0 else f"with exit code {self.code}"
        then = "and was started again" if self.again else "and was not started again"
        said = f": {self.said}" if self.said else ""
        return f"on {self.node} it ended {how} after {self.seconds:.1f} s {then}{said}"


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
        self.deaths: list[Death] = []
        self._since: dict[str, float] = {}
        self._given_up: set[str] = set()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None  # its two ends

    # -- before ------------------------------------------------------------------------------

    def prepare(self, api: Api) -> None:
        """Apply what it needs, give it its account, and set up the nodes. Raises LabError."""
        engine, holder = self.engine, self.plane.holder
        apply_all(api, [filled(one, self.words("")) for one in engine.objects])
        token = account_token(api, *engine.account)
        holder.request("write", path=KUBECONFIG, text=self.plane.kubeconfig(token=token))
        for node in self.plane.nodes:
            words = self.words(node)
            files = {
                f"{ACCOUNT_DIRECTORY}/token": token,
                f"{ACCOUNT_DIRECTORY}/ca.crt": self.plane.authority.certificate,
                f"{ACCOUNT_DIRECTORY}/namespace": engine.account[0],
                **{f"{one}/.netpol": "" for one in engine.directories},
                **{where: filled(text, words) for where, text in engine.files.items()},
            }
            holder.request("place", box=node_box(node), files=files)
            for name, value in engine.sysctls.items():
                self._must(node, ["sh", "-c", 'echo "$1" >"$2"', "-", value, f"/proc/sys/{name}"])
            for argv in engine.setup:
                self._must(node, argv_for(argv, words), inside=True)

    def words(self, node: str) -> dict[str, str]:
        """What placeholders stand for on a node."""
        settings = self.plane.settings
        return {
            "node": node,
            "node_ip": self.plane.nodes[node].ips[0] if node else "",
            "dataplane": self.dataplane,
            "kubeconfig": KUBECONFIG,
            "api_host": settings.address,
            "api_port": str(PORT),
            "pod_subnet": ip.CLUSTER_CIDRS[settings.families[0]],
            "service_subnet": settings.service_cidrs.partition(",")[0],
            "ipv4": str(4 in settings.families).lower(),
            "ipv6": str(6 in settings.families).lower(),
        }

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """A command line as it is run in a node: on the engine's own file system, if it has one."""
        image = self.engine.image
        if image is None:
            return list(argv)
        return rootfs.command(
            image.root,
            argv,
            name=node,
            env={**image.env, **self._env(node)},
            binds=[ACCOUNT_DIRECTORY, *self.engine.directories, *self.engine.files],
        )

    def run(self, node: str, argv: Sequence[str], *, inside: bool = True) -> Completed:
        """Run a command to its end, where the engine of a node runs (or in the node alone)."""
        line = self.command(node, argv) if inside else list(argv)
        return self.plane.holder.run(node_box(node), line, timeout=_COMMAND_SECONDS)

    def _must(self, node: str, argv: Sequence[str], *, inside: bool = False) -> None:
        done = self.run(node, argv, inside=inside)
        if done.code != 0:
            raise LabError(
                f"what the engine needs on node {node} cannot be set up: `{' '.join(argv)}` ended "
                f"with {done.code}: {(done.err or done.out).strip()}"
            )

    def _env(self, node: str) -> dict[str, str]:
        words = self.words(node)
        return {
            "KUBECONFIG": KUBECONFIG,
            "NODE_NAME": node,
            "KUBERNETES_SERVICE_HOST": words["api_host"],
            "KUBERNETES_SERVICE_PORT": words["api_port"],
            **{key: filled(value, words) for key, value in self.engine.env.items()},
        }

    # -- life --------------------------------------------------------------------------------

    def start(self, node: str) -> Process:
        """Start the engine of a node; one that runs is ended first."""
        self.stop(node)
        with self._lock:
            self._given_up.discard(node)
            return self._start(node)

    def _start(self, node: str) -> Process:
        argv = self.command(node, argv_for(self.engine.argv, self.words(node)))
        with self.log(node).open("ab") as out, open(os.devnull, "rb") as null:
            process = self.plane.holder.spawn(
                node_box(node),
                argv,
                stdin=null.fileno(),
                stdout=out.fileno(),
                stderr=out.fileno(),
                env=self._env(node),
                cwd="/run",
            )
        self.running[node] = process
        self.starts[node] = self.starts.get(node, 0) + 1
        self._since[node] = time.monotonic()
        self._nudge()
        if self._watcher is None and self.engine.restarts:
            self._wakeup = socket.socketpair()
            self._watcher = threading.Thread(target=self._watch, name="engines", daemon=True)
            self._watcher.start()
        return process

    def stop(self, node: str, number: int | None = None) -> None:
        """End the engine of a node, if it runs; killed if it does not end by itself."""
        with self._lock:
            process = self.running.pop(node, None)
            self._nudge()
        if process is None:
            return
        deadline = time.monotonic() + _END_SECONDS
        try:
            process.signal(self.engine.stop if number is None else number)
            process.wait(max(0.0, deadline - time.monotonic()))
        except LabError:
            process.signal(signal.SIGKILL)
        process.close()

    def clean(self, node: str) -> None:
        """Take away what a stopped engine has left in a node. Raises LabError."""
        for argv in self.engine.clean:
            self._must(node, argv_for(argv, self.words(node)), inside=True)

    def wait_ready(self) -> None:
        """Until every engine says that it is. Raises LabError."""
        seconds = self.engine.ready_seconds
        deadline = time.monotonic() + seconds
        look = ["busybox", "timeout", "5", "busybox", "wget", "-q", "-O", "-", self.engine.ready]
        for node in list(self.running) if self.engine.ready else ():
            while self.plane.holder.run(node_box(node), look).code != 0:
                self.check()
                if time.monotonic() > deadline:
                    raise LabError(
                        f"the policy engine of node {node} is not ready after {seconds:g} s: "
                        f"{self.engine.ready} does not answer",
                        hint=f"its whole log is {self.log(node)}",
                        detail=last_lines(self.log(node)),
                    )
                time.sleep(_POLL_SECONDS)
        self.check()

    def check(self) -> None:
        """Raises LabError if an engine has ended for good that nobody has stopped."""
        for node in self.ended():
            times = self.starts[node] - 1
            again = f" (it was started again {times} times)" if times else ""
            raise LabError(
                f"the policy engine of node {node} has ended with exit code "
                f"{self.running[node].poll()}{again}",
                hint=f"its whole log is {self.log(node)}",
                detail=last_lines(self.log(node)),
            )

    def ended(self) -> list[str]:
        """Nodes whose engine has ended by itself and is not started again."""
        with self._lock:
            return [
                node
                for node, process in self.running.items()
                if process.poll() is not None
                and (node in self._given_up or not self.engine.restarts)
            ]

    def abandon(self) -> None:
        """The lab ends as a whole."""
        self._over.set()
        self._nudge()
        if self._watcher is not None:
            self._watcher.join(10)
        for process in self.running.values():
            process.close()
        self.running = {}
        for end in self._wakeup or ():
            end.close()

    def _nudge(self) -> None:
        """Let the watching thread look anew at what runs."""
        if self._wakeup is not None:
            self._wakeup[0].send(b"!")

    def _watch(self) -> None:
        """The thread that starts an engine again that has died."""
        assert self._wakeup is not None
        woken = self._wakeup[1]
        woken.setblocking(False)
        while not self._over.is_set():
            with self._lock:
                living = [p for p in self.running.values() if p.poll() is None]
                watched = [os.dup(process.fileno()) for process in living]
            ready = select.poll()
            for fd in (woken.fileno(), *watched):
                ready.register(fd, select.POLLIN)
            ready.poll()
            wire.close_all(watched)
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            for node in list(self.running):
                self._revive(node)

    def _revive(self, node: str) -> None:
        """Remember the death of a node's engine, and start it again unless it was too often."""
        with self._lock:
            process = self.running.get(node)
            code = process.poll() if process is not None else None
            if process is None or code is None or node in self._given_up or self._over.is_set():
                return
            times = self.starts[node] - 1
            again = times < self.engine.restarts
            said = last_lines(self.log(node)).strip().splitlines()[-1:]
            words = "".join(said).strip().partition(": ")[2]
            seconds = time.monotonic() - self._since[node]
            self.deaths.append(Death(node, seconds, code, again, words))
            if not again:
                self._given_up.add(node)
                return
        self._over.wait(_PAUSE_SECONDS * 4**times)
        with self._lock:
            if self.running.get(node) is process and not self._over.is_set():
                process.close()
                with contextlib.suppress(LabError):  # the lab is gone
                    self._start(node)

    # -- looks -------------------------------------------------------------------------------

    def log(self, node: str) -> Path:
        """What the engine of a node says."""
        return self.logs / f"engine-{node}.log"

    def evidence(self, node: str) -> list[Evidence]:
        """What the engine's own looks show of a node."""
        found = []
        for title, argv in self.engine.looks:
            line = argv_for(argv, self.words(node))
            try:
                done = self.run(node, line)
                text = done.out or done.err
            except LabError as error:
                text = f"(not to be had: {error})"
            found.append(Evidence(title, node, " ".join(line), text))
        return found

    def command_line(self) -> str:
        """The engine's command line, as on the first node."""
        node = next(iter(self.plane.nodes))
        return " ".join(argv_for(self.engine.argv, self.words(node)))


def account_token(api: Api, namespace: str, name: str, seconds: int = _TOKEN_SECONDS) -> str:
    """A token of a service account, for this many seconds."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    answer = api.request("POST", path("ServiceAccount", namespace, name) + "/token", body)
    return str(answer["status"]["token"])


def filled(value: Any, words: Mapping[str, str]) -> Any:
    """Text, or all texts of a manifest, with placeholders filled in."""
    if isinstance(value, str):
        return argv_for([value], words)[0]
    if isinstance(value, Mapping):
        return {key: filled(one, words) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, words) for one in value]
    return value
