"""Namespaces, Pods, Services, Nodes, and the workloads that stand for pods: data -> model.

Of these only what decides reachability is read, and only that is validated: an object that passes
here may still be refused by an API server for something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model import syntax
from harness.model.fields import Path, Reader
from harness.model.policy import Labels, Protocol, Source
from harness.model.read_meta import Meta, read_meta
from harness.model.world import (
    ContainerPort,
    Namespace,
    Node,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
)

#: Where a Pod's manifest keeps :attr:`Pod.page`.
PAGE_ANNOTATION = "netpol-harness/page"
#: More pods than this are not made of one workload.
MAX_REPLICAS = 10_000

SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def read_namespace(data: dict[str, Any], reader: Reader, source: Source | None) -> Namespace:
    meta = read_meta(data.get("metadata"), reader, syntax.dns_label, namespaced=False)
    return Namespace(meta.name, meta.labels, meta.annotations, source)


def read_node(data: dict[str, Any], reader: Reader, source: Source | None) -> Node:
    del source  # nodes come from clusters
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=False)
    spec = reader.mapping(data.get("spec"), ("spec",))
    status = reader.mapping(data.get("status"), ("status",))
    path: Path = ("status", "addresses")
    addresses = []
    for i, item in enumerate(reader.sequence(status.get("addresses"), path)):
        one = reader.mapping(item, (*path, i))
        if one.get("type") in ("InternalIP", "ExternalIP"):
            addresses.append(
                (one["type"], reader.string(one.get("address"), (*path, i, "address")))
            )
    cidrs = reader.strings(spec.get("podCIDRs"), ("spec", "podCIDRs"))
    if not cidrs and (one_cidr := reader.string(spec.get("podCIDR"), ("spec", "podCIDR"))):
        cidrs = (one_cidr,)
    # Nodes are reached by their internal addresses first.
    ordered = sorted(addresses, key=lambda item: item[0] != "InternalIP")
    return Node(meta.name, tuple(ip for _, ip in ordered), cidrs, meta.labels)


def read_pod(data: dict[str, Any], reader: Reader, source: Source | None) -> Pod:
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=True)
    return _pod(meta, data, reader, (), source)


def _pod(
    meta: Meta, data: Mapping[str, Any], reader: Reader, path: Path, source: Source | None
) -> Pod:
    spec = reader.mapping(data.get("spec"), (*path, "spec"))
    containers = list(_containers(spec, reader, (*path, "spec")))
    if not any(where[-2] == "containers" for _, where in containers):
        reader.error((*path, "spec", "containers"), "must hold at least one container")
    ports = tuple(
        port for container, where in containers for port in _ports(container, reader, where)
    )
    status = reader.mapping(data.get("status"), (*path, "status"))
    return Pod(
        meta.namespace,
        meta.name,
        meta.labels,
        reader.string(spec.get("nodeName"), (*path, "spec", "nodeName")) or None,
        _pod_ips(status, reader, path),
        ports,
        reader.boolean(spec.get("hostNetwork"), (*path, "spec", "hostNetwork")),
        _phase(status, reader, path),
        _ready(status, reader, path),
        meta.deleted,
        _workload(containers),
        meta.annotations.get(PAGE_ANNOTATION),
        meta.uid,
        source,
    )


def _containers(
    spec: Mapping[str, Any], reader: Reader, path: Path
) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """Containers, then sidecars (restartable init containers); other init containers are over
    before the pod runs."""
    for key in ("containers", "initContainers"):
        for i, item in enumerate(reader.sequence(spec.get(key), (*path, key))):
            here = (*path, key, i)
            container = reader.mapping(item, here)
            if key == "containers" or container.get("restartPolicy") == "Always":
                yield container, here


def _ports(container: Mapping[str, Any], reader: Reader, path: Path) -> Iterator[ContainerPort]:
    name = reader.string(container.get("name"), (*path, "name"))
    if not name:
        reader.error((*path, "name"), "is missing: every container needs a name")
    names = set()
    for i, item in enumerate(reader.sequence(container.get("ports"), (*path, "ports"))):
        here = (*path, "ports", i)
        data = reader.mapping(item, here)
        number = _port_number(data.get("containerPort"), reader, (*here, "containerPort"))
        protocol = _protocol(data.get("protocol"), reader, (*here, "protocol"))
        port_name = reader.string(data.get("name"), (*here, "name"))
        if port_name:
            reader.check(port_name, (*here, "name"), syntax.port_name)
            if port_name in names:
                reader.error((*here, "name"), f"{port_name!r} is used twice in this container")
            names.add(port_name)
        host_port = reader.integer(data.get("hostPort"), (*here, "hostPort")) or None
        if host_port is not None and (wrong := syntax.port_number(host_port)):
            reader.error((*here, "hostPort"), f"{host_port} {wrong}")
        if number is not None:
            yield ContainerPort(number, protocol, port_name or None, name or "server", host_port)


def _port_number(value: object, reader: Reader, path: Path) -> int | None:
    if value is None:
        reader.error(path, "is missing; it is a number from 1 to 65535")
        return None
    number = reader.integer(value, path)
    if number is not None and (wrong := syntax.port_number(number)):
        reader.error(path, f"{number} {wrong}")
    return number


def _protocol(value: object, reader: Reader, path: Path) -> Protocol:
    word = reader.choice(value, path, Protocol)
    return Protocol(word) if word else Protocol.TCP


def _pod_ips(status: Mapping[str, Any], reader: Reader, path: Path) -> tuple[str, ...]:
    here = (*path, "status", "podIPs")
    ips = [
        reader.string(reader.mapping(item, (*here, i)).get("ip"), (*here, i, "ip"))
        for i, item in enumerate(reader.sequence(status.get("podIPs"), here))
    ]
    first = reader.string(status.get("podIP"), (*path, "status", "podIP"))
    return tuple(dict.fromkeys(ip for ip in (first, *ips) if ip))


def _phase(status: Mapping[str, Any], reader: Reader, path: Path) -> Phase:
    """A manifest without a status asks for a running pod."""
    word = reader.string(status.get("phase"), (*path, "status", "phase"))
    return Phase(word) if word in tuple(Phase) else Phase.RUNNING


def _ready(status: Mapping[str, Any], reader: Reader, path: Path) -> bool:
    here = (*path, "status", "conditions")
    for i, item in enumerate(reader.sequence(status.get("conditions"), here)):
        condition = reader.mapping(item, (*here, i))
        if condition.get("type") == "Ready":
            return condition.get("status") == "True"
    return status.get("phase") in (None, "Running")


def _workload(containers: list[tuple[Mapping[str, Any], Path]]) -> Workload:
    """What stands for the pod's images: nginx serves, busybox asks, and who knows does both."""
    images = {str(container.get("image") or "") for container, _ in containers}
    names = {image.rpartition("/")[2].partition("@")[0].partition(":")[0] for image in images}
    if names == {"busybox"}:
        return Workload.CLIENT
    return Workload.SERVER if names == {"nginx"} else Workload.BOTH


