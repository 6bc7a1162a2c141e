"""The ``kind`` program: found, its version checked, each of its commands in words for people."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from harness.labs.base import LabError
from harness.labs.kind import command, versions
from harness.labs.kind.command import CommandError, Done
from harness.labs.kind.runtime import CHOICE, Runtime

CREATE_SECONDS = 900.0
"""A node image may have to be pulled first."""
DELETE_SECONDS = 120.0
LOAD_SECONDS = 600.0
LOGS_SECONDS = 180.0
_ASK_SECONDS = 20.0
INSTALL = "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"

# What kind or the runtime says -> what to do about it. The first that is found counts.
_HINTS = (
    (
        "node(s) already exist for a cluster",
        "--lab-reuse takes it as it is; `kind delete cluster --name NAME` ends it, if it is yours",
    ),
    (
        "too many open files",
        "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288",
    ),
    ("no space left on device", "make room where the container runtime keeps its images"),
    ("permission denied", "let this user speak to the container runtime"),
    ("manifest unknown", "no such image is published; --lab-kind-image names another"),
    ("not found", "no such image is published; --lab-kind-image names another"),
    ("failed to pull image", "without a network bring the image along: --lab-images DIR"),
    (
        "could not find a log line that matches",
        "the node did not start: `netpol doctor` tells of the limits that it may have met",
    ),
    (
        "failed to init node with kubeadm",
        "the control plane did not start; the logs that were exported tell why",
    ),
)


class Kind:
    """kind with one runtime. ``version`` is its minor version."""

    def __init__(self, path: str, version: tuple[int, int], runtime: Runtime) -> None:
        self.path = path
        self.version = version
        self.runtime = runtime

    @classmethod
    def find(cls, runtime: Runtime | None = None) -> Kind:
        """kind on PATH, new enough, with a runtime that answers. Raises LabError."""
        oldest = ".".join(map(str, versions.OLDEST))
        path = shutil.which("kind")
        if path is None:
            raise LabError(
                "there is no kind on PATH", hint=f"install kind {oldest} or newer: {INSTALL}"
            )
        said = command.run([path, "version"], seconds=_ASK_SECONDS, check=False).text
        found = versions.of_kind(said)
        if found is None:
            raise LabError(
                f"{path} tells no version of kind, it says: {said[:80]!r}",
                hint=f"install kind {oldest} or newer: {INSTALL}",
            )
        if found < versions.OLDEST:
            raise LabError(
                f"{path} is kind {found[0]}.{found[1]}, which is too old",
                hint=f"install kind {oldest} or newer: {INSTALL}",
            )
        return cls(path, found, runtime or Runtime.find())

    def create(
        self,
        name: str,
        config: Path,
        kubeconfig: Path,
        image: str = "",
        *,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> None:
        """Make a cluster. Its nodes are not yet Ready: with a CNI to come they cannot be.

        Raises CommandError; what was made until then is still there, so that its logs can be had.
        """
        argv = ["create", "cluster", "--name", name, "--config", str(config)]
        argv += ["--kubeconfig", str(kubeconfig), "--retain"]
        argv += ["--image", image] if image else []
        self._run(
            *argv, seconds=CREATE_SECONDS, what=f"cluster {name} could not be made",
            on_line=on_line, on_start=on_start,
        )  # fmt: skip

    def delete(self, name: str, kubeconfig: Path) -> None:
        """Delete a cluster, whole or in parts; one that is not there is no error."""
        argv = ["delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)]
        self._run(*argv, seconds=DELETE_SECONDS, what=f"cluster {name} could not be deleted")

    def clusters(self) -> list[str]:
        """The names of all clusters, whosoever they are."""
        done = self._run("get", "clusters", what="kind's clusters cannot be listed")
        return [line.strip() for line in done.out.splitlines() if line.strip()]

    def export_kubeconfig(self, name: str, kubeconfig: Path) -> None:
        """Write the kubeconfig of a cluster that is there."""
        argv = ["export", "kubeconfig", "--name", name, "--kubeconfig", str(kubeconfig)]
        self._run(*argv, what=f"the kubeconfig of cluster {name} cannot be had")

    def export_logs(self, name: str, directory: Path) -> str:
        """Write the nodes' logs; what kind complains of, if it does: it ends with an error where
        one command on one node fails, with all else written."""
        argv = [self.path, "export", "logs", str(directory), "--name", name]
        done = command.run(argv, seconds=LOGS_SECONDS, env=self._env(), check=False)
        return "" if done.code == 0 else command.cause(done.text)

    def load_archive(self, name: str, archive: Path) -> None:
        """Take the images of an archive into all nodes."""
        argv = ["load", "image-archive", str(archive), "--name", name]
        what = f"{archive} could not be loaded into cluster {name}"
        self._run(*argv, seconds=LOAD_SECONDS, what=what)

    def _env(self) -> dict[str, str]:
        return {CHOICE: self.runtime.name}

    def _run(
        self,
        *argv: str,
        what: str,
        seconds: float = _ASK_SECONDS,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[int], None] | None = None,
    ) -> Done:
        try:
            return command.run(
                [self.path, *argv],
                seconds=seconds,
                env=self._env(),
                on_line=on_line,
                on_start=on_start,
            )
        except CommandError as error:
            said = error.text
            why = _why(said) if error.code is not None else error.message
            hint = next((hint for words, hint in _HINTS if words in said), "")
            raise CommandError(f"{what}: {why}", hint=hint, text=said, code=error.code) from None


def _why(said: str) -> str:
    """kind's error in one line: what it was doing, and the last word of the command that failed."""
    error = command.cause(said)
    doing, ran, _ = error.partition(': command "')
    output = said.partition("Command Output:")[2]
    if ran and output.strip():
        return f"{doing}: {output.strip().splitlines()[-1].strip()}"
    return error
