"""What happens in a step, in the words of its record."""

from __future__ import annotations

from collections import Counter
from typing import Any

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.flow import Finding
from harness.model.world import World
from harness.report.record import StepRecord

WRONG = (Finding.LEAK, Finding.OUTAGE, Finding.FLAKY)
_BAD = ("failed", "error")


def action_text(action: Action) -> str:
    """``apply NetworkPolicy x/deny``, ``label Pod x/a pod=b gone-``."""
    match action:
        case Apply(object=thing):
            name = str(thing) if hasattr(thing, "namespace") else thing.name
            return f"apply {type(thing).__name__} {name}"
        case Delete(kind=kind, namespace=namespace, name=name):
            return f"delete {kind} {_name(namespace, name)}"
        case Relabel(kind=kind, namespace=namespace, name=name, labels=labels):
            words = [f"{k}-" if v is None else f"{k}={v}" for k, v in labels.items()]
            return f"label {kind} {_name(namespace, name)} {' '.join(words)}"
        case Finish(namespace=namespace, name=name, phase=phase):
            return f"finish Pod {_name(namespace, name)} as {phase}"


def _name(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def pods_of(asked: World, resolved: World) -> list[dict[str, Any]]:
    """The pods that were asked for, with what the lab made of them."""
    found = [resolved.pods.get(key, pod) for key, pod in asked.pods.items()]
    return [
        {"name": str(pod), "labels": dict(pod.labels), "node": pod.node or "", "ips": list(pod.ips)}
        for pod in found
    ]


def namespaces_of(asked: World) -> list[dict[str, Any]]:
    return [{"name": n.name, "labels": dict(n.labels)} for n in asked.namespaces.values()]


def tally(record: StepRecord) -> str:
    """``2 leak: x/a -> …`` of what is wrong in a step, the first of each named; "" if nothing."""
    wrong = [c for c in record.cells if c.finding in (*WRONG, Finding.UNKNOWN)]
    parts = []
    for finding, count in Counter(c.finding for c in wrong).items():
        first = next(c for c in wrong if c.finding == finding)
        cell = f"{first.source} -> {first.target}:{first.port}/{first.protocol} by {first.via}"
        parts.append(f"{count} {finding}: {cell}" + (", …" if count > 1 else ""))
    parts += [f"{c['name']}: {c['outcome']}" for c in record.checks if c["outcome"] in _BAD]
    return f"{record.title}: {'; '.join(parts)}" if parts else ""
