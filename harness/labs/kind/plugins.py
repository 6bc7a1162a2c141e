"""CNI plugins that kind's node image lacks: found on this machine, or built from their module."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.labs import folders
from harness.labs.base import LabError
from harness.labs.controlplane.build import go_command
from harness.labs.kind import command
from harness.labs.kind.command import CommandError

#: Where distributions and the project's own archives put them.
FOLDERS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
NODE_FOLDER = "/opt/cni/bin"
#: The same version as in kind's node image.
VERSION = "v1.9.1"
MODULE = "github.com/containernetworking/plugins/plugins/main"
_GO = (1, 24)
_BUILD_SECONDS = 600.0


def find(
    name: str,
    *,
    beside: Sequence[Path] = (),
    offline: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """A plugin's program for this machine's processor. Raises LabError with what brings one.

    Looked for in ``beside``, where distributions have them, and in the cache; else built, which
    takes half a minute and the network, and kept there.
    """
    cached = folders.cache() / "cni-plugins" / VERSION
    for folder in (*beside, *map(Path, FOLDERS), cached):
        if os.access(folder / name, os.X_OK) and (folder / name).is_file():
            return folder / name
    what = f"CNI plugin {name}, which kind's nodes lack"
    hint = f"apt-get install containernetworking-plugins, or put {name} into {FOLDERS[0]}"
    if offline:
        raise LabError(f"{what}, is not on this machine", hint=hint)
    say(f"building CNI plugin {name} {VERSION}")
    try:
        cached.mkdir(parents=True, exist_ok=True)
        command.run(
            [go_command(_GO, say), "install", f"{MODULE}/{name}@{VERSION}"],
            seconds=_BUILD_SECONDS,
            env={"GOBIN": str(cached), "CGO_ENABLED": "0", "GOFLAGS": ""},
        )
    except (CommandError, OSError) as error:
        why = error.message if isinstance(error, CommandError) else str(error)
        raise LabError(f"{what}, cannot be built: {why}", hint=hint) from None
    return cached / name
