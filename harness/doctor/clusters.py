"""What decides whether clusters can be had: kind's needs, and a kubeconfig."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.doctor.check import Check, State, ask, which

#: The oldest kind whose node images and flags the catalogue's entries were made for.
OLDEST_KIND = (0, 24)
RUNTIMES = ("docker", "podman", "nerdctl")
#: kind's own "known issues" ask for these; about the fourth cluster fails at a kernel's defaults.
INOTIFY = {"max_user_watches": 524288, "max_user_instances": 512}


def kind_lab() -> Check:
    """Whether ``--lab kind`` can start: a container runtime that answers, and kind itself."""
    runtime, step = _runtime()
    if runtime is None:
        return Check("labs", "kind", State.NO, "no container runtime answers", step)
    version = ask(["kind", "version"])
    number = re.search(r"v?(\d+)\.(\d+)", version.text)
    if not version.ok or number is None:
        why = "kind is not there" if which("kind") is None else f"kind says: {version.last_line}"
        return Check("labs", "kind", State.NO, why, "install kind: https://kind.sigs.k8s.io")
    found = (int(number[1]), int(number[2]))
    text = f"kind {number[1]}.{number[2]} with {runtime}"
    if found < OLDEST_KIND:
        wanted = ".".join(map(str, OLDEST_KIND))
        return Check("labs", "kind", State.NO, text, f"install kind {wanted} or newer")
    limits = [check for check in kind_limits() if check.state is not State.YES]
    if limits:
        return Check("labs", "kind", State.LIMITED, text, limits[0].step)
    return Check("labs", "kind", State.YES, text)


def _runtime() -> tuple[str | None, str]:
    """The first container runtime that answers, or the step that brings one."""
    step = "install Docker, Podman or nerdctl"
    for name in RUNTIMES:
        if which(name) is None:
            continue
        answer = ask([name, "info"])
        if answer.ok:
            return name, ""
        if "permission denied" in answer.text.lower():
            step = f"let this user speak to {name}: usermod -aG docker {os.environ.get('USER', '')}"
        else:
            step = f"start {name}: {answer.last_line}"
        step = step.strip()
    return None, step


def kind_limits() -> list[Check]:
    """Limits of the host that make kind fail half-way: cgroups and inotify."""
    return [_cgroups(), *(_inotify(name, least) for name, least in INOTIFY.items())]


def _cgroups() -> Check:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Check("kernel", "cgroups", State.YES, "version 2")
    return Check(
        "kernel",
        "cgroups",
        State.LIMITED,
        "version 1: node images of Kubernetes 1.35 and newer refuse it",
        "boot with systemd.unified_cgroup_hierarchy=1, or take an older --lab-kind-image",
    )


def _inotify(name: str, least: int) -> Check:
    title = f"inotify {name.removeprefix('max_user_')}"
    path = Path("/proc/sys/fs/inotify", name)
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return Check("kernel", title, State.LIMITED, "not known", f"look at {path}")
    if value >= least:
        return Check("kernel", title, State.YES, str(value))
    step = f"sysctl -w fs.inotify.{name}={least}"
    return Check("kernel", title, State.LIMITED, f"{value}: too few for some kind clusters", step)


def kubeconfig_lab() -> Check:
    """Whether there is a kubeconfig to use. The cluster itself is not asked."""
    files = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    files = files or [Path.home() / ".kube" / "config"]
    there = [path for path in files if path.is_file()]
    if not there:
        step = "set KUBECONFIG, or pass --lab-kubeconfig FILE"
        return Check("labs", "kubeconfig", State.NO, f"no {_listed(files)}", step)
    return Check("labs", "kubeconfig", State.YES, f"{_listed(there)} (the cluster was not asked)")


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
