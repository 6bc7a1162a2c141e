"""Model objects -> manifests, as plain data that an API server would take."""

from __future__ import annotations

from typing import Any

from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    Subject,
)
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, PolicyPort, Rule
from harness.model.read_objects import PAGE_ANNOTATION
from harness.model.world import (
    ContainerPort,
    Namespace,
    Node,
    Pod,
    Service,
    ServicePort,
    Workload,
)

Manifest = dict[str, Any]
# Manifests need an image; these are what the harness runs.
SERVER_IMAGE, CLIENT_IMAGE = "nginx", "busybox"


def to_manifest(thing: object) -> Manifest:
    """The manifest of a Namespace, Pod, Service, Node, NetworkPolicy or ClusterNetworkPolicy.

    Reading it again gives an equal object. Raises TypeError for what is no Kubernetes object.
    """
    match thing:
        case Namespace():
            return _object(
                "v1", "Namespace", _meta(thing.name, "", thing.labels, thing.annotations)
            )
        case Pod():
            return _pod(thing)
        case Service():
            return _service(thing)
        case Node():
            return _node(thing)
        case NetworkPolicy():
            return _policy(thing)
        case ClusterNetworkPolicy():
            return _cluster_policy(thing)
        case _:
            raise TypeError(f"{type(thing).__name__} is no Kubernetes object")


def _object(version: str, kind: str, meta: Manifest, **parts: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": meta, **parts}


def _meta(name: str, namespace: str, labels: Any, annotations: Any = None) -> Manifest:
    return _filled(
        name=name,
        namespace=namespace,
        labels=dict(labels),
        annotations=dict(annotations or {}),
    )


def _filled(**fields: Any) -> Manifest:
    """Without the fields that hold nothing."""
    return {key: value for key, value in fields.items() if value not in (None, "", (), [], {})}


# -- NetworkPolicy ---------------------------------------------------------------------------------


def _policy(policy: NetworkPolicy) -> Manifest:
    spec: Manifest = {"podSelector": selector(policy.pod_selector)}
    if policy.policy_types:
        spec["policyTypes"] = [str(one) for one in policy.policy_types]
    if policy.ingress:
        spec["ingress"] = [_rule(rule, "from") for rule in policy.ingress]
    if policy.egress:
        spec["egress"] = [_rule(rule, "to") for rule in policy.egress]
    return _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        _meta(policy.name, policy.namespace, policy.labels),
        spec=spec,
    )


def selector(item: LabelSelector) -> Manifest:
    return _filled(
        matchLabels=dict(item.match_labels),
        matchExpressions=[
            {
                "key": one.key,
                "operator": str(one.operator),
                **({"values": list(one.values)} if one.values else {}),
            }
            for one in item.match_expressions
        ],
    )


def _rule(rule: Rule, peers: str) -> Manifest:
    return _filled(
        **{peers: [_peer(peer) for peer in rule.peers]}, ports=[_port(port) for port in rule.ports]
    )


def _peer(peer: Peer) -> Manifest:
    data: Manifest = {}
    if peer.pod_selector is not None:
        data["podSelector"] = selector(peer.pod_selector)
    if peer.namespace_selector is not None:
        data["namespaceSelector"] = selector(peer.namespace_selector)
    if peer.ip_block is not None:
        block = _filled(cidr=peer.ip_block.cidr)
        if peer.ip_block.except_:
            block["except"] = list(peer.ip_block.except_)
        data["ipBlock"] = block
    return data


def _port(port: PolicyPort) -> Manifest:
    return _filled(port=port.port, endPort=port.end_port, protocol=str(port.protocol))


# -- ClusterNetworkPolicy --------------------------------------------------------------------------


def _cluster_policy(policy: ClusterNetworkPolicy) -> Manifest:
    return _object(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        _meta(policy.name, "", policy.labels),
        spec={
            "tier": str(policy.tier),
            "priority": policy.priority,
            "subject": _subject(policy.subject),
            **_filled(
                ingress=[_cluster_rule(rule, "from") for rule in policy.ingress],
                egress=[_cluster_rule(rule, "to") for rule in policy.egress],
            ),
        },
    )


def _subject(subject: Subject) -> Manifest:
    if subject.pod_selector is None:
        return {"namespaces": selector(subject.namespace_selector)}
    return {"pods": _pods(subject)}


def _pods(subject: Subject) -> Manifest:
    return {
        "namespaceSelector": selector(subject.namespace_selector),
        "podSelector": selector(subject.pod_selector or LabelSelector()),
    }


