"""All checks, in the groups in which the table shows them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from harness.doctor.check import Check, State
from harness.doctor.clusters import kind_lab, kind_limits, kubeconfig_lab
from harness.doctor.embedded import embedded_lab, lab_tools
from harness.doctor.engines import engines
from harness.doctor.tools import tools

GROUPS = ("labs", "fabrics", "data planes", "engines", "kernel", "tools")


def everything() -> list[Check]:
    """Labs first, what they stand on after them. Takes as long as the slowest program's answer."""
    parts: list[Callable[[], list[Check]]] = [
        embedded_lab,
        engines,
        lambda: [api_lab()],
        lambda: [kind_lab()],
        lambda: [kubeconfig_lab()],
        kind_limits,
        lab_tools,
        tools,
    ]
    with ThreadPoolExecutor(len(parts)) as pool:
        checks = [check for found in pool.map(lambda part: part(), parts) for check in found]
    return sorted(checks, key=lambda check: GROUPS.index(check.group))


def api_lab() -> Check:
    """Whether ``--lab-api`` finds the programs of a control plane."""
    from harness.labs.controlplane import binaries

    try:
        found = binaries.find()
    except binaries.BinariesError:
        return Check(
            "labs",
            "netns-api",
            State.NO,
            f"no programs of Kubernetes {binaries.DEFAULT_VERSION}",
            "make api-binaries, or netpol api fetch",
        )
    return Check("labs", "netns-api", State.YES, str(found))
