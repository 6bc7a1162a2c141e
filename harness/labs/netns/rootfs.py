"""Runs a program on an image's file system, in a node's namespaces, without root.

The image is the lower layer of an overlay whose upper one lives and dies with the lab, so that
several labs can share it and none changes it. ``/dev``, ``/proc``, ``/sys`` and the node's ``/run``
are those of the node.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.labs.netns import syscalls as sys_
from harness.labs.netns.furnish import RUN, run_for_good, say

_PACKAGES = str(Path(__file__).resolve().parents[3])
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); " + (
    "from harness.labs.netns.rootfs import main; main()"
)
_OLD = ".netpol-old-root"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command(
    root: Path,
    argv: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str],
    binds: Sequence[str] = (),
) -> list[str]:
    """The command line that runs ``argv`` on the file system at ``root``.

    ``name``: who shares an upper layer, which is kept from one command to the next. ``env``: all
    of the program's environment. ``binds``: paths of the node that are seen inside as well.
    """
    told = {"root": str(root), "name": name, "argv": list(argv), "env": dict(env)}
    text = json.dumps({**told, "binds": list(binds)})
    return [sys.executable, "-S", "-c", _START, _PACKAGES, text]


def main() -> None:
    """Become the program; 126 where its file system cannot be made."""
    told = json.loads(sys.argv[1])
    try:
        enter(told["root"], told["name"], told["binds"])
    except OSError as error:
        say(f"the engine's file system cannot be made: {error}")
        os._exit(126)
    os.environ.clear()
    run_for_good(told["argv"], {"PATH": _PATH, **told["env"]})


def enter(root: str, name: str, binds: Sequence[str]) -> None:
    """Move this process onto the file system at ``root``."""
    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount("none", "/", flags=sys_.MS_REC | sys_.MS_PRIVATE)
    home = f"{RUN}/rootfs/{name}"
    upper, work, merged = (f"{home}/{part}" for part in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        os.makedirs(directory, exist_ok=True)
    layers = f"lowerdir={_escaped(root)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    # index=off: a look into a running engine's files shares its upper layer.
    sys_.mount("overlay", merged, "overlay", data=f"{layers},userxattr,index=off")
    old = f"{merged}/{_OLD}"
    os.makedirs(old, exist_ok=True)
    sys_.pivot_root(merged, old)
    os.chdir("/")
    for place in ("dev", "proc", "sys", "run"):
        os.makedirs(f"/{place}", exist_ok=True)
        sys_.mount(f"/{_OLD}/{place}", f"/{place}", flags=sys_.MS_BIND | sys_.MS_REC)
    for path in ("/etc/resolv.conf", "/etc/hosts", *binds):
        _bind(f"/{_OLD}{path}", path)
    sys_.detach(f"/{_OLD}")
    with contextlib.suppress(OSError):
        os.rmdir(f"/{_OLD}")


def _bind(source: str, path: str) -> None:
    """Show a file or a directory of the node's at the same place."""
    target = os.path.realpath(path)
    if target.startswith("/run/"):
        return  # it is the node's already
    if not os.path.exists(source):
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    sys_.mount(source, target, flags=sys_.MS_BIND | sys_.MS_REC)


def _escaped(path: str) -> str:
    """As overlay's options want it: commas and colons part them."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
