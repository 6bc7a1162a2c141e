"""``policy.networking.k8s.io/v1alpha2`` ClusterNetworkPolicy: manifest data -> AST.

Validated as the experimental CRD does (``sigs.k8s.io/network-policy-api`` v0.2.0), except that
selectors are held to the syntax of labels as everywhere else, which a CRD cannot do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.model import syntax
from harness.model.cluster_policy import (
    ClusterNetworkPolicy,
    ClusterPeer,
    ClusterPort,
    ClusterRule,
    RuleAction,
    Subject,
    Tier,
)
from harness.model.fields import Path, Reader
from harness.model.policy import EVERYTHING, Protocol, Source
from harness.model.read_meta import read_meta

_TOP = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SPEC = frozenset({"tier", "priority", "subject", "ingress", "egress"})
_SUBJECT = frozenset({"namespaces", "pods"})
_PEERS = {
    "ingress": frozenset({"namespaces", "pods"}),
    "egress": frozenset({"namespaces", "pods", "networks", "nodes", "domainNames"}),
}
_PODS = frozenset({"namespaceSelector", "podSelector"})
_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "destinationNamedPort"})
_MAX_ITEMS = 25
_DOMAIN = re.compile(
    r"(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+"
    r"[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?"
)


def read_cluster_policy(
    data: dict[str, Any], reader: Reader, source: Source | None
) -> ClusterNetworkPolicy:
    """The policy as it is written; what is wrong is left with the reader."""
    reader.mapping(data, (), _TOP)
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=False)
    if data.get("spec") is None:
        reader.error(("spec",), "is missing")
    spec = reader.mapping(data.get("spec"), ("spec",), _SPEC)
    tier = reader.choice(spec.get("tier"), ("spec", "tier"), Tier)
    if spec.get("tier") is None:
        reader.error(("spec", "tier"), f"is missing; it is one of {', '.join(Tier)}")
    return ClusterNetworkPolicy(
        meta.name,
        Tier(tier) if tier else Tier.ADMIN,
        _priority(spec, reader),
        _subject(spec.get("subject"), reader),
        _rules(spec.get("ingress"), "ingress", "from", reader, source),
        _rules(spec.get("egress"), "egress", "to", reader, source),
        meta.labels,
        source,
    )


def _priority(spec: Mapping[str, Any], reader: Reader) -> int:
    path = ("spec", "priority")
    if spec.get("priority") is None:
        reader.error(path, "is missing; it is a number from 0 (first) to 1000")
    number = reader.integer(spec.get("priority"), path) or 0
    if not 0 <= number <= 1000:
        reader.error(path, f"{number} must be from 0 to 1000")
    return number


def _subject(value: object, reader: Reader) -> Subject:
    path: Path = ("spec", "subject")
    data = reader.mapping(value, path, _SUBJECT)
    given = [key for key in sorted(_SUBJECT) if data.get(key) is not None]
    if len(given) != 1:
        reader.error(path, "must have exactly one of namespaces and pods")
    if data.get("pods") is not None:
        return _pods(data["pods"], (*path, "pods"), reader)
    return Subject(reader.selector(data.get("namespaces"), (*path, "namespaces")))


def _pods(value: object, path: Path, reader: Reader) -> Subject:
    data = reader.mapping(value, path, _PODS)
    if data.get("podSelector") is None:
        reader.error((*path, "podSelector"), "is missing; write {} for all pods")
    return Subject(
        reader.selector(data.get("namespaceSelector"), (*path, "namespaceSelector")),
        reader.selector(data.get("podSelector"), (*path, "podSelector")) or EVERYTHING,
    )


def _rules(
    value: object, direction: str, peers: str, reader: Reader, source: Source | None
) -> tuple[ClusterRule, ...]:
    path: Path = ("spec", direction)
    items = _few(reader.sequence(value, path), path, reader)
    return tuple(
        _rule(item, (*path, i), direction, peers, reader, source) for i, item in enumerate(items)
    )


def _few(items: list[Any], path: Path, reader: Reader) -> list[Any]:
    if len(items) > _MAX_ITEMS:
        reader.error(path, f"holds {len(items)} items; at most {_MAX_ITEMS} are allowed")
    return items


def _rule(
    value: object, path: Path, direction: str, peers: str, reader: Reader, source: Source | None
) -> ClusterRule:
    data = reader.mapping(value, path, frozenset({"name", "action", peers, "protocols"}))
    action = reader.choice(data.get("action"), (*path, "action"), RuleAction)
    if data.get("action") is None:
        reader.error((*path, "action"), f"is missing; it is one of {', '.join(RuleAction)}")
    name = reader.string(data.get("name"), (*path, "name"))
    if len(name) > 100:
        reader.error((*path, "name"), "is longer than 100 characters")
    here = (*path, peers)
    found = tuple(
        _peer(item, (*here, i), direction, reader)
        for i, item in enumerate(_few(reader.sequence(data.get(peers), here), here, reader))
    )
    if not found:
        reader.error(here, "must hold at least one peer")
    ports = _ports(data, (*path, "protocols"), reader)
    if any(port.name is not None for port in ports) and any(
        peer.networks or peer.nodes is not None or peer.domain_names for peer in found
    ):
        reader.error(
            path,
            "has a port by name, and networks, nodes or domainNames have no names for their ports",
        )
    return ClusterRule(
        RuleAction(action) if action else RuleAction.DENY,
        found,
        ports,
        name,
        reader.source(data, source),
    )


def _peer(value: object, path: Path, direction: str, reader: Reader) -> ClusterPeer:
    """An unknown peer is kept as an empty one: it fails closed."""
    data = reader.mapping(value, path, _PEERS[direction])
    given = [key for key in _PEERS[direction] if data.get(key) is not None]
    if len(given) != 1 and not (reader.stored and not given):
        reader.error(path, f"must have exactly one of {', '.join(sorted(_PEERS[direction]))}")
    if len(given) != 1:
        return ClusterPeer()
    key = given[0]
    here, item = (*path, key), data[key]
    match key:
        case "namespaces":
            return ClusterPeer(namespaces=reader.selector(item, here))
        case "pods":
            return ClusterPeer(pods=_pods(item, here, reader))
        case "nodes":
            return ClusterPeer(nodes=reader.selector(item, here))
        case "networks":
            return ClusterPeer(networks=_networks(item, here, reader))
        case _:
            return ClusterPeer(domain_names=_domain_names(item, here, reader))


def _set_of_strings(value: object, path: Path, reader: Reader) -> tuple[str, ...]:
    items = reader.strings(_few(reader.sequence(value, path), path, reader), path)
    if not items:
        reader.error(path, "must hold at least one item")
    for i, item in enumerate(items):
        if item in items[:i]:
            reader.error((*path, i), f"{item!r} is there twice")
    return items


def _networks(value: object, path: Path, reader: Reader) -> tuple[str, ...]:
    from harness.model import cidr

    items = _set_of_strings(value, path, reader)
    for i, item in enumerate(items):
        try:
            cidr.network(item)
            # The CRD's isCIDR takes host bits, and nothing else that is lax.
            if "zeros" in (wrong := cidr.lax(item)) or "clothes" in wrong:
                reader.error((*path, i), f"{item!r} {wrong}")
        except ValueError as error:
            reader.error((*path, i), str(error))
            return ()
    return items


def _domain_names(value: object, path: Path, reader: Reader) -> tuple[str, ...]:
    items = _set_of_strings(value, path, reader)
    for i, item in enumerate(items):
        if not _DOMAIN.fullmatch(item):
            reader.error(
                (*path, i), f"{item!r} is no domain name like example.com or *.example.com"
            )
    return items


def _ports(data: Mapping[str, Any], path: Path, reader: Reader) -> tuple[ClusterPort, ...]:
    items = _few(reader.sequence(data.get("protocols"), path), path, reader)
    if data.get("protocols") is not None and not items:
        reader.error(path, "must hold at least one item; leave it away for every protocol")
    return tuple(_port(item, (*path, i), reader) for i, item in enumerate(items))


def _port(value: object, path: Path, reader: Reader) -> ClusterPort:
    data = reader.mapping(value, path, _PROTOCOLS)
    given = [key for key in _PROTOCOLS if data.get(key) is not None]
    if len(given) != 1:
        reader.error(path, f"must have exactly one of {', '.join(sorted(_PROTOCOLS))}")
        return ClusterPort()
    key = given[0]
    here = (*path, key)
    if key == "destinationNamedPort":
        return ClusterPort(name=reader.string(data[key], here))
    protocol = Protocol(key.upper())
    inner = reader.mapping(data[key], here, frozenset({"destinationPort"}))
    there = (*here, "destinationPort")
    if inner.get("destinationPort") is None:
        reader.error(here, "must have a destinationPort")
        return ClusterPort(protocol)
    port = reader.mapping(inner["destinationPort"], there, frozenset({"number", "range"}))
    if (port.get("number") is None) == (port.get("range") is None):
        reader.error(there, "must have exactly one of number and range")
        return ClusterPort(protocol)
    if port.get("number") is not None:
        return ClusterPort(protocol, _number(port["number"], (*there, "number"), reader))
    span = reader.mapping(port["range"], (*there, "range"), frozenset({"start", "end"}))
    start = _number(span.get("start"), (*there, "range", "start"), reader)
    end = _number(span.get("end"), (*there, "range", "end"), reader)
    if start is not None and end is not None and start >= end:
        reader.error((*there, "range"), f"must start below its end, not at {start} for {end}")
    return ClusterPort(protocol, start, end)


def _number(value: object, path: Path, reader: Reader) -> int | None:
    if value is None:
        reader.error(path, "is missing; it is a number from 1 to 65535")
    number = reader.integer(value, path)
    if number is not None and (wrong := syntax.port_number(number)):
        reader.error(path, f"{number} {wrong}")
    return number
