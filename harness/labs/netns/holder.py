"""The lab's PID 1: makes namespaces and starts processes in them; when it ends, all of it ends.

Started by :class:`harness.labs.netns.client.Holder` as a process of its own, so that nothing is
unshared in the caller. It knows nothing of nodes, pods or policies. What it makes are *boxes*: a
network, a mount and a UTS namespace under one name, held by descriptors; box ``""`` is its own.

Requests (:mod:`harness.labs.netns.wire`) carry ``id`` and ``op``; the answer carries the ``id``
and the result, or ``error``.

====== ======================================================================= ===============
op     arguments                                                               result
====== ======================================================================= ===============
make   ``boxes``: specifications (:data:`furnish.Spec`), made in parallel      ``errors``
spawn  ``box argv env cwd``; fds: stdin, stdout, stderr, exit status           ``pid``
signal ``pid signal``: to a spawned process and its group
notify ``box signal until``: to a box's process; answers once it says ``until``
write  ``path text``: a file below ``/run`` or ``/proc/sys``
place  ``box files``: files for a box that exists
drop   ``boxes``: kill what runs in them, forget them; answers when all is gone
====== ======================================================================= ===============

The exit status of a spawned process is written to its fourth descriptor as a decimal number
(negative: the signal), which is then closed.

Little is imported here, because the start of every lab waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from harness.labs.netns import furnish, wire
from harness.labs.netns import syscalls as sys_
from harness.labs.netns.boxes import Box, Make, Server
from harness.labs.netns.furnish import RUN, Spec, say

_PARALLEL = 2 * (os.cpu_count() or 1) + 2
_NAMESPACES = (
    sys_.CLONE_NEWUSER
    | sys_.CLONE_NEWNS
    | sys_.CLONE_NEWPID
    | sys_.CLONE_NEWNET
    | sys_.CLONE_NEWIPC
    | sys_.CLONE_NEWUTS
)


def main() -> None:
    """``CONTROL_FD PID_OF_THE_LAB`` are the arguments."""
    control = socket.socket(fileno=int(sys.argv[1]))
    lab = int(sys.argv[2])
    try:
        lab_pidfd = os.pidfd_open(lab)
    except OSError:
        return  # it died while this process was starting
    if os.getppid() != lab:
        return
    # A pod takes four descriptors here; nginx and engines want their own.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        pid, lifeline = _enter_namespaces()
        if pid == 0:
            sys_.die_with_parent(signal.SIGKILL)
            _mount()
    except OSError as error:
        with contextlib.suppress(OSError):
            wire.send(control, {"error": str(error), "errno": error.errno})
        os._exit(1)
    if pid == 0:
        _Holder(control, lab_pidfd, lifeline).serve()
    # Outside of the PID namespace: wait for PID 1, or end it with the lab.
    control.close()
    select.select([os.pidfd_open(pid), lab_pidfd], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _enter_namespaces() -> tuple[int, int]:
    """Fork PID 1 of new namespaces; it gets the end of a pipe that closes with its parent."""
    uid, gid = os.getuid(), os.getgid()
    sys_.unshare(_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        furnish.put(f"/proc/self/{name}", text)
    lifeline, held = os.pipe()
    pid = os.fork()
    os.close(lifeline if pid else held)
    return pid, lifeline


def _mount() -> None:
    sys_.mount("none", "/", flags=sys_.MS_REC | sys_.MS_PRIVATE)
    flags = sys_.MS_NOSUID | sys_.MS_NODEV
    sys_.mount("proc", "/proc", "proc", flags | sys_.MS_NOEXEC)
    sys_.mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
    with contextlib.suppress(OSError):  # so that /sys/class/net shows the lab's links
        sys_.mount("sysfs", "/sys", "sysfs", flags | sys_.MS_NOEXEC)
    for path in (f"{RUN}/boxes", f"{RUN}/bin", "/run/netns", "/run/lock", "/run/tmp"):
        os.makedirs(path)
    furnish.name_netns(os.open("/proc/self/ns/net", os.O_RDONLY), "fabric")
    path = os.environ.get("PATH", "/usr/bin:/bin")  # an ordinary user's may lack ip and nft
    os.environ.update(PATH=f"{path}:/usr/sbin:/sbin", TMPDIR="/run/tmp", HOME="/run")


class _Holder:
    def __init__(self, control: socket.socket, lab: int, lifeline: int) -> None:
        self.control = control
        self.receiver = wire.Receiver(control)
        self.selector = selectors.DefaultSelector()
        self.boxes: dict[str, Box] = {}
        self.servers: dict[int, Server] = {}  # by pid
        self.statuses: dict[int, int] = {}  # pid of a spawned process -> descriptor for its end
        self.queue: deque[tuple[Make, Spec]] = deque()
        self.in_work = 0
        self.drops: list[tuple[int, list[Box]]] = []
        self.child_ended, wakeup = socket.socketpair()
        self.child_ended.setblocking(False)
        wakeup.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)
        self._on(self.child_ended.fileno(), self._reap)
        self._on(control.fileno(), self._take_requests)
        self._on(lab, self._end)
        self._on(lifeline, self._end)

    def _on(self, fd: int, call: Callable[[], None]) -> None:
        self.selector.register(fd, selectors.EVENT_READ, call)

    def serve(self) -> NoReturn:
        wire.send(self.control, {"ready": True})
        while True:
            for key, _ in self.selector.select():
                key.data()

    def _end(self) -> NoReturn:
        os._exit(0)  # and the kernel kills everything that is left in the PID namespace

    def _answer(self, request: int, **answer: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            wire.send(self.control, {"id": request, **answer})

    def _take_requests(self) -> None:
        alive = self.receiver.read()
        for message, fds in self.receiver.messages():
            request = message.pop("id")
            try:
                getattr(self, "_op_" + message.pop("op"))(request, fds, **message)
            except OSError as error:
                self._answer(request, error=str(error))
            finally:
                wire.close_all(fds)
        if not alive:
            self._end()

    # -- processes ---------------------------------------------------------------------------

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
        return pid

    def _box(self, name: str) -> Box:
        if name not in self.boxes:
            raise OSError(errno.ENOENT, f"there is no {name}")
        return self.boxes[name]

    def _op_spawn(
        self,
        request: int,
        fds: list[int],
        box: str,
        argv: list[str],
        env: dict[str, str],
        cwd: str | None,
    ) -> None:
        home = self._box(box) if box else None
        pid = self._fork()
        if pid == 0:
            try:
                for target, fd in enumerate(fds[:3]):
                    os.dup2(fd, target)
                if home:
                    home.enter()
                if cwd:
                    os.chdir(cwd)
            except OSError as error:
                say(f"{argv[0]}: {error}")
                os._exit(126)
            furnish.run_for_good(argv, env)
        self.statuses[pid] = os.dup(fds[3])
        self._answer(request, pid=pid)

    # The argument is named as in the message.
    def _op_signal(self, request: int, _: list[int], pid: int, signal: int) -> None:
        if pid in self.statuses:  # not yet reaped, so the number is still its own
            try:
                os.killpg(pid, signal)
            except ProcessLookupError:  # just forked, it has no group of its own yet
                os.kill(pid, signal)
        self._answer(request)

    def _op_notify(self, request: int, _: list[int], box: str, signal: int, until: str) -> None:
        server = self._box(box).server
        if server is None or server.code is not None:
            raise OSError(errno.ESRCH, f"nothing runs in {box}")
        server.wait_for(until, lambda error: self._answer(request, **_error(error)))
        os.kill(server.pid, signal)

    def _op_write(self, request: int, _: list[int], path: str, text: str) -> None:
        (furnish.put if path.startswith("/proc/") else furnish.replace)(path, text)
        self._answer(request)

    def _op_place(self, request: int, _: list[int], box: str, files: dict[str, str]) -> None:
        home = self._box(box)
        ours, theirs = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                home.enter()
                furnish.put_files(box, files)
            except OSError as error:
                os.write(theirs, str(error).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as report:
            self._answer(request, **_error(report.read()))

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.child_ended.recv(4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                code = os.waitstatus_to_exitcode(status)
                if pid in self.statuses:
                    fd = self.statuses.pop(pid)
                    with contextlib.suppress(OSError):
                        os.write(fd, b"%d" % code)
                    os.close(fd)
                if pid in self.servers:
                    self.servers.pop(pid).ended(code)
        self._sweep()

    # -- boxes -------------------------------------------------------------------------------

    def _op_make(self, request: int, _: list[int], boxes: list[Spec]) -> None:
        make = Make(request, len(boxes))
        self.queue.extend((make, spec) for spec in boxes)
        if not boxes:
            self._answer(request, errors={})
        self._make_more()

    def _make_more(self) -> None:
        while self.queue and self.in_work < _PARALLEL:
            make, spec = self.queue.popleft()
            self.in_work += 1
            try:
                self._make(make, spec)
            except OSError as error:
                self._made(make, spec["name"], str(error))

    def _made(self, make: Make, name: str, error: str) -> None:
        self.in_work -= 1
        make.left -= 1
        if error:
            make.errors[name] = error
        if make.left == 0:
            self._answer(make.request, errors=make.errors)
        self._make_more()

    def _make(self, make: Make, spec: Spec) -> None:
        """Fork the child that furnishes the box and becomes its server, if it has one."""
        name = spec["name"]
        shared = self._box(spec["net"]).fds[0] if "net" in spec else None
        if name in self.boxes:
            raise OSError(errno.EEXIST, "it exists already")
        ours, theirs = socket.socketpair()
        said, stderr = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                furnish.furnish(spec, shared, theirs)
            except OSError as error:
                wire.send(theirs, {"error": str(error)})
                os._exit(1)
            if "argv" not in spec:
                os._exit(0)
            null = os.open("/dev/null", os.O_RDWR)
            for target, fd in enumerate((null, null, stderr)):
                os.dup2(fd, target)
            furnish.run_for_good(spec["argv"], spec.get("env"))
        theirs.close()
        os.close(stderr)
        receiver = wire.Receiver(ours)

        def furnished() -> None:
            receiver.read()
            answer, fds = next(receiver.messages(), ({"error": "its process ended early"}, []))
            self.selector.unregister(ours)
            ours.close()
            if "error" in answer:
                os.close(said)
                self._made(make, name, answer["error"])
                return
            box = self.boxes[name] = Box(fds, shared is not None)
            if "netns" in spec:
                furnish.name_netns(fds[0], spec["netns"])
            if "argv" not in spec:
                os.close(said)
                self._made(make, name, "")
                return
            self._attend(box, Server(name, pid, said))
            assert box.server is not None
            if "ready" in spec:
                box.server.wait_for(spec["ready"], lambda error: self._made(make, name, error))
            else:
                self._made(make, name, "")

        self._on(ours.fileno(), furnished)

    def _attend(self, box: Box, server: Server) -> None:
        box.server = self.servers[server.pid] = server

        def hear() -> None:
            if not server.hear():
                self.selector.unregister(server.fd)
                os.close(server.fd)
                server.fd = -1

        self._on(server.fd, hear)

    def _op_drop(self, request: int, _: list[int], boxes: list[str]) -> None:
        dropped = [self.boxes.pop(name) for name in boxes if name in self.boxes]
        for box in dropped:
            if box.server:
                box.server.wanted = False
        for name in boxes:
            furnish.remove_tree(furnish.directory(name))
        self.drops.append((request, dropped))
        self._sweep()

    def _sweep(self) -> None:
        """Kill who lives in dropped boxes; answer the requests whose boxes are empty."""
        if not self.drops:
            return
        tenants: dict[tuple[str, int], list[int]] = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or entry == "1":
                continue
            with contextlib.suppress(OSError):
                for kind in ("net", "mnt"):
                    inode = os.stat(f"/proc/{entry}/ns/{kind}").st_ino
                    tenants.setdefault((kind, inode), []).append(int(entry))
        waiting = []
        for request, boxes in self.drops:
            victims = {pid for box in boxes for key in box.ids() for pid in tenants.get(key, ())}
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if victims:
                waiting.append((request, boxes))
                continue
            # Only now: a namespace that is let go may lend its number to the next one.
            for box in boxes:
                wire.close_all(box.fds)
            self._answer(request)
        self.drops = waiting


def _error(text: str) -> dict[str, str]:
    return {"error": text} if text else {}
