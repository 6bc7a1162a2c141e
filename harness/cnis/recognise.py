"""What runs in a cluster, by the catalogue: which CNIs its workloads belong to."""

from __future__ import annotations

from collections.abc import Iterable

from harness.cnis import catalogue
from harness.cnis.cni import Cni


def recognise(workloads: Iterable[tuple[str, str, str]]) -> list[Cni]:
    """The entries all of whose required workloads are there; of variants only the first.

    ``workloads`` are (kind, namespace, name), such as ``("DaemonSet", "kube-system", "canal")``.
    """
    there = set(workloads)
    found: dict[frozenset[tuple[str, str, str]], Cni] = {}
    for name in catalogue.names():
        cni = catalogue.get(name)
        wanted = frozenset((r.kind, r.namespace, r.name) for r in cni.ready if r.required)
        if wanted and wanted <= there:
            found.setdefault(wanted, cni)
    return list(found.values())


def engines(workloads: Iterable[tuple[str, str, str]]) -> list[Cni]:
    """Those of them that enforce policies. More than one at once is a mistake: their verdicts
    cannot be told apart."""
    return [cni for cni in recognise(workloads) if cni.enforces]
