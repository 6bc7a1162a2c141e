"""What a cluster is, before anything is made on it: rights, nodes, what runs, whether to keep off.

All of it is read with the rights of :mod:`harness.labs.cluster.rbac`, and those are asked for
first, so that a user who lacks one is told so and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from harness.labs.base import LabError
from harness.labs.cluster import rbac
from harness.labs.cluster.api import Api
from harness.labs.cluster.pods import is_ready

Json = dict[str, Any]

#: More of these and a cluster is taken for one that people live on.
MANY_NODES = 20
MANY_PODS = 100
_SYSTEM = re.compile(
    r"kube-.*|default|netpol-.*|np-.*|calico-.*|tigera-.*|cattle-.*|local-path-storage"
)
_PRODUCTION = re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)", re.IGNORECASE)
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True, slots=True)
class Survey:
    """``nodes`` are the names of those that take pods, control planes first; ``unfit`` the others
    with the reason. ``workloads`` are (kind, namespace, name) of DaemonSets and Deployments that
    have pods.
    ``alarms``: why it looks like production. ``lacks``: optional rights that the user has not."""

    server: str
    version: str
    nodes: tuple[str, ...]
    control_planes: int
    unfit: dict[str, str]
    workloads: frozenset[tuple[str, str, str]]
    pods: int
    alarms: tuple[str, ...]
    lacks: tuple[tuple[rbac.Right, str], ...]

    def aliases(self, most: int) -> dict[str, str]:
        """What scenarios call the first ``most`` nodes: control-plane, worker, worker2, …

        Without a control plane among them two nodes are the two workers. Raises LabError where
        there are no two: whether packets cross between nodes could not be seen.
        """
        first = ["control-plane"] if self.control_planes or len(self.nodes) > 2 else []
        masters = self.nodes[: max(1, self.control_planes)] if first else ()
        workers = self.nodes[len(masters) :]
        names = ["worker", *(f"worker{n}" for n in range(2, len(workers) + 1))]
        found = [*zip(first, masters, strict=False), *zip(names, workers, strict=True)]
        if len(workers) < 2:
            told = "; ".join(f"{name}: {why}" for name, why in self.unfit.items())
            raise LabError(
                f"the cluster has {len(workers)} nodes that take pods, and two are needed for "
                "packets that cross between nodes",
                detail=f"  unfit: {told}" if told else "",
            )
        return dict(found[: max(most, 2)])


def survey(api: Api, context: str) -> Survey:
    """Look at the cluster. Raises LabError where it does not answer, and where the user lacks a
    right without which nothing can be tested (with a line for each)."""
    lacks = rbac.missing(api)
    needed = [one for one in lacks if not one[0].optional]
    if needed:
        raise LabError(
            f"the user of context {context} has not the rights that a run needs on {api.server}",
            hint="`python -m harness.labs.cluster.rbac` writes an account that has them",
            detail=rbac.told(needed),
        )
    version = api.request("GET", "/version")["gitVersion"].removeprefix("v")
    nodes = list(api.every("Node"))
    unfit = {node["metadata"]["name"]: why for node in nodes if (why := _unfit(node))}
    fit = [node for node in nodes if node["metadata"]["name"] not in unfit]
    fit.sort(key=lambda node: (not _is_control_plane(node), node["metadata"]["name"]))
    namespaces = [one["metadata"]["name"] for one in api.every("Namespace")]
    pods = list(api.every("Pod"))
    return Survey(
        server=api.server,
        version=version,
        nodes=tuple(node["metadata"]["name"] for node in fit),
        control_planes=sum(map(_is_control_plane, fit)),
        unfit=unfit,
        workloads=frozenset(owner for pod in pods for owner in _owners(pod)),
        pods=len(pods),
        alarms=tuple(_alarms(api.server, context, len(nodes), namespaces, pods)),
        lacks=tuple(lacks),
    )


def _is_control_plane(node: Json) -> bool:
    return _CONTROL_PLANE in (node["metadata"].get("labels") or {})


def _unfit(node: Json) -> str:
    """Why pods cannot be bound to a node by name, or ""."""
    if not is_ready(node):
        return "not Ready"
    if node["spec"].get("unschedulable"):
        return "cordoned"
    if (node["metadata"].get("labels") or {}).get("kubernetes.io/os", "linux") != "linux":
        return "not Linux"
    evicting = [t["key"] for t in node["spec"].get("taints") or () if t["effect"] == "NoExecute"]
    return f"taint {evicting[0]}" if evicting else ""


def _owners(pod: Json) -> Iterator[tuple[str, str, str]]:
    meta = pod["metadata"]
    digest = (meta.get("labels") or {}).get("pod-template-hash", "")
    for owner in meta.get("ownerReferences") or ():
        match owner["kind"]:
            case "DaemonSet":
                yield "DaemonSet", meta["namespace"], owner["name"]
            case "ReplicaSet" if digest:
                yield "Deployment", meta["namespace"], owner["name"].removesuffix(f"-{digest}")


def _alarms(
    server: str, context: str, nodes: int, namespaces: Sequence[str], pods: Sequence[Json]
) -> Iterator[str]:
    for what, name in (("context", context), ("server", urlsplit(server).hostname or "")):
        if _PRODUCTION.search(name):
            yield f"its {what} is called {name}"
    named = [name for name in namespaces if _PRODUCTION.search(name)]
    if named:
        yield f"it has a namespace {named[0]}"
    if nodes > MANY_NODES:
        yield f"it has {nodes} nodes"
    foreign = [pod for pod in pods if not _SYSTEM.fullmatch(pod["metadata"]["namespace"])]
    if len(foreign) > MANY_PODS:
        yield f"{len(foreign)} pods of others run on it"