def _cluster_rule(rule: ClusterRule, peers: str) -> Manifest:
    return {
        **_filled(name=rule.name),
        "action": str(rule.action),
        peers: [_cluster_peer(peer) for peer in rule.peers],
        **_filled(protocols=[_cluster_port(port) for port in rule.ports]),
    }


def _cluster_peer(peer: ClusterPeer) -> Manifest:
    if peer.namespaces is not None:
        return {"namespaces": selector(peer.namespaces)}
    if peer.pods is not None:
        return {"pods": _pods(peer.pods)}
    if peer.nodes is not None:
        return {"nodes": selector(peer.nodes)}
    if peer.networks is not None:
        return {"networks": list(peer.networks)}
    if peer.domain_names is not None:
        return {"domainNames": list(peer.domain_names)}
    return {}


def _cluster_port(port: ClusterPort) -> Manifest:
    if port.name is not None:
        return {"destinationNamedPort": port.name}
    if port.protocol is None:
        return {}
    if port.end_port is not None:
        there: Manifest = {"range": {"start": port.port, "end": port.end_port}}
    else:
        there = _filled(number=port.port)
    return {port.protocol.lower(): {"destinationPort": there} if there else {}}


# -- the others ------------------------------------------------------------------------------------


def _pod(pod: Pod) -> Manifest:
    meta = _meta(
        pod.name,
        pod.namespace,
        pod.labels,
        {PAGE_ANNOTATION: pod.page} if pod.page is not None else {},
    )
    if pod.uid:
        meta["uid"] = pod.uid
    if pod.terminating:
        meta["deletionTimestamp"] = "1970-01-01T00:00:00Z"
    spec: Manifest = {"containers": _containers(pod)}
    if pod.node:
        spec["nodeName"] = pod.node
    if pod.host_network:
        spec["hostNetwork"] = True
    status: Manifest = {"phase": str(pod.phase)}
    if pod.ips:
        status["podIP"] = pod.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in pod.ips]
    status["conditions"] = [{"type": "Ready", "status": "True" if pod.ready else "False"}]
    return _object("v1", "Pod", meta, spec=spec, status=status)


def _containers(pod: Pod) -> list[Manifest]:
    """A container for each that ports name, and one more where the workload needs it."""
    image = CLIENT_IMAGE if pod.workload is Workload.CLIENT else SERVER_IMAGE
    containers: dict[str, Manifest] = {}
    for port in pod.ports:
        container = containers.setdefault(port.container, {"name": port.container, "image": image})
        container.setdefault("ports", []).append(_container_port(port))
    if pod.workload is Workload.BOTH:
        name = _unused("client", containers)
        containers[name] = {"name": name, "image": CLIENT_IMAGE}
        if len(containers) == 1:
            containers["server"] = {"name": "server", "image": SERVER_IMAGE}
    if not containers:
        name = "client" if pod.workload is Workload.CLIENT else "server"
        containers[name] = {"name": name, "image": image}
    return list(containers.values())


def _unused(name: str, taken: Manifest) -> str:
    return name if name not in taken else f"{name}-{len(taken)}"


def _container_port(port: ContainerPort) -> Manifest:
    return _filled(
        name=port.name,
        containerPort=port.port,
        protocol=str(port.protocol),
        hostPort=port.host_port,
    )


def _service(service: Service) -> Manifest:
    ips = ["None"] if service.headless else list(service.cluster_ips)
    spec = _filled(
        type=service.type,
        selector=dict(service.selector),
        clusterIP=ips[0] if ips else None,
        clusterIPs=ips,
        ports=[_service_port(port) for port in service.ports],
    )
    if service.type in ("NodePort", "LoadBalancer") or service.external_traffic_policy != "Cluster":
        spec["externalTrafficPolicy"] = service.external_traffic_policy
    return _object("v1", "Service", _meta(service.name, service.namespace, {}), spec=spec)


def _service_port(port: ServicePort) -> Manifest:
    return _filled(
        name=port.name,
        port=port.port,
        targetPort=port.target_port,
        protocol=str(port.protocol),
        nodePort=port.node_port,
    )


def _node(node: Node) -> Manifest:
    return _object(
        "v1",
        "Node",
        _meta(node.name, "", node.labels),
        spec=_filled(
            podCIDR=node.pod_cidrs[0] if node.pod_cidrs else "", podCIDRs=list(node.pod_cidrs)
        ),
        status=_filled(addresses=[{"type": "InternalIP", "address": ip} for ip in node.ips]),
    )
