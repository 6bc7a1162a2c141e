"""kind's cluster configuration (``kind.x-k8s.io/v1alpha4``): read, checked, made for one run."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from harness.labs.base import LabError

Json = dict[str, Any]

API_VERSION = "kind.x-k8s.io/v1alpha4"
FAMILIES = ("ipv4", "ipv6", "dual")
PROXY_MODES = ("iptables", "nftables", "ipvs", "none")
ROLES = ("control-plane", "worker")

#: kind's own defaults, for the families that a file does not name.
POD_SUBNETS = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}
SERVICE_SUBNETS = {4: "10.96.0.0/16", 6: "fd00:10:96::/112"}

_CLUSTER = {
    *("kind", "apiVersion", "name", "nodes", "networking", "featureGates", "runtimeConfig"),
    *("kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902"),
    *("containerdConfigPatches", "containerdConfigPatchesJSON6902"),
}
_NODE = {
    *("role", "image", "labels", "extraMounts", "extraPortMappings"),
    *("kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902"),
}
_NETWORKING = {
    *("ipFamily", "apiServerPort", "apiServerAddress", "podSubnet", "serviceSubnet"),
    *("disableDefaultCNI", "kubeProxyMode", "dnsSearch"),
}


def read(path: Path) -> Json:
    """A configuration from its file. Raises LabError for one that kind would not take."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    check(data, str(path))
    return data  # type: ignore[no-any-return]


def check(data: Any, where: str) -> None:
    """Raises LabError, with the field, for what kind refuses: it takes no key it does not know."""
    if not isinstance(data, dict) or data.get("kind") != "Cluster":
        raise LabError(f"{where} is no cluster configuration of kind: kind is not Cluster")
    if data.get("apiVersion") != API_VERSION:
        raise LabError(f"{where}: apiVersion is {data.get('apiVersion')!r}, not {API_VERSION}")
    _known(data, _CLUSTER, where)
    networking = data.get("networking") or {}
    _known(networking, _NETWORKING, f"{where}, networking")
    family = networking.get("ipFamily", "ipv4")
    if family not in FAMILIES:
        raise LabError(f"{where}, networking: ipFamily {family!r} is none of {', '.join(FAMILIES)}")
    mode = networking.get("kubeProxyMode", "iptables")
    if mode not in PROXY_MODES:
        raise LabError(f"{where}, networking: no kubeProxyMode {mode!r}")
    for key in ("podSubnet", "serviceSubnet"):
        for cidr in filter(None, str(networking.get(key) or "").split(",")):
            try:
                ip_network(cidr)
            except ValueError as error:
                raise LabError(f"{where}, networking.{key}: {error}") from None
    nodes = data.get("nodes") or [{"role": "control-plane"}]
    for index, node in enumerate(nodes):
        _known(node, _NODE, f"{where}, nodes[{index}]")
        if node.get("role", "control-plane") not in ROLES:
            raise LabError(f"{where}, nodes[{index}]: no role {node['role']!r}")
    if not any(node.get("role", "control-plane") == "control-plane" for node in nodes):
        raise LabError(f"{where}: there is no node with role control-plane")


def _known(data: Any, keys: set[str], where: str) -> None:
    if not isinstance(data, dict):
        raise LabError(f"{where} is no mapping")
    for key in data:
        if key not in keys:
            near = get_close_matches(str(key), keys)
            raise LabError(f"{where}: kind knows no {key!r}" + (f", meant {near[0]}?" * bool(near)))


def made(
    base: Mapping[str, Any], *, nodes: int, families: tuple[int, ...], labels: Mapping[str, str]
) -> Json:
    """A configuration for one run: so many nodes (one of them the control plane), these families,
    every node with these labels. What else the base says stays."""
    data: Json = dict(base)
    networking = dict(data.get("networking") or {})
    if families != (4,):
        networking["ipFamily"] = "dual" if len(families) > 1 else "ipv6"
        networking["podSubnet"] = ",".join(
            _of_family(networking.get("podSubnet"), family) or POD_SUBNETS[family]
            for family in families
        )
        networking["serviceSubnet"] = ",".join(
            _of_family(networking.get("serviceSubnet"), family) or SERVICE_SUBNETS[family]
            for family in families
        )
    data["networking"] = networking
    wanted = [dict(node) for node in data.get("nodes") or [{"role": "control-plane"}]]
    workers = [node for node in wanted if node.get("role") == "worker"] or [{"role": "worker"}]
    planes = [node for node in wanted if node.get("role") != "worker"]
    if nodes != len(wanted):
        copies = [dict(workers[i % len(workers)]) for i in range(nodes - 1)]
        wanted = [planes[0], *copies]
    for node in wanted:
        node["labels"] = {**(node.get("labels") or {}), **labels}
    data["nodes"] = wanted
    return data


def bare(data: Mapping[str, Any]) -> bool:
    """Whether kind installs no network of its own."""
    return bool((data.get("networking") or {}).get("disableDefaultCNI"))


def bears_cgroup1(data: Mapping[str, Any]) -> bool:
    """Whether the kubelets of all nodes are told to run on cgroup v1 all the same."""
    for text in data.get("kubeadmConfigPatches") or ():
        try:
            patch = yaml.safe_load(text)
        except yaml.YAMLError:
            continue  # kind tells of it
        if isinstance(patch, dict) and patch.get("failCgroupV1") is False:
            return True
    return False


def pod_subnets(data: Mapping[str, Any]) -> list[str]:
    """Where pods get addresses from, as the configuration or kind's default has it."""
    networking = data.get("networking") or {}
    said = str(networking.get("podSubnet") or "")
    if said:
        return said.split(",")
    family = networking.get("ipFamily", "ipv4")
    return [POD_SUBNETS[f] for f in {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}[family]]


def _of_family(subnets: str | None, family: int) -> str:
    found = [one for one in (subnets or "").split(",") if one]
    return next((one for one in found if ip_network(one).version == family), "")
