"""The lab's side of the holder: requests, and processes started in boxes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.labs.base import LabError
from harness.labs.netns import wire

_ROOT = str(Path(__file__).resolve().parents[3])
_START = "import sys; sys.path.insert(0, sys.argv.pop(3)); " + (
    "from harness.labs.netns.holder import main; main()"
)
_ANSWER_SECONDS = 60.0


class Process:
    """A process in a box. ``fileno`` becomes readable when it has ended."""

    def __init__(self, holder: Holder, pid: int, argv: Sequence[str], status: int) -> None:
        self._holder = holder
        self._status = status
        self._code: int | None = None
        self.pid = pid
        self.argv = tuple(argv)

    def fileno(self) -> int:
        return self._status

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or None while it runs."""
        if self._code is None and self._status >= 0:
            with contextlib.suppress(BlockingIOError):
                # Closed without a word: the holder died, and with it the process.
                self._code = int(os.read(self._status, 16) or b"-9")
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for the end. Raises LabError if it takes longer than ``timeout`` seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            selector.select(timeout)
        code = self.poll()
        if code is None:
            raise LabError(f"{self.argv[0]} has not ended after {timeout:g} s")
        return code

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process and to its children."""
        if self.poll() is None:
            self._holder.request("signal", pid=self.pid, signal=int(number))

    def close(self) -> None:
        """Kill it if it runs, and let go of it."""
        with contextlib.suppress(LabError):
            self.signal(signal.SIGKILL)
        fd, self._status = self._status, -1
        if fd >= 0:
            os.close(fd)
        self._code = -signal.SIGKILL if self._code is None else self._code


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended: exit code (negative: the signal) and what it wrote."""

    code: int
    out: str
    err: str


class Holder:
    """The process that holds all namespaces of one lab (:mod:`harness.labs.netns.holder`).

    ``log`` receives what the processes in the boxes complain of. Requests may come from any
    thread. When the holder dies, every request raises LabError.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()  # of what is waited for
        self._sending = threading.Lock()  # apart, so that answers are read while a request is sent
        self._dead = ""
        self._closing = False
        ours, theirs = socket.socketpair()
        with log.open("ab") as stderr, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _START, str(theirs.fileno()), str(os.getpid()), _ROOT],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is the lab's to handle
            )
        self._socket = ours
        self._receiver = wire.Receiver(ours)
        ours.settimeout(_ANSWER_SECONDS)
        greeting: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            while not greeting and self._receiver.read():
                greeting = next(self._receiver.messages(), ({}, []))[0]
        ours.settimeout(None)
        if not greeting.get("ready"):
            self._process.kill()
            self._process.wait()
            ours.close()
            raise LabError(
                "the embedded lab cannot make its namespaces: "
                + greeting.get("error", "its holder process ended at once"),
                hint=namespace_hint(greeting.get("errno", 0)),
                detail=self.complaints(),
            )
        self._reader = threading.Thread(target=self._read, name="netns-holder", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The holder's process id as the caller sees it (its child is PID 1 of the lab)."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._dead

    def complaints(self, lines: int = 20) -> str:
        """The last lines of the lab's log."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def close(self) -> None:
        """End everything. Returns when the processes are gone."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        self._socket.close()

    def request(self, op: str, fds: Sequence[int] = (), **arguments: Any) -> dict[str, Any]:
        """One request and its answer. Raises LabError."""
        return self.finish(self.begin(op, fds, **arguments), op)

    def begin(self, op: str, fds: Sequence[int] = (), **arguments: Any) -> Future[dict[str, Any]]:
        """Send a request; :meth:`finish` takes the answer."""
        future: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        with self._lock:
            if self._dead:
                raise self._lost()
            self._waiting[number] = future
        try:
            with self._sending:
                wire.send(self._socket, {"id": number, "op": op, **arguments}, fds)
        except OSError as error:
            self._dead = self._dead or str(error)
            raise self._lost() from error
        return future

    def finish(self, future: Future[dict[str, Any]], op: str) -> dict[str, Any]:
        try:
            answer = future.result(_ANSWER_SECONDS)
        except TimeoutError:
            raise LabError(
                f"the lab's holder has not answered to {op!r} within {_ANSWER_SECONDS:g} s",
                detail=self.complaints(),
            ) from None
        if "error" in answer:
            raise LabError(f"the lab could not {op}: {answer['error']}", detail=self.complaints())
        return answer

    def make(self, boxes: Sequence[Mapping[str, Any]]) -> None:
        """Make boxes (:data:`furnish.Spec`); returns when their processes serve."""
        answer = self.request("make", boxes=list(boxes))
        if answer["errors"]:
            errors = "; ".join(
                f"{name}: {why.splitlines()[0]}" for name, why in answer["errors"].items()
            )
            raise LabError(f"the lab could not make {errors}", hint=f"all of it is in {self._log}")

    def spawn(
        self,
        box: str,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Process:
        """Start a process in a box. The descriptors stay the caller's to close."""
        status, theirs = os.pipe()
        try:
            answer = self.request(
                "spawn",
                (stdin, stdout, stderr, theirs),
                box=box,
                argv=list(argv),
                env=dict(env or {}),
                cwd=cwd,
            )
        except LabError:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(status, False)
        return Process(self, answer["pid"], argv, status)

    def run(
        self, box: str, argv: Sequence[str], text: str = "", timeout: float = 30.0
    ) -> Completed:
        """Run a command in a box to its end and return what it wrote."""
        pipes = [os.pipe() for _ in range(3)]
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = pipes
        try:
            process = self.spawn(box, argv, stdin=theirs_in, stdout=theirs_out, stderr=theirs_err)
        except LabError:
            wire.close_all([ours_in, ours_out, ours_err])
            raise
        finally:
            wire.close_all([theirs_in, theirs_out, theirs_err])
        try:
            out, err = _converse(ours_in, ours_out, ours_err, text.encode(), timeout)
            return Completed(process.wait(timeout), out.decode(errors="replace"), err)
        finally:
            process.close()

    def _read(self) -> None:
        while self._receiver.read():
            for answer, _ in self._receiver.messages():
                with self._lock:
                    future = self._waiting.pop(answer.pop("id"), None)
                if future:
                    future.set_result(answer)
        with self._lock:
            self._dead = self._dead or ("it was closed" if self._closing else "it died")
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(self._lost())

    def _lost(self) -> LabError:
        return LabError(
            f"the embedded lab is gone: its holder process ({self._process.pid}) does not answer, "
            f"{self._dead}",
            detail="" if self._closing else self.complaints(),
        )


