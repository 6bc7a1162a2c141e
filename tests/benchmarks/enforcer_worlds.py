"""Manifests for the enforcer's benchmarks: many pods and policies, and the few that are probed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

SERVER, CLIENT = "10.244.1.2", "10.244.1.3"
NAMESPACES = 20
APPS = 50  # in each namespace
_FIRST = int(ipaddress.ip_address("10.128.0.1"))


def namespace(name: str) -> Json:
    labels = {"kubernetes.io/metadata.name": name, "team": name}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(where: str, name: str, address: str, node: str = "node", **labels: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": where, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def policy(where: str, name: str, subject: Json, peers: list[Json] | None, port: int = 80) -> Json:
    """Ingress from peers at one port; None: from nobody."""
    rules = [] if peers is None else [{"from": peers, "ports": [{"port": port}]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": where, "name": name},
        "spec": {
            "podSelector": {"matchLabels": subject},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


def of_app(number: int) -> list[Json]:
    return [{"podSelector": {"matchLabels": {"app": f"app-{number}"}}}]


def crowd(pods: int, local: int, policies: int) -> Iterator[Json]:
    """Namespaces, pods (the first ``local`` on the node) and policies, spread evenly: a policy
    selects one application of a namespace and lets another one in."""
    yield from (namespace(f"crowd-{i}") for i in range(NAMESPACES))
    for i in range(pods):
        where, app = f"crowd-{i % NAMESPACES}", f"app-{i // NAMESPACES % APPS}"
        node = "node" if i < local else f"other-{i % 50}"
        yield pod(where, f"pod-{i}", str(ipaddress.ip_address(_FIRST + i)), node, app=app)
    for i in range(policies):
        number = i // NAMESPACES % APPS
        subject, peers = {"app": f"app-{number}"}, of_app((number + 1 + i) % APPS)
        yield policy(f"crowd-{i % NAMESPACES}", f"policy-{i}", subject, peers)


def probed() -> list[Json]:
    """The server and the client of a measurement."""
    return [
        namespace("probed"),
        pod("probed", "server", SERVER, role="server"),
        pod("probed", "client", CLIENT, role="client", friend="no"),
    ]
