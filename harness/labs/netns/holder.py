"""The lab's PID 1: makes namespaces and starts processes in them; when it ends, all of it ends.

Started by :class:`harness.labs.netns.client.Holder` as a process of its own, so that nothing is
unshared in the caller. It knows nothing of nodes, pods or policies. What it makes are *boxes*: a
network, a mount and a UTS namespace under one name, held by descriptors; box ``""`` is its own.

Requests (:mod:`harness.labs.netns.wire`) carry ``id`` and ``op``; the answer carries the ``id``
and either the result or ``error``.

====== ========================================================================= =================
make   ``boxes``: list of box specifications (:class:`_Spec`), made in parallel  ``pids``, ``errors``
spawn  ``box argv env cwd``; fds: stdin, stdout, stderr, exit status             ``pid``
write  ``path text``: a file below ``/run`` or ``/proc/sys``                      –
signal ``pid signal``: to the process and its group                              –
drop   ``boxes``: kill what runs in them, forget them; answers when all is gone  –
====== ========================================================================= =================

The exit status of a spawned process is written to its fourth descriptor as a decimal number
(negative: the signal), which is then closed.

Nothing is imported here that the start would have to wait for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from harness.labs.netns import syscalls as sys_
from harness.labs.netns import wire

RUN = "/run/netpol"
"""The lab's own files, on a tmpfs that only the lab's processes see."""

_PARALLEL = 2 * (os.cpu_count() or 1) + 2
_OWN = sys_.CLONE_NEWNS | sys_.CLONE_NEWUTS
_ALL = (
    sys_.CLONE_NEWUSER
    | sys_.CLONE_NEWNS
    | sys_.CLONE_NEWPID
    | sys_.CLONE_NEWNET
    | sys_.CLONE_NEWIPC
    | sys_.CLONE_NEWUTS
)

_Spec = dict[str, Any]
"""``name``, ``hostname``; ``net``: box whose network namespace is shared (absent: a new one);
``netns``: name to give the network namespace below /run/netns; ``tmpfs``: directories that get a
fresh file system; ``files``: path -> text, seen in this box only if outside of RUN; ``sysctls``: list of [path below /proc/sys, value]; ``setup``: list of [argv, stdin text],
run one after the other; ``argv``, ``env``: a process to leave running; ``ready``: text on its
standard error that says that it serves."""


def main() -> None:
    """``python -c … CONTROL_FD PID_OF_THE_LAB``"""
    control = socket.socket(fileno=int(sys.argv[1]))
    lab = int(sys.argv[2])
    try:
        lab_pidfd = os.pidfd_open(lab)
    except OSError:
        return  # it died while this process was starting
    if os.getppid() != lab:
        return
    try:
        pid, lifeline = _enter_namespaces()
        if pid == 0:
            sys_.die_with_parent(signal.SIGKILL)
            _mounts()
    except OSError as error:
        with contextlib.suppress(OSError):
            wire.send(control, {"error": str(error), "errno": error.errno})
        os._exit(1)
    if pid == 0:
        _Holder(control, lab_pidfd, lifeline).serve()
    # Outside of the PID namespace: wait for PID 1, or end it with the lab.
    control.close()
    inner = os.pidfd_open(pid)
    select.select([inner, lab_pidfd], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _enter_namespaces() -> tuple[int, int]:
    """Fork PID 1 of new namespaces; it gets the end of a pipe that closes with its parent."""
    uid, gid = os.getuid(), os.getgid()
    sys_.unshare(_ALL)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        _put(f"/proc/self/{name}", text)
    lifeline, held = os.pipe()
    pid = os.fork()
    os.close(lifeline if pid else held)
    return pid, lifeline


def _mounts() -> None:
    sys_.mount("none", "/", flags=sys_.MS_REC | sys_.MS_PRIVATE)
    flags = sys_.MS_NOSUID | sys_.MS_NODEV
    sys_.mount("proc", "/proc", "proc", flags | sys_.MS_NOEXEC)
    sys_.mount("tmpfs", "/run", "tmpfs", flags, "mode=755")
    with contextlib.suppress(OSError):  # so that /sys/class/net shows the lab's links
        sys_.mount("sysfs", "/sys", "sysfs", flags | sys_.MS_NOEXEC)
    for path in (f"{RUN}/boxes", "/run/netns", "/run/lock", "/run/tmp"):
        os.makedirs(path)
    for tool in ("/usr/sbin", "/sbin"):
        if tool not in os.environ.get("PATH", "").split(":"):
            os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + f":{tool}"
    os.environ["TMPDIR"] = "/run/tmp"


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode()) if len(text) < 4096 else _write_all(fd, text.encode())
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Box:
    """Namespaces held by descriptors. ``ids`` are the inodes that tell who lives in them."""

    def __init__(self, fds: list[int], shares_net: bool) -> None:
        self.net, self.mnt, self.uts = fds
        self.fds = fds
        self.ids = {("mnt", os.fstat(self.mnt).st_ino)}
        if not shares_net:
            self.ids.add(("net", os.fstat(self.net).st_ino))

    def enter(self) -> None:
        sys_.setns(self.net, sys_.CLONE_NEWNET)
        sys_.setns(self.uts, sys_.CLONE_NEWUTS)
        sys_.setns(self.mnt, sys_.CLONE_NEWNS)


class _Making:
    """One ``make`` request under way."""

    def __init__(self, number: int, specs: list[_Spec]) -> None:
        self.number = number
        self.left = len(specs)
        self.pids: dict[str, int] = {}
        self.errors: dict[str, str] = {}


class _Holder:
    def __init__(self, control: socket.socket, lab: int, lifeline: int) -> None:
        self.control = control
        self.receiver = wire.Receiver(control)
        self.selector = selectors.DefaultSelector()
        self.boxes: dict[str, _Box] = {}
        self.status: dict[int, int] = {}  # pid -> descriptor that its exit status goes to
        self.queue: deque[tuple[_Making, _Spec]] = deque()
        self.making = 0
        self.drops: list[tuple[int, set[tuple[str, int]]]] = []
        self.gone: dict[int, Callable[[int], None]] = {}  # pid -> what to do when it has ended
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        self.sockets = (wake, woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self.selector.register(wake, selectors.EVENT_READ, self._reap)
        self.selector.register(control, selectors.EVENT_READ, self._requests)
        for fd in (lab, lifeline):
            self.selector.register(fd, selectors.EVENT_READ, self._end)

    def serve(self) -> NoReturn:
        _name_netns(os.open("/proc/self/ns/net", os.O_RDONLY), "fabric")
        wire.send(self.control, {"ready": True})
        while True:
            for key, _ in self.selector.select():
                key.data()

    def _end(self) -> NoReturn:
        os._exit(0)  # and the kernel kills everything that is left in the PID namespace

    def _requests(self) -> None:
        alive = self.receiver.read()
        for message, fds in self.receiver.messages():
            number = message["id"]
            try:
                answer = getattr(self, "_op_" + message["op"])(number, message, fds)
            except OSError as error:
                answer = {"error": str(error), "errno": error.errno}
            finally:
                wire.close_all(fds)
            if answer is not None:
                wire.send(self.control, {"id": number, **answer})
        if not alive:
            self._end()

    # -- processes ---------------------------------------------------------------------------

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.setsid()
        return pid

    def _op_spawn(self, _: int, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        box = self._box(message["box"])
        pid = self._fork()
        if pid == 0:
            try:
                if box:
                    box.enter()
                for target, fd in enumerate(fds[:3]):
                    os.dup2(fd, target)
                if message.get("cwd"):
                    os.chdir(message["cwd"])
            except OSError as error:
                _say(f"{message['argv'][0]}: {error}")
                os._exit(126)
            _exec(message["argv"], message.get("env"))
        self.status[pid] = os.dup(fds[3])
        return {"pid": pid}

    def _op_signal(self, _: int, message: dict[str, Any], __: list[int]) -> dict[str, Any]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(message["pid"], message["signal"])
        return {}

    def _op_write(self, _: int, message: dict[str, Any], __: list[int]) -> dict[str, Any]:
        path, text = message["path"], message["text"]
        if path.startswith("/proc/"):
            _put(path, text)
        else:
            _replace(path, text)
        return {}

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.sockets[0].recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            if pid in self.status:
                fd = self.status.pop(pid)
                with contextlib.suppress(OSError):
                    os.write(fd, b"%d" % code)
                os.close(fd)
            if pid in self.gone:
                self.gone.pop(pid)(code)
        self._sweep()

    # -- boxes -------------------------------------------------------------------------------

    def _box(self, name: str) -> _Box | None:
        if not name:
            return None
        if name not in self.boxes:
            raise OSError(errno.ENOENT, f"there is no box {name!r}")
        return self.boxes[name]

    def _op_make(self, number: int, message: dict[str, Any], _: list[int]) -> dict[str, Any] | None:
        making = _Making(number, message["boxes"])
        self.queue.extend((making, spec) for spec in message["boxes"])
        self._make_more()
        return None if message["boxes"] else {"pids": {}, "errors": {}}

    def _make_more(self) -> None:
        while self.queue and self.making < _PARALLEL:
            making, spec = self.queue.popleft()
            self.making += 1
            try:
                self._make(making, spec)
            except OSError as error:
                self._made(making, spec["name"], str(error))

    def _made(self, making: _Making, name: str, error: str = "", pid: int = 0) -> None:
        self.making -= 1
        making.left -= 1
        if error:
            making.errors[name] = error
        elif pid:
            making.pids[name] = pid
        if making.left == 0:
            wire.send(
                self.control,
                {"id": making.number, "pids": making.pids, "errors": making.errors},
            )
        self._make_more()

    def _make(self, making: _Making, spec: _Spec) -> None:
        name = spec["name"]
        shared = self._box(spec["net"]) if "net" in spec else None
        ours, theirs = socket.socketpair()
        noise, stderr = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                _furnish(spec, shared, theirs)
                os.dup2(stderr, 2)
            except OSError as error:
                with contextlib.suppress(OSError):
                    wire.send(theirs, {"error": str(error)})
                os._exit(1)
            if "argv" not in spec:
                os._exit(0)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            _exec(spec["argv"], spec.get("env"))
        theirs.close()
        os.close(stderr)
        receiver = wire.Receiver(ours)
        log = _Log(name, noise)

        def furnished() -> None:
            receiver.read()
            answer, fds = next(receiver.messages(), ({"error": "it ended early"}, []))
            self.selector.unregister(ours)
            ours.close()
            if "error" in answer:
                os.close(noise)
                self._made(making, name, answer["error"])
                return
            if name in self.boxes:
                wire.close_all(self.boxes.pop(name).fds)
            self.boxes[name] = _Box(fds, shared is not None)
            if "netns" in spec:
                _name_netns(fds[0], spec["netns"])
            if "argv" not in spec:
                os.close(noise)
                self._made(making, name)
                return
            self.selector.register(noise, selectors.EVENT_READ, heard)
            self.gone[pid] = ended
            if "ready" not in spec:
                log.waiting = False
                self._made(making, name, pid=pid)

        def heard() -> None:
            if not log.read():
                self.selector.unregister(noise)
                os.close(noise)
            if log.waiting and spec["ready"] in log.text:
                log.waiting = False
                self._made(making, name, pid=pid)

        def ended(code: int) -> None:
            log.say(f"{spec['argv'][0]} ended with {code}")
            if log.waiting:
                while log.read():
                    pass
                log.waiting = False
                self._made(making, name, log.text.strip() or f"it ended with {code}")

        self.selector.register(ours, selectors.EVENT_READ, furnished)

    def _op_drop(self, number: int, message: dict[str, Any], _: list[int]) -> None:
        ids: set[tuple[str, int]] = set()
        for name in message["boxes"]:
            box = self.boxes.pop(name, None)
            if box:
                ids |= box.ids
                wire.close_all(box.fds)
        self.drops.append((number, ids))
        self._sweep()

    def _sweep(self) -> None:
        """Kill who lives in dropped boxes; answer the requests whose boxes are empty."""
        if not self.drops:
            return
        homes: dict[tuple[str, int], list[int]] = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or entry == "1":
                continue
            with contextlib.suppress(OSError):
                for kind in ("net", "mnt"):
                    inode = os.stat(f"/proc/{entry}/ns/{kind}").st_ino
                    homes.setdefault((kind, inode), []).append(int(entry))
        waiting = []
        for number, ids in self.drops:
            victims = {pid for key in ids for pid in homes.get(key, ())}
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if victims:
                waiting.append((number, ids))
            else:
                wire.send(self.control, {"id": number})
        self.drops = waiting


class _Log:
    """What a box's process writes to its standard error: on to the lab's log, line by line."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.text = ""
        self.waiting = True
        os.set_blocking(fd, False)

    def read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        text = data.decode(errors="replace")
        if self.waiting:
            self.text += text
        for line in text.splitlines():
            if "[notice]" not in line:
                self.say(line)
        return bool(data)

    def say(self, line: str) -> None:
        _say(f"{self.name}: {line}")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, (line + "\n").encode())


