"""What decides whether clusters can be had: kind's needs, and a kubeconfig."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cnis import catalogue
from harness.doctor.check import Check, State, ask, which
from harness.labs.base import LabError
from harness.labs.kind import limits, versions
from harness.labs.kind.runtime import NAMES, Runtime


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
    if found < versions.OLDEST:
        wanted = ".".join(map(str, versions.OLDEST))
        return Check("labs", "kind", State.NO, text, f"install kind {wanted} or newer")
    # A module that one CNI needs is no limit to all of them.
    general = [c for c in kind_limits() if c.state is not State.YES and " on kind)" not in c.found]
    if any(check.state is State.NO for check in general):
        worst = next(check for check in general if check.state is State.NO)
        return Check("labs", "kind", State.NO, f"{text}; {worst.name}: {worst.found}", worst.step)
    if general:
        return Check("labs", "kind", State.LIMITED, text, general[0].step)
    return Check("labs", "kind", State.YES, text)


def _runtime() -> tuple[str | None, str]:
    """The first container runtime that answers, or the step that brings one."""
    step = "install Docker, Podman or nerdctl"
    for name in NAMES:
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
    """Limits of the host that make kind fail half-way: cgroups, inotify, disk, and every kernel
    module that a CNI of the catalogue needs there."""
    disk, cgroups = None, ""
    with contextlib.suppress(LabError):
        runtime = Runtime.find()
        disk, cgroups = runtime.root(), runtime.cgroups()
    wanted: dict[str, list[str]] = {}
    for name in catalogue.names():
        cni = catalogue.get(name)
        for module in cni.modules if "kind" in cni.labs else ():
            wanted.setdefault(module, []).append(name)
    found = limits.look(
        kubernetes=(1, 0),  # what the newest nodes refuse, older ones may bear
        modules=sorted(wanted),
        disk=disk,
        cgroups=cgroups,
        tried=limits.tried,
    )
    return [_check(limit, wanted) for limit in found]


def _check(limit: limits.Limit, wanted: Mapping[str, Sequence[str]]) -> Check:
    module = limit.name.removeprefix("kernel module ")
    text = limit.found + (f" (for {', '.join(wanted[module])} on kind)" if module in wanted else "")
    name = f"module {module}" if module in wanted else module
    if limit.ok:
        return Check("kernel", name, State.YES, text)
    state = State.NO if limit.ok is False else State.LIMITED
    return Check("kernel", name, state, text, limit.step)


def kubeconfig_lab() -> Check:
    """Whether there is a kubeconfig to use. The cluster itself is not asked."""
    files = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    files = files or [Path.home() / ".kube" / "config"]
    there = [path for path in files if path.is_file()]
    if not there:
        step = "set KUBECONFIG to the path of one"
        return Check("labs", "kubeconfig", State.NO, f"no {_listed(files)}", step)
    return Check("labs", "kubeconfig", State.YES, f"{_listed(there)} (the cluster was not asked)")


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