def namespace_hint(number: int) -> str:
    """The step that lets namespaces be made, by the error and by what the machine says."""
    for name, off, value in (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
        ("user/max_net_namespaces", "0", "10000"),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == off:
                return f"as root: sysctl -w {name.replace('/', '.')}={value}"
    if number == errno.ENOSPC:
        return "as root, raise the limits below /proc/sys/user (sysctl -a --pattern '^user.max_')"
    if number in (errno.EPERM, errno.EACCES):
        return (
            "inside a container, start it with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        )
    return "`netpol doctor` says what this machine lacks"


def _converse(
    stdin: int, stdout: int, stderr: int, data: bytes, timeout: float
) -> tuple[bytes, str]:
    """Feed a process and collect what it writes until it has closed both outputs."""
    deadline = time.monotonic() + timeout
    collected = {stdout: bytearray(), stderr: bytearray()}
    open_ = {stdin, stdout, stderr}
    view = memoryview(data)
    try:
        with selectors.DefaultSelector() as selector:
            os.set_blocking(stdin, False)
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            selector.register(stderr, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise LabError(f"a command in the lab has not ended after {timeout:g} s")
                for key, _ in ready:
                    fd = key.fd
                    if fd == stdin:
                        try:
                            view = view[os.write(fd, view[:65536]) :] if view else view
                        except BrokenPipeError:
                            view = memoryview(b"")
                        finished = not view
                    else:
                        chunk = os.read(fd, 65536)
                        collected[fd] += chunk
                        finished = not chunk
                    if finished:
                        selector.unregister(fd)
                        os.close(fd)
                        open_.discard(fd)
    finally:
        wire.close_all(list(open_))
    return bytes(collected[stdout]), collected[stderr].decode(errors="replace")