def read_service(data: dict[str, Any], reader: Reader, source: Source | None) -> Service:
    meta = read_meta(data.get("metadata"), reader, syntax.service_name, namespaced=True)
    spec = reader.mapping(data.get("spec"), ("spec",))
    path: Path = ("spec", "ports")
    ports = tuple(
        port
        for i, item in enumerate(reader.sequence(spec.get("ports"), path))
        if (port := _service_port(item, reader, (*path, i))) is not None
    )
    first = reader.string(spec.get("clusterIP"), ("spec", "clusterIP"))
    more = reader.strings(spec.get("clusterIPs"), ("spec", "clusterIPs"))
    ips = tuple(dict.fromkeys(ip for ip in (first, *more) if ip))
    kind = reader.choice(spec.get("type"), ("spec", "type"), SERVICE_TYPES) or "ClusterIP"
    policy = reader.choice(
        spec.get("externalTrafficPolicy"), ("spec", "externalTrafficPolicy"), ("Cluster", "Local")
    )
    return Service(
        meta.namespace,
        meta.name,
        {} if kind == "ExternalName" else reader.labels(spec.get("selector"), ("spec", "selector")),
        ports,
        tuple(ip for ip in ips if ip != "None"),
        kind,
        "None" in ips,
        policy or "Cluster",
        source,
    )


