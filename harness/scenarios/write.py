"""A scenario as the YAML that :mod:`harness.scenarios.load` reads back: what a shrunken failure is
printed and saved as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.manifest import to_manifest
from harness.model.policy import NetworkPolicy, Protocol
from harness.model.world import (
    NAMESPACE_NAME_LABEL,
    ContainerPort,
    External,
    Namespace,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)
from harness.scenarios.scenario import Probes, Scenario, Step

_WORDS = {
    "NetworkPolicy": "policy",
    "ClusterNetworkPolicy": "clusternetworkpolicy",
    "Pod": "pod",
    "Service": "service",
    "Namespace": "namespace",
}

_CREATED = frozenset({"namespaces", "pods", "services"})


def to_text(scenario: Scenario) -> str:
    """The YAML of one scenario. Raises ValueError for what a file cannot say: checks (they are
    Python), pages, phases other than running, actions on nodes and outside hosts."""
    return yaml.dump(
        as_plain(scenario), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what Kubernetes' YAML would read as something else than text (``y``, ``off``)."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    odd = text.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if odd else None)


_Dumper.add_representer(str, _text)


def as_plain(scenario: Scenario) -> dict[str, Any]:
    """The scenario as plain mappings and lists."""
    entries: dict[str, Any] = {
        "id": scenario.id,
        "title": scenario.title,
        "why": scenario.why,
        "features": sorted(scenario.features),
    }
    if scenario.requires:
        entries["requires"] = sorted(scenario.requires)
    entries["world"] = _world(scenario.world)
    entries["probe"] = _probes(scenario.probes)
    entries["steps"] = [_step(one) for one in scenario.steps]
    return entries


def _step(one: Step) -> dict[str, Any]:
    if one.checks:
        raise ValueError(f"step {one.title!r} has checks, which are Python")
    entries: dict[str, Any] = {"title": one.title}
    if one.why:
        entries["why"] = one.why
    groups: list[tuple[str, Any]] = []
    for action in one.actions:
        key, value = _action(action)
        both = _merged(groups[-1][1], value) if groups and groups[-1][0] == key else None
        if both is None:
            groups.append((key, value))
        else:
            groups[-1] = (key, both)
    if len({key for key, _ in groups}) == len(groups):
        entries.update(groups)
    else:  # a key comes twice: the order has to be written out
        entries["do"] = [{key: value} for key, value in groups]
    if one.probes is not None:
        entries["probe"] = _probes(one.probes)
    if one.expect:
        entries["expect"] = {str(e.cell): str(e.verdict) for e in one.expect}
    return entries


def _merged(one: Any, two: Any) -> Any:
    """Two values of one key as one, or None where that would lose something or its order."""
    if isinstance(one, list):
        return [*one, *two]
    if not one.keys() & two.keys():
        return None if one.keys() & _CREATED else {**one, **two}
    (kind, first), (_, second) = next(iter(one.items())), next(iter(two.items()))
    if kind in _CREATED and one.keys() == two.keys() and not first.keys() & second.keys():
        return {kind: {**first, **second}}
    return None


def _action(action: Action) -> tuple[str, Any]:
    match action:
        case Apply(object=NetworkPolicy() | ClusterNetworkPolicy() as policy):
            return "apply", [_manifest(policy)]
        case Apply(object=Pod() as pod):
            return "create", {"pods": {str(pod): _pod(pod)}}
        case Apply(object=Service() as service):
            return "create", {"services": {str(service): _service(service)}}
        case Apply(object=Namespace() as namespace):
            return "create", {"namespaces": {namespace.name: _labels(namespace)}}
        case Delete(kind=kind, namespace=namespace, name=name) if kind in _WORDS:
            return "delete", [_reference(kind, namespace, name)]
        case Relabel(kind=kind, namespace=namespace, name=name, labels=labels):
            return "label", {_reference(kind, namespace, name): dict(labels)}
        case Finish(namespace=namespace, name=name, phase=phase):
            return "finish", {f"{namespace}/{name}": str(phase)}
        case _:
            raise ValueError(f"a file cannot say {action}")


def _reference(kind: str, namespace: str, name: str) -> str:
    return "/".join(part for part in (_WORDS[kind], namespace, name) if part)


def _manifest(policy: NetworkPolicy | ClusterNetworkPolicy) -> dict[str, Any]:
    manifest = to_manifest(policy)
    if isinstance(policy, NetworkPolicy):  # what a scenario file takes for granted
        return {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")}
    return manifest


def _probes(probes: Probes) -> dict[str, Any]:
    entries: dict[str, Any] = {
        "ports": [_numbered(number, protocol) for number, protocol in probes.ports],
        "via": [str(via) for via in probes.vias],
    }
    if probes.families != (4,):
        entries["families"] = list(probes.families)
    if probes.sources is not None:
        entries["sources"] = [str(e) for e in probes.sources]
    if probes.targets is not None:
        entries["targets"] = [str(e) for e in probes.targets]
    if probes.extra:
        entries["also"] = [str(cell) for cell in probes.extra]
    return entries


def _numbered(number: int, protocol: Protocol) -> int | str:
    return number if protocol is Protocol.TCP else f"{number}/{protocol}"


def _world(world: World) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if world.namespaces:
        entries["namespaces"] = {n.name: _labels(n) for n in world.namespaces.values()}
    if world.pods:
        entries["pods"] = {str(pod): _pod(pod) for pod in world.pods.values()}
    if world.services:
        entries["services"] = {str(s): _service(s) for s in world.services.values()}
    if world.externals:
        entries["externals"] = {e.name: _external(e) for e in world.externals.values()}
    policies: list[NetworkPolicy | ClusterNetworkPolicy] = [
        *world.policies.values(),
        *world.cluster_policies.values(),
    ]
    if policies:
        entries["policies"] = [_manifest(policy) for policy in policies]
    return entries


def _labels(namespace: Namespace) -> dict[str, str]:
    return {k: v for k, v in namespace.labels.items() if k != NAMESPACE_NAME_LABEL}


def _pod(pod: Pod) -> dict[str, Any]:
    if pod.page is not None or not pod.live:
        raise ValueError(f"a file cannot say what pod {pod} is like: its page, or that it is over")
    entries: dict[str, Any] = {}
    if pod.labels:
        entries["labels"] = dict(pod.labels)
    if pod.ports:
        entries["ports"] = [_container_port(port) for port in pod.ports]
    if pod.node:
        entries["node"] = pod.node
    if pod.ips:
        entries["ips"] = list(pod.ips)
    if pod.host_network:
        entries["hostNetwork"] = True
    if pod.workload is not Workload.BOTH:
        entries["workload"] = str(pod.workload)
    if not pod.ready:
        entries["ready"] = False
    return entries


def _container_port(port: ContainerPort) -> Any:
    text = _numbered(port.port, port.protocol)
    short = f"{port.name}={text}" if port.name else text
    more: dict[str, Any] = {}
    if port.container != "server":
        more["container"] = port.container
    if port.host_port is not None:
        more["hostPort"] = port.host_port
    return {"port": short, **more} if more else short


def _service(service: Service) -> dict[str, Any]:
    entries: dict[str, Any] = {
        "selector": dict(service.selector),
        "ports": [_service_port(port) for port in service.ports],
    }
    if service.headless:
        entries["headless"] = True
    if service.type != "ClusterIP":
        entries["type"] = service.type
    if service.external_traffic_policy != "Cluster":
        entries["externalTrafficPolicy"] = service.external_traffic_policy
    return entries


def _service_port(port: ServicePort) -> Any:
    entries: dict[str, Any] = {"port": _numbered(port.port, port.protocol)}
    if port.target_port != port.port:
        entries["target"] = port.target_port
    if port.name is not None:
        entries["name"] = port.name
    if port.node_port is not None:
        entries["nodePort"] = port.node_port
    return entries if len(entries) > 1 else entries["port"]


def _external(external: External) -> Mapping[str, Any]:
    ports = [_container_port(port) for port in external.ports]
    return {"ips": list(external.ips), **({"ports": ports} if ports else {})}
