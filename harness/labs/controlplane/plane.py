"""A Kubernetes control plane as processes of the embedded lab: up in seconds, gone with the lab."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.labs.base import LabError
from harness.labs.cluster.api import Api, ApiError, path
from harness.labs.controlplane import access, programs
from harness.labs.controlplane.binaries import Binaries
from harness.labs.controlplane.dialer import Dialer
from harness.labs.controlplane.identity import Authority, Tokens, signing_key
from harness.labs.controlplane.programs import HOME, Settings
from harness.labs.netns import addresses as ip
from harness.labs.netns.client import Holder, Process
from harness.labs.netns.topology import node_box
from harness.model.world import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_SECONDS = 120.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_LOG_LINES = 15
ADMIN = "netpol-admin"


@dataclass(slots=True)
class _Program:
    name: str
    node: str
    log: Path
    process: Process
    expected: bool = False  # its end is wanted

    @property
    def title(self) -> str:
        return f"{self.name} on {self.node}"


@dataclass(slots=True)
class Phases:
    """How long each phase of a start took, in seconds, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - started


class ControlPlane:
    """etcd, API server, controller manager, scheduler on one node, and kube-proxies on all.

    Construct with boxes of the nodes made, then :meth:`start`. ``logs`` is the folder for what
    the programs say. Every program is watched: when one ends that nobody has asked to,
    :meth:`check` raises from then on, with its last lines, and ``on_death`` is called.
    """

    def __init__(
        self,
        holder: Holder,
        nodes: Sequence[Node],
        binaries: Binaries,
        *,
        families: Sequence[int] = (4,),
        logs: Path,
        on_death: Callable[[LabError], None] = lambda _: None,
    ) -> None:
        self.holder = holder
        self.nodes = {node.name: node for node in nodes}
        self.node = nodes[0]
        self.settings = Settings(binaries, self.node.ips[0], tuple(families))
        self.logs = logs
        self.phases = Phases()
        self.authority = Authority()
        self.tokens = Tokens()
        self.dialer = Dialer(holder)
        self._on_death = on_death
        self._programs: list[_Program] = []
        self._fault: LabError | None = None
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._watcher = threading.Thread(target=self._watch, name="control-plane", daemon=True)
        self._watcher.start()
        self.admin_token = self.tokens.add(ADMIN, "system:masters")
        self.node_tokens = {
            name: self.tokens.add(f"system:node:{name}", "system:nodes") for name in self.nodes
        }

    # -- start and stop ----------------------------------------------------------------------

    def start(self) -> None:
        """Bring it up; returns when the API server serves. Raises LabError."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.phases("etcd started"):
            self._spawn("etcd", programs.etcd(self.settings))
        with self.phases("identities"):
            self._write_files()
        with self.phases("API server ready"):
            self._spawn("kube-apiserver", programs.kube_apiserver(self.settings))
            self._wait_ready()
        with self.phases("controllers started"):
            self._spawn("kube-controller-manager", programs.kube_controller_manager(self.settings))
            self._spawn("kube-scheduler", programs.kube_scheduler(self.settings))

    def start_proxies(self, mode: str) -> None:
        """kube-proxy on each node; ``mode`` is ``iptables`` or ``nftables``."""
        for name in self.nodes:
            self._spawn("kube-proxy", programs.kube_proxy(self.settings, name, mode), name)

    def stop(self) -> None:
        """End the programs, the API server before etcd: without a store its end takes long."""
        with self._lock:
            programs_ = list(self._programs)
            for program in programs_:
                program.expected = True
        etcd = [program for program in programs_ if program.name == "etcd"]
        others = [program for program in programs_ if program.name != "etcd"]
        for group in (others, etcd):
            for program in group:
                with contextlib.suppress(LabError):
                    program.process.signal(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_SECONDS
            for program in group:
                with contextlib.suppress(LabError):
                    program.process.wait(max(0.0, deadline - time.monotonic()))
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything where the lab is ended as a whole: the kernel ends the programs."""
        with self._lock:
            for program in self._programs:
                program.expected = True
        self._wake.send(b"q")
        self._watcher.join(10)
        for program in self._programs:
            program.process.close()
        self.dialer.close()
        for one in (self._wake, self._woken, self._selector):
            one.close()

    def check(self) -> None:
        """Raises LabError if a program has ended that should run, with its last lines."""
        if self._fault is not None:
            raise self._fault

    # -- ways in -----------------------------------------------------------------------------

    def api(self, token: str = "") -> Api:
        """The API as the user of this token (as cluster administrator if none is given)."""
        return self._api(token or self.admin_token, self.check)

    def _api(self, token: str, check: Callable[[], None] | None = None) -> Api:
        client = access.client(self.settings.server, self.authority.certificate, token, self.dial)
        return Api(client, check=check, dial=self.dial)

    def dial(self) -> socket.socket:
        """A connection to the API server from its own node. Raises OSError."""
        return self.dialer.connect(self.node.name, self.settings.address, programs.PORT)

    def kubeconfig(self, server: str = "", token: str = "") -> str:
        """Text of a kubeconfig; inside of the lab if no other ``server`` is given."""
        return access.kubeconfig(
            server or self.settings.server, self.authority.certificate, token or self.admin_token
        )

    # -- programs ----------------------------------------------------------------------------

    def process(self, name: str, node: str = "") -> Process:
        """The running process of a program (for tests that stop or kill it)."""
        node = node or self.node.name
        return next(
            p.process for p in reversed(self._programs) if p.name == name and p.node == node
        )

    def expect_end(self, name: str, node: str = "") -> None:
        """Take the end of a program as wanted from now on."""
        process = self.process(name, node)
        with self._lock:
            for program in self._programs:
                if program.process is process:
                    program.expected = True

    def restart(self, name: str) -> None:
        """Start a program of the control plane again that has ended as expected."""
        argv = {
            "etcd": programs.etcd,
            "kube-apiserver": programs.kube_apiserver,
            "kube-controller-manager": programs.kube_controller_manager,
            "kube-scheduler": programs.kube_scheduler,
        }[name](self.settings)
        self._spawn(name, argv)
        if name == "kube-apiserver":
            self._wait_ready()

    def _spawn(self, name: str, argv: Sequence[str], node: str = "") -> None:
        node = node or self.node.name
        log = self.logs / (f"{name}.log" if name != "kube-proxy" else f"{name}-{node}.log")
        with log.open("ab") as out, open(os.devnull, "rb") as null:
            process = self.holder.spawn(
                node_box(node),
                argv,
                stdin=null.fileno(),
                stdout=out.fileno(),
                stderr=out.fileno(),
                cwd="/run",
            )
        with self._lock:
            self._programs.append(_Program(name, node, log, process))
        self._wake.send(b"+")

    def _watch(self) -> None:
        """The thread that notices ends."""
        known: set[int] = set()
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    if b"q" in self._woken.recv(64):
                        return
                    continue
                self._selector.unregister(key.fileobj)
                self._ended(key.data)
            with self._lock:
                for program in self._programs:
                    if id(program) not in known:
                        known.add(id(program))
                        self._selector.register(
                            program.process.fileno(), selectors.EVENT_READ, program
                        )

    def _ended(self, program: _Program) -> None:
        with self._lock:
            if program.expected or self._fault is not None:
                return
            self._fault = self._obituary(program)
        self._on_death(self._fault)

    def _obituary(self, program: _Program) -> LabError:
        code = program.process.poll()
        how = (
            f"was ended by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
        )
        return LabError(
            f"{program.title} {how}: the lab's cluster cannot be trusted from here on",
            hint=f"its whole log is {program.log}",
            detail=last_lines(program.log),
        )

    # -- start, in detail --------------------------------------------------------------------

    def _write_files(self) -> None:
        settings = self.settings
        addresses = [address for node in (self.node,) for address in node.ips]
        addresses += [ip.at(ip.SERVICE_CIDRS[family], 1) for family in settings.families]
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names += [f"kubernetes.default.svc.{programs.DOMAIN}", "localhost", self.node.name]
        serving = self.authority.issue(
            "kube-apiserver", names=names, addresses=[*addresses, "127.0.0.1", "::1"]
        )
        caller = self.authority.issue("kube-apiserver-kubelet", organization="system:masters")
        accounts = signing_key()
        files = {
            "ca.crt": self.authority.certificate,
            "apiserver.crt": serving.certificate,
            "apiserver.key": serving.key,
            "apiserver-kubelet.crt": caller.certificate,
            "apiserver-kubelet.key": caller.key,
            "sa.key": accounts.key,
            "sa.pub": accounts.certificate,
        }
        for who, user in programs.component_users():
            files[f"{who}.kubeconfig"] = self.kubeconfig(token=self.tokens.add(user))
        files["tokens.csv"] = self.tokens.text()
        for name, text in files.items():
            self.holder.request("write", path=f"{HOME}/{name}", text=text)

    def wait_for_controllers(self) -> None:
        """Until the controller manager works. A node that is there before it is looked at by the
        controllers of nodes and of pod ranges while both begin; see :meth:`HollowNode.register`.
        Raises LabError.
        """
        account = path("ServiceAccount", "default", "default")
        self._wait_for(account, "kube-controller-manager", "has not begun to work")

    def _wait_ready(self) -> None:
        self._wait_for("/readyz", "kube-apiserver", "is not ready")

    def _wait_for(self, where: str, program: str, problem: str) -> None:
        """Until the API server has what is asked for."""
        api = self._api(self.admin_token)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self.check()
            try:
                api.text(where, timeout=5)
                return
            except ApiError as error:
                if time.monotonic() > deadline:
                    log = self.logs / f"{program}.log"
                    raise LabError(
                        f"{program} {problem} after {READY_SECONDS:g} s: {error.message}",
                        hint=f"its whole log is {log}",
                        detail=last_lines(log),
                    ) from None
            time.sleep(_POLL_SECONDS)


def last_lines(log: Path) -> str:
    """The end of a log, for errors."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 65536))
        lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {log.stem}: {line}" for line in lines[-_LOG_LINES:])
    return ""