def _furnish(spec: _Spec, shared: _Box | None, report: socket.socket) -> None:
    """In the child: make the namespaces, furnish them, send their descriptors."""
    if shared:
        sys_.setns(shared.net, sys_.CLONE_NEWNET)
    sys_.unshare(_OWN if shared else _OWN | sys_.CLONE_NEWNET)
    sys_.sethostname(spec["hostname"])
    for path in spec.get("tmpfs", ()):
        sys_.mount("tmpfs", path, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=755")
    for path, text in spec.get("files", {}).items():
        if path.startswith(RUN):
            _replace(path, text)
        else:
            _private_file(spec["name"], path, text)
    for path, value in spec.get("sysctls", ()):
        with contextlib.suppress(FileNotFoundError):  # an address family that is not there
            _put(f"/proc/sys/{path}", value)
    for argv, text in spec.get("setup", ()):
        _run(argv, text)
    fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt", "uts")]
    wire.send(report, {}, fds)


def _private_file(box: str, path: str, text: str) -> None:
    """Put a file at ``path`` that only this box sees."""
    target = os.path.realpath(path)
    if not os.path.exists(target):
        if not target.startswith("/run/"):
            raise OSError(errno.ENOENT, f"{path} cannot be given to one box: this machine has none")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _put(target, "")
    source = f"{RUN}/boxes/{box.replace('/', '_')}{path.replace('/', '-')}"
    _replace(source, text)
    sys_.mount(source, target, flags=sys_.MS_BIND)


def _name_netns(fd: int, name: str) -> None:
    """Give a network namespace a name that ``ip`` knows it by."""
    path = f"/run/netns/{name}"
    _put(path, "")
    sys_.mount(f"/proc/self/fd/{fd}", path, flags=sys_.MS_BIND)


def _replace(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _put(path + ".new", text)
    os.rename(path + ".new", path)


def _run(argv: list[str], text: str) -> None:
    """Run a short command with ``text`` as its input; raise with what it complained of."""
    files = []
    for content in (text, ""):
        fd = os.memfd_create("io")
        _write_all(fd, content.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        files.append(fd)
    actions = [(os.POSIX_SPAWN_DUP2, files[0], 0), (os.POSIX_SPAWN_DUP2, files[1], 1)]
    actions.append((os.POSIX_SPAWN_DUP2, files[1], 2))
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os.lseek(files[1], 0, os.SEEK_SET)
    complaint = os.read(files[1], 4096).decode(errors="replace").strip()
    wire.close_all(files)
    if code != 0:
        raise OSError(errno.EIO, f"{' '.join(argv)} ended with {code}: {complaint}")


def _exec(argv: list[str], env: dict[str, str] | None) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, {**os.environ, **(env or {})})
    except OSError as error:
        _say(f"{argv[0]}: {error.strerror}")
    os._exit(127)