def _service_port(value: object, reader: Reader, path: Path) -> ServicePort | None:
    data = reader.mapping(value, path)
    number = _port_number(data.get("port"), reader, (*path, "port"))
    target = data.get("targetPort")
    if isinstance(target, str) and target:
        reader.check(target, (*path, "targetPort"), syntax.port_name)
    else:
        target = reader.integer(target, (*path, "targetPort")) or number
        if target is not None and target != number and (wrong := syntax.port_number(target)):
            reader.error((*path, "targetPort"), f"{target} {wrong}")
    name = reader.string(data.get("name"), (*path, "name"))
    if name:
        reader.check(name, (*path, "name"), syntax.dns_label)
    if number is None or target is None:
        return None
    protocol = _protocol(data.get("protocol"), reader, (*path, "protocol"))
    node_port = reader.integer(data.get("nodePort"), (*path, "nodePort")) or None
    return ServicePort(number, target, protocol, name or None, node_port)


# -- workloads: the pods that a controller would make of a template --------------------------------

#: kind -> where its pod template is.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_COUNTS = {
    "Deployment": "replicas",
    "ReplicaSet": "replicas",
    "StatefulSet": "replicas",
    "ReplicationController": "replicas",
    "Job": "parallelism",
}


def read_workload(
    kind: str, data: dict[str, Any], reader: Reader, source: Source | None
) -> list[Pod]:
    """The pods that the workload would have, named ``NAME-0``, ``NAME-1``, …

    A DaemonSet has as many as there are nodes, which files do not say: it stands for one pod.
    """
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=True)
    where = TEMPLATES[kind]
    node: Mapping[str, Any] = data
    for depth, key in enumerate(where):
        node = reader.mapping(node.get(key), where[: depth + 1])
    spec = reader.mapping(data.get("spec"), ("spec",))
    labels = reader.labels(
        reader.mapping(node.get("metadata"), (*where, "metadata")).get("labels"),
        (*where, "metadata", "labels"),
    )
    _check_selector(kind, spec, labels, reader)
    count = _count(kind, spec, reader)
    template = Meta(meta.namespace, meta.name, labels, {}, "", deleted=False)
    pod = _pod(template, node, reader, where, source)
    return [_numbered(pod, i) for i in range(count)]


def _numbered(pod: Pod, index: int) -> Pod:
    from dataclasses import replace

    return replace(pod, name=f"{pod.name}-{index}")


def _count(kind: str, spec: Mapping[str, Any], reader: Reader) -> int:
    key = _COUNTS.get(kind)
    if key is None:
        return 1
    path = ("spec", key)
    number = reader.integer(spec.get(key), path)
    if number is None:
        return 1
    if number < 0:
        reader.error(path, f"{number} is below 0")
        return 0
    if number > MAX_REPLICAS:
        reader.warn(path, f"{number} pods are too many to look at; {MAX_REPLICAS} are taken")
    return min(number, MAX_REPLICAS)


def _check_selector(kind: str, spec: Mapping[str, Any], labels: Labels, reader: Reader) -> None:
    """``apps/v1`` workloads must select their own pods."""
    if kind not in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
        return
    path = ("spec", "selector")
    if spec.get("selector") is None:
        reader.error(path, "is missing: it must select the labels of the template")
        return
    from harness.model.selectors import selects

    if not selects(reader.selector(spec["selector"], path), labels):
        reader.error(path, "does not select the labels of the template")
