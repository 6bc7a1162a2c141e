"""The container runtime under kind: Docker, nerdctl or Podman, with the little that is asked of it.

kind's nodes are containers, so what has to be done on a node itself goes through the runtime.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.labs.base import LabError
from harness.labs.kind import command
from harness.labs.kind.command import CommandError, Done

#: In the order in which kind looks for them itself.
NAMES = ("docker", "nerdctl", "podman")
#: kind's own variable, which it obeys and so do we.
CHOICE = "KIND_EXPERIMENTAL_PROVIDER"
CLUSTER_LABEL = "io.x-k8s.kind.cluster"

_ASK_SECONDS = 20.0
_EXEC_SECONDS = 60.0
_IMAGE_SECONDS = 600.0


class Runtime:
    """One runtime, by its name; ``path`` is the program."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Runtime:
        """The first that answers, or the one that kind was told to take. Raises LabError with what
        mends it."""
        environ = os.environ if environ is None else environ
        chosen = environ.get(CHOICE, "")
        names = [chosen] if chosen in NAMES else list(NAMES)
        there = [(name, path) for name in names if (path := shutil.which(name))]
        if not there:
            which = f"no {chosen}" if chosen in NAMES else "neither docker nor nerdctl nor podman"
            raise LabError(
                f"kind needs a container runtime, and there is {which} on PATH",
                hint="install Docker, Podman or nerdctl"
                + (f", or unset {CHOICE}" if chosen in NAMES else ""),
            )
        troubles = []
        for name, path in there:
            runtime = cls(name, path)
            try:
                runtime.run("info", seconds=_ASK_SECONDS)
            except CommandError as error:
                troubles.append((runtime, error))
            else:
                return runtime
        first, trouble = troubles[0]
        raise first.unwell(trouble)

    def unwell(self, error: CommandError) -> LabError:
        """Why a runtime that is there does not answer, and what mends it."""
        text = error.text.lower()
        if "permission denied" in text:
            user = os.environ.get("USER") or str(os.getuid())
            message = f"this user may not speak to {self.name}"
            hint = (
                f"usermod -aG docker {user}, and log in again"
                if self.name == "docker"
                else f"run {self.name} rootless, or as root"
            )
        elif error.code is None:
            message, hint = f"{self.name} does not answer: {error.message}", f"restart {self.name}"
        else:
            message = f"{self.name} does not answer: {command.cause(error.text)}"
            hint = f"start it: systemctl start {self.name}"
        return LabError(message, hint=hint, detail=error.detail)

    def run(
        self,
        *argv: str,
        seconds: float = _ASK_SECONDS,
        stdin: str | None = None,
        check: bool = True,
    ) -> Done:
        """Run the runtime's program. Raises CommandError."""
        return command.run([self.path, *argv], seconds=seconds, stdin=stdin, check=check)

    # -- nodes -------------------------------------------------------------------------------

    def nodes(self, cluster: str) -> list[str]:
        """The containers of a cluster, also those that are stopped."""
        chosen = f"label={CLUSTER_LABEL}={cluster}"
        done = self.run("ps", "-a", "--filter", chosen, "--format", "{{.Names}}")
        return sorted(line.strip() for line in done.out.splitlines() if line.strip())

    def exec(
        self,
        node: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        seconds: float = _EXEC_SECONDS,
        check: bool = True,
    ) -> Done:
        """Run a command on a node."""
        flags = ["-i"] if stdin is not None else []
        words = ["exec", *flags, node, *argv]
        return self.run(*words, stdin=stdin, seconds=seconds, check=check)

    def copy(self, source: Path, node: str, target: str) -> None:
        """Copy a file of this machine to a node, with its mode."""
        self.run("cp", str(source), f"{node}:{target}", seconds=_EXEC_SECONDS)

    # -- images ------------------------------------------------------------------------------

    def has_image(self, name: str) -> bool:
        """Whether an image is in the runtime's own store."""
        return self.run("image", "inspect", name, check=False).code == 0

    def save_image(self, name: str, file: Path) -> None:
        """Write an image to an archive."""
        self.run("save", "-o", str(file), name, seconds=_IMAGE_SECONDS)

    def load_image(self, file: Path) -> None:
        """Take the images of an archive into the runtime's own store."""
        self.run("load", "-i", str(file), seconds=_IMAGE_SECONDS)

    def cgroups(self) -> str:
        """The version of cgroups under its containers, ``1`` or ``2``; empty where it tells none.
        It may run on another machine than this."""
        wanted = "{{.Host.CgroupsVersion}}" if self.name == "podman" else "{{.CgroupVersion}}"
        done = self.run("info", "--format", wanted, check=False)
        found = done.out.strip().removeprefix("v")
        return found if done.code == 0 and found in ("1", "2") else ""

    def root(self) -> Path | None:
        """Where it keeps containers on this machine, if it says so and that is here."""
        formats = {"docker": "{{.DockerRootDir}}", "podman": "{{.Store.GraphRoot}}"}
        wanted = formats.get(self.name)
        if wanted is None:
            return None
        done = self.run("info", "--format", wanted, check=False)
        found = Path(done.out.strip() or "/nowhere")
        return found if done.code == 0 and found.is_dir() else None
