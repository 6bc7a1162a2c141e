"""``networking.k8s.io/v1`` NetworkPolicy: manifest data -> AST, validated as the API server does.

Source of the rules: ``k8s.io/kubernetes/pkg/apis/networking/validation``, and the API's own
decoding (``null`` is an absent field, and an empty item in a list).
"""

from __future__ import annotations

from typing import Any

from harness.model import syntax
from harness.model.fields import Path, Reader
from harness.model.policy import (
    Direction,
    IPBlock,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Protocol,
    Rule,
    Source,
)
from harness.model.read_meta import read_meta

_NO_STATUS_SINCE = (1, 28)
_TOP = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SPEC = frozenset({"podSelector", "policyTypes", "ingress", "egress"})
_PEER = frozenset({"podSelector", "namespaceSelector", "ipBlock"})
_PORT = frozenset({"port", "protocol", "endPort"})
_BLOCK = frozenset({"cidr", "except"})


def read_policy(data: dict[str, Any], reader: Reader, source: Source | None) -> NetworkPolicy:
    """The policy as it is written; what is wrong is left with the reader."""
    reader.mapping(data, (), _TOP)
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=True)
    if "status" in data and not reader.stored:
        # Manifests that were taken from an older server have one.
        known = reader.server_version is None or reader.server_version < _NO_STATUS_SINCE
        note = reader.warn if known else reader.error
        note(("status",), "is no field of NetworkPolicy since Kubernetes 1.28", "leave it away")
    spec = reader.mapping(data.get("spec"), ("spec",), _SPEC)
    if not spec and not reader.stored:
        reader.warn(
            ("spec",),
            "is empty or missing: this selects every pod of the namespace and lets nothing in",
        )
    return NetworkPolicy(
        meta.namespace,
        meta.name,
        reader.selector(spec.get("podSelector"), ("spec", "podSelector")),
        _policy_types(spec.get("policyTypes"), reader),
        _rules(spec.get("ingress"), "ingress", "from", reader, source),
        _rules(spec.get("egress"), "egress", "to", reader, source),
        meta.labels,
        source,
    )


def _policy_types(value: object, reader: Reader) -> tuple[Direction, ...]:
    path: Path = ("spec", "policyTypes")
    items = reader.sequence(value, path)
    if len(items) > len(Direction):
        reader.error(path, "may hold Ingress and Egress, and each of them once")
        return ()
    types = []
    for i, item in enumerate(items):
        word = reader.choice(item, (*path, i), Direction)
        if word is not None:
            types.append(Direction(word))
        elif item is None:
            reader.error((*path, i), "is empty; write Ingress or Egress")
    return tuple(types)


def _rules(
    value: object, direction: str, peers: str, reader: Reader, source: Source | None
) -> tuple[Rule, ...]:
    path: Path = ("spec", direction)
    known = frozenset({"ports", peers})
    rules = []
    for i, item in enumerate(reader.sequence(value, path)):
        here = (*path, i)
        data = reader.mapping(item, here, known)
        rules.append(
            Rule(
                tuple(
                    read_peer(peer, (*here, peers, j), reader)
                    for j, peer in enumerate(reader.sequence(data.get(peers), (*here, peers)))
                ),
                tuple(
                    _port(port, (*here, "ports", j), reader)
                    for j, port in enumerate(reader.sequence(data.get("ports"), (*here, "ports")))
                ),
                reader.source(data, source),
            )
        )
    return tuple(rules)


def read_peer(value: object, path: Path, reader: Reader) -> Peer:
    data = reader.mapping(value, path, _PEER)
    pods, namespaces, block = (
        data.get("podSelector"),
        data.get("namespaceSelector"),
        data.get("ipBlock"),
    )
    peer = Peer(
        None if pods is None else reader.selector(pods, (*path, "podSelector")),
        None if namespaces is None else reader.selector(namespaces, (*path, "namespaceSelector")),
        None if block is None else _ip_block(block, (*path, "ipBlock"), reader),
    )
    if reader.stored:
        return peer
    if peer == Peer():
        reader.error(
            path,
            "names no peer",
            "write podSelector: {} for all pods of this namespace, namespaceSelector: {} for all "
            "pods, or leave the whole list away for everybody",
        )
    elif block is not None and (pods is not None or namespaces is not None):
        reader.error(
            path,
            "has an ipBlock and a selector, which cannot both hold",
            "make two list items of it, if either shall do",
        )
    return peer


def _ip_block(value: object, path: Path, reader: Reader) -> IPBlock:
    data = reader.mapping(value, path, _BLOCK)
    cidr = reader.cidr(data.get("cidr"), (*path, "cidr"))
    excepts = []
    for i, item in enumerate(reader.sequence(data.get("except"), (*path, "except"))):
        here = (*path, "except", i)
        but = reader.cidr(item, here)
        if but:
            excepts.append(but)
        if cidr and but and not _strictly_inside(but, cidr):
            reader.error(here, f"{but!r} must lie within {cidr!r} and be smaller than it")
    return IPBlock(cidr, tuple(excepts))


def _strictly_inside(inner: str, outer: str) -> bool:
    from harness.model import cidr

    a, b = cidr.network(inner), cidr.network(outer)
    return a.version == b.version and a.network_address in b and a.prefixlen > b.prefixlen


def _port(value: object, path: Path, reader: Reader) -> PolicyPort:
    data = reader.mapping(value, path, _PORT)
    word = reader.choice(data.get("protocol"), (*path, "protocol"), Protocol)
    protocol = Protocol(word) if word is not None else Protocol.TCP
    end_port = reader.integer(data.get("endPort"), (*path, "endPort"))
    port = data.get("port")
    here = (*path, "port")
    if isinstance(port, str):
        reader.check(port, here, syntax.port_name)
        if end_port is not None:
            reader.error((*path, "endPort"), f"needs a number as port, and {port!r} is a name")
        return PolicyPort(protocol, port, end_port)
    number = reader.integer(port, here)
    if number is None:
        if end_port is not None and port is None:
            reader.error((*path, "endPort"), "needs a port to begin with")
        return PolicyPort(protocol, None, end_port)
    if wrong := syntax.port_number(number):
        reader.error(here, f"{number} {wrong}")
    if end_port is not None:
        if end_port < number:
            reader.error((*path, "endPort"), f"{end_port} is below port {number}")
        if wrong := syntax.port_number(end_port):
            reader.error((*path, "endPort"), f"{end_port} {wrong}")
    return PolicyPort(protocol, number, end_port)
