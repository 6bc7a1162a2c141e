"""What happens in a child of the holder before it runs something: namespaces and their furniture.

All of it runs between fork and exec, in a single thread; failures are :class:`OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any, NoReturn

from harness.labs.netns import syscalls as sys_
from harness.labs.netns import wire

RUN = "/run/netpol"
"""The lab's own files, on a tmpfs that only the lab's processes see."""
KINDS = (
    ("net", sys_.CLONE_NEWNET),
    ("uts", sys_.CLONE_NEWUTS),
    ("mnt", sys_.CLONE_NEWNS),
)
"""The namespaces of a box, in the order in which they are entered."""

Spec = dict[str, Any]
"""A box to be made.

``name``, ``hostname``; ``net``: box whose network namespace it shares (absent: a new one);
``netns``: name of its network namespace below /run/netns; ``own_run``: a /run of its own;
``tmpfs``: directories that get an empty file system of their own;
``files``: path -> text (seen in this box alone, unless below :data:`RUN`); ``sysctls``: list of
[path below /proc/sys, value]; ``setup``: list of [argv, standard input], run in turn; ``argv``,
``env``: a process that stays; ``ready``: what it says on standard error once it serves.
"""


def directory(box: str) -> str:
    """Where a box's files are kept; taken away with it."""
    return f"{RUN}/boxes/{box.replace('/', '_')}"


def furnish(spec: Spec, shared_net: int | None, report: socket.socket) -> None:
    """Make the namespaces of a box, furnish them, send their descriptors (order of KINDS)."""
    if shared_net is not None:
        sys_.setns(shared_net, sys_.CLONE_NEWNET)
    own = sys_.CLONE_NEWNS | sys_.CLONE_NEWUTS
    sys_.unshare(own if shared_net is not None else own | sys_.CLONE_NEWNET)
    sys_.sethostname(spec["hostname"])
    for path, value in spec.get("sysctls", ()):
        if os.path.exists(f"/proc/sys/{path}") or not path.startswith("net/ipv6/"):
            put(f"/proc/sys/{path}", value)  # a kernel without IPv6 has none of it to switch off
    for argv, text in spec.get("setup", ()):
        _run(argv, text)
    if spec.get("own_run"):
        _own_run()
    for path in spec.get("tmpfs", ()):
        sys_.mount("tmpfs", path, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=1777")
    put_files(spec["name"], spec.get("files", {}))
    fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind, _ in KINDS]
    wire.send(report, {}, fds)


def put_files(box: str, files: dict[str, str]) -> None:
    """Give a box files of its own, wherever they belong; what was there is covered, not changed."""
    for path, text in files.items():
        if path.startswith(RUN + "/"):
            replace(path, text)
            continue
        target = os.path.realpath(path)
        if not os.path.exists(target):
            _make_room(os.path.dirname(target))
            put(target, "")
        source = f"{directory(box)}/{path.strip('/').replace('/', '-')}"
        if os.path.exists(source) and os.path.samefile(source, target):
            put(source, text)  # it is there already
            continue
        replace(source, text)
        sys_.mount(source, target, flags=sys_.MS_BIND)


def _make_room(wanted: str) -> None:
    """Make a directory that can be written to, without touching the machine's own."""
    known = wanted
    while not os.path.isdir(known):
        known = os.path.dirname(known)
    if known == "/":
        raise OSError(errno.EROFS, f"{wanted} has no parent directory on this machine")
    if os.stat(known).st_dev not in (os.stat(RUN).st_dev, os.stat("/run").st_dev):
        _cover(known)
    os.makedirs(wanted, exist_ok=True)


def _cover(path: str) -> None:
    """Put a fresh file system over a directory, with links to all that was in it."""
    below = f"{RUN}/covered/{os.getpid()}{path.replace('/', '-')}"
    os.makedirs(below, exist_ok=True)
    sys_.mount(path, below, flags=sys_.MS_BIND | sys_.MS_REC)
    entries = os.listdir(below)
    # A bind of a directory of the lab's own tmpfs: one file system to recognise, nothing to size.
    fresh = f"{below}.new"
    os.makedirs(fresh)
    for entry in entries:
        os.symlink(f"{below}/{entry}", f"{fresh}/{entry}")
    sys_.mount(fresh, path, flags=sys_.MS_BIND)


def _own_run() -> None:
    held = os.open(RUN, os.O_PATH)
    sys_.mount("tmpfs", "/run", "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=755")
    for path in (RUN, "/run/lock", "/run/tmp"):
        os.makedirs(path)
    sys_.mount(f"/proc/self/fd/{held}", RUN, flags=sys_.MS_BIND)
    os.close(held)


def name_netns(fd: int, name: str) -> None:
    """Give a network namespace a name that ``ip`` knows it by."""
    path = f"/run/netns/{name}"
    put(path, "")
    sys_.mount(f"/proc/self/fd/{fd}", path, flags=sys_.MS_BIND)


def put(path: str, text: str) -> None:
    """Write a file (the whole of it in one write, as /proc wants it)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def replace(path: str, text: str) -> None:
    """Write a file so that readers see the old one or the new one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    put(path + ".new", text)
    os.rename(path + ".new", path)


def remove_tree(path: str) -> None:
    """Take a directory of the lab's away."""
    for parent, directories, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(f"{parent}/{name}")
        for name in directories:
            os.rmdir(f"{parent}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def say(line: str) -> None:
    """One line to standard error, whatever became of it."""
    with contextlib.suppress(OSError):
        os.write(2, (line + "\n").encode())


def run_for_good(argv: list[str], env: dict[str, str] | None) -> NoReturn:
    """Become another program; as in a shell, 127 is a program that is not there."""
    try:
        os.execvpe(argv[0], argv, {**os.environ, **(env or {})})  # noqa: S606 - an argv list
    except OSError as error:
        say(f"{argv[0]}: {error.strerror}")
    os._exit(127)


def _run(argv: list[str], text: str) -> None:
    """Run a short command with ``text`` as its input; raise with what it complained of."""
    standard_input, output = os.memfd_create("input"), os.memfd_create("output")
    try:
        put(f"/proc/self/fd/{standard_input}", text)
        actions = [
            (os.POSIX_SPAWN_DUP2, standard_input, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        complaint = os.pread(output, 4096, 0).decode(errors="replace").strip()
    finally:
        wire.close_all([standard_input, output])
    if code != 0:
        raise OSError(errno.EIO, f"{' '.join(argv)} ended with {code}: {complaint}")
