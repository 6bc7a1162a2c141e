"""The API before Kubernetes 1.7: ``extensions/v1beta1`` NetworkPolicy and the namespace annotation.

What it meant (Kubernetes 1.3 to 1.6, API reference of ``extensions/v1beta1``):

* A namespace isolated its pods for ingress by the annotation
  ``net.beta.kubernetes.io/network-policy`` with ``{"ingress": {"isolation": "DefaultDeny"}}``.
  Without it everything was open there, and policies did nothing: they only ever allowed.
* ``from`` and ``ports`` that were *absent* matched everything; *present and empty* they matched
  nothing. In ``networking.k8s.io/v1`` both match everything, so a literal conversion opens.
* There was no egress, no ipBlock, no policyTypes, no endPort, no SCTP, and a peer was one selector.

From 1.7 on servers read the very same text under ``extensions/v1beta1`` as v1 has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.model import syntax, words
from harness.model.fields import Path, Reader
from harness.model.manifest import Loaded, Problem, load, load_text
from harness.model.policy import (
    EVERYTHING,
    NO_LABELS,
    Direction,
    Labels,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Protocol,
    Rule,
    Source,
)
from harness.model.read_meta import read_meta
from harness.model.selectors import selects
from harness.model.world import Namespace, Pod, World

if TYPE_CHECKING:
    from os import PathLike

ANNOTATION = "net.beta.kubernetes.io/network-policy"
VERSION = "extensions/v1beta1"
DEFAULT_DENY = "default-deny"


@dataclass(frozen=True, slots=True)
class LegacyRule:
    """``peers`` and ``ports``: None where absent (everything), empty where empty (nothing)."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None
    source: Source | None = field(default=None, compare=False)

    @property
    def matches_nothing(self) -> bool:
        return self.peers == () or self.ports == ()


@dataclass(frozen=True, slots=True)
class LegacyPolicy:
    """An ``extensions/v1beta1`` NetworkPolicy as Kubernetes 1.3 to 1.6 read it."""

    namespace: str
    name: str
    pod_selector: LabelSelector = EVERYTHING
    rules: tuple[LegacyRule, ...] = ()
    labels: Labels = field(default_factory=lambda: NO_LABELS, hash=False)
    source: Source | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is different, or worth knowing. ``code`` is stable: ``annotation``,
    ``no-effect``, ``empty-from``, ``empty-ports``, ``no-rules``, ``unknown-namespace``,
    ``same``."""

    code: str
    about: str
    text: str
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """``objects`` mean in v1 what was meant; ``notes`` tell the differences; ``problems`` are of
    what could not be read."""

    objects: tuple[Namespace | NetworkPolicy, ...]
    notes: tuple[Note, ...]
    problems: tuple[Problem, ...] = ()


# -- reading ---------------------------------------------------------------------------------------

_TOP = frozenset({"apiVersion", "kind", "metadata", "spec"})
_SPEC = frozenset({"podSelector", "ingress"})
_RULE = frozenset({"from", "ports"})
_PEER = frozenset({"podSelector", "namespaceSelector"})
_PORT = frozenset({"port", "protocol"})
#: Fields that came later, when extensions/v1beta1 meant what v1 does.
_LATER = {"egress", "policyTypes", "ipBlock", "endPort"}


def load_legacy(paths: Iterable[str | PathLike[str]]) -> Loaded:
    """As :func:`harness.model.manifest.load`, with :class:`LegacyPolicy` among the objects."""
    return load(paths, also=_READERS)


def load_legacy_text(text: str, file: str = "<text>") -> Loaded:
    """As :func:`harness.model.manifest.load_text`, with :class:`LegacyPolicy` among the objects."""
    return load_text(text, file, also=_READERS)


def _read(data: dict[str, Any], reader: Reader, source: Source | None) -> LegacyPolicy:
    reader.mapping(data, (), _TOP)
    meta = read_meta(data.get("metadata"), reader, syntax.dns_subdomain, namespaced=True)
    spec = _fields(data.get("spec"), ("spec",), _SPEC, reader)
    path: Path = ("spec", "ingress")
    rules = tuple(
        _read_rule(item, (*path, i), reader, source)
        for i, item in enumerate(reader.sequence(spec.get("ingress"), path))
    )
    selector = reader.selector(spec.get("podSelector"), ("spec", "podSelector"))
    return LegacyPolicy(meta.namespace, meta.name, selector, rules, meta.labels, source)


_READERS = {(VERSION, "NetworkPolicy"): _read}


def _fields(value: object, path: Path, known: frozenset[str], reader: Reader) -> Any:
    data = reader.mapping(value, path)
    for key in data:
        if key in _LATER:
            reader.error(
                (*path, key),
                "came after Kubernetes 1.6, so this was never read in the old way",
                "write apiVersion: networking.k8s.io/v1, and nothing else",
            )
    return reader.mapping({k: v for k, v in data.items() if k not in _LATER}, path, known)


def _read_rule(value: object, path: Path, reader: Reader, source: Source | None) -> LegacyRule:
    data = _fields(value, path, _RULE, reader)
    peers = data.get("from")
    ports = data.get("ports")
    return LegacyRule(
        None
        if peers is None
        else tuple(
            _read_peer(item, (*path, "from", i), reader)
            for i, item in enumerate(reader.sequence(peers, (*path, "from")))
        ),
        None
        if ports is None
        else tuple(
            _read_port(item, (*path, "ports", i), reader)
            for i, item in enumerate(reader.sequence(ports, (*path, "ports")))
        ),
        reader.source(value, source),
    )


def _read_peer(value: object, path: Path, reader: Reader) -> Peer:
    data = _fields(value, path, _PEER, reader)
    given = [key for key in sorted(_PEER) if data.get(key) is not None]
    if len(given) != 1:
        reader.error(path, f"must have exactly one of {' and '.join(sorted(_PEER))}")
    pods, namespaces = data.get("podSelector"), data.get("namespaceSelector")
    return Peer(
        None if pods is None else reader.selector(pods, (*path, "podSelector")),
        None if namespaces is None else reader.selector(namespaces, (*path, "namespaceSelector")),
    )


def _read_port(value: object, path: Path, reader: Reader) -> PolicyPort:
    data = _fields(value, path, _PORT, reader)
    word = reader.choice(data.get("protocol"), (*path, "protocol"), ("TCP", "UDP"))
    port = data.get("port")
    if isinstance(port, str):
        reader.check(port, (*path, "port"), syntax.port_name)
    else:
        port = reader.integer(port, (*path, "port"))
        if port is not None and (wrong := syntax.port_number(port)):
            reader.error((*path, "port"), f"{port} {wrong}")
    return PolicyPort(Protocol(word) if word else Protocol.TCP, port)


# -- what it meant ---------------------------------------------------------------------------------


def isolated(namespace: Namespace) -> bool:
    """Whether the annotation isolates the namespace's pods. Raises ValueError for an annotation
    that is no such JSON."""
    text = namespace.annotations.get(ANNOTATION)
    if text is None:
        return False
    try:
        value = json.loads(text)
        isolation = value.get("ingress", {}).get("isolation")
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(
            f"the annotation {ANNOTATION} of namespace {namespace.name} is not "
            f'{{"ingress": {{"isolation": "DefaultDeny"}}}}'
        ) from None
    return bool(isolation == "DefaultDeny")


def allowed(
    world: World,
    policies: Iterable[LegacyPolicy],
    source: Pod,
    target: Pod,
    port: int,
    protocol: Protocol = Protocol.TCP,
) -> bool:
    """What Kubernetes 1.3 to 1.6 said of a connection between two different pods. ``world`` gives
    the namespaces, of which an unknown one is not isolated. Raises as :func:`isolated`."""
    namespace = world.namespaces.get(target.namespace)
    if namespace is None or not isolated(namespace):
        return True
    return any(
        policy.namespace == target.namespace
        and selects(policy.pod_selector, target.labels)
        and any(
            _peers_match(rule, policy.namespace, source, world)
            and _ports_match(rule, target, port, protocol)
            for rule in policy.rules
        )
        for policy in policies
    )


def _peers_match(rule: LegacyRule, namespace: str, source: Pod, world: World) -> bool:
    return rule.peers is None or any(
        selects(peer.namespace_selector, world.namespace_labels(source.namespace))
        if peer.namespace_selector is not None
        else source.namespace == namespace
        and peer.pod_selector is not None
        and selects(peer.pod_selector, source.labels)
        for peer in rule.peers
    )


def _ports_match(rule: LegacyRule, target: Pod, port: int, protocol: Protocol) -> bool:
    return rule.ports is None or any(
        wanted.protocol is protocol
        and (
            wanted.port in (None, port)
            or any(
                own.name == wanted.port and (own.port, own.protocol) == (port, protocol)
                for own in target.ports
            )
        )
        for wanted in rule.ports
    )


def meaning(policy: LegacyPolicy, *, in_isolated: bool) -> str:
    """What an old policy did, in words. ``in_isolated``: whether its namespace was isolated."""
    who = words.things("pods", policy.pod_selector)
    if not in_isolated:
        return f"{policy} did nothing: its namespace was not isolated, and policies only allowed"
    rules = [rule for rule in policy.rules if not rule.matches_nothing]
    if not rules:
        return f"{policy} allowed nothing"
    texts = [words.rule(_as_v1(rule), Direction.INGRESS, policy.namespace) for rule in rules]
    return f"{policy} let connections in to {who} of {policy.namespace}, {'; and '.join(texts)}"


# -- the same in v1 --------------------------------------------------------------------------------


def convert(objects: Iterable[object], problems: Iterable[Problem] = ()) -> Converted:
    """The v1 objects that mean what the old ones meant, and the differences.

    ``objects`` as :func:`load_legacy` gives them; of others than Namespaces and LegacyPolicies
    there is nothing to convert. A namespace that is only named counts as not isolated, with a
    note. Never raises for bad input.
    """
    objects = list(objects)
    namespaces = {thing.name: thing for thing in objects if isinstance(thing, Namespace)}
    policies = [thing for thing in objects if isinstance(thing, LegacyPolicy)]
    taken = {thing.key for thing in objects if isinstance(thing, LegacyPolicy | NetworkPolicy)}
    shut: set[str] = set()
    made: list[Namespace | NetworkPolicy] = []
    notes: list[Note] = []
    found = list(problems)
    for namespace in namespaces.values():
        try:
            closed = isolated(namespace)
        except ValueError as error:
            found.append(_problem(namespace.source, str(error)))
            continue
        if ANNOTATION not in namespace.annotations:
            continue
        kept = {k: v for k, v in namespace.annotations.items() if k != ANNOTATION}
        made.append(replace(namespace, annotations=kept))
        if closed:
            shut.add(namespace.name)
            made.append(_default_deny(namespace, taken))
        notes.append(_about_annotation(namespace, made[-1] if closed else None))
    for policy in policies:
        known = policy.namespace in namespaces
        converted, said = _converted(policy, in_isolated=policy.namespace in shut, known=known)
        made += converted
        notes += said
    return Converted(tuple(made), tuple(notes), tuple(found))


def _problem(source: Source | None, message: str) -> Problem:
    file, line = (source.file, source.line) if source else ("", 0)
    return Problem(file, line, f"metadata.annotations[{ANNOTATION}]", message)


def _default_deny(namespace: Namespace, taken: set[tuple[str, str]]) -> NetworkPolicy:
    name, number = DEFAULT_DENY, 1
    while (namespace.name, name) in taken:
        number += 1
        name = f"{DEFAULT_DENY}-{number}"
    return NetworkPolicy(
        namespace.name, name, EVERYTHING, (Direction.INGRESS,), source=namespace.source
    )


def _about_annotation(namespace: Namespace, policy: object) -> Note:
    about = f"namespace {namespace.name}"
    if policy is None:
        text = f"{about} had the annotation, but was not isolated by it; v1 has no such annotation"
    else:
        text = (
            f"{about} was isolated by its annotation, which means nothing any more: the policy "
            f"{policy}, which selects all pods and allows nothing, takes its place"
        )
    return Note("annotation", about, text, namespace.source)


def _converted(
    policy: LegacyPolicy, *, in_isolated: bool, known: bool
) -> tuple[Sequence[NetworkPolicy], list[Note]]:
    about = str(policy)
    if not in_isolated:
        code = "no-effect" if known else "unknown-namespace"
        why = (
            "its namespace is not isolated"
            if known
            else f"namespace {policy.namespace} is not among what was read, so it counts as not "
            f"isolated"
        )
        who = words.things("pods", policy.pod_selector)
        text = (
            f"{policy} did nothing, for {why}, so it has no equivalent; taken literally into v1 "
            f"it would shut {who} to all but what it allows"
        )
        return (), [Note(code, about, text, policy.source)]
    notes = list(_notes_on_rules(policy))
    rules = tuple(_as_v1(rule) for rule in policy.rules if not rule.matches_nothing)
    if not rules:
        text = (
            f"{policy} allowed nothing, and its namespace isolates all pods as it is: nothing is "
            f"lost without it"
        )
        return (), [*notes, Note("no-rules", about, text, policy.source)]
    if not notes:
        text = f"{policy} means the same in v1, beside the policy that isolates its namespace"
        notes.append(Note("same", about, text, policy.source))
    return (
        NetworkPolicy(
            policy.namespace,
            policy.name,
            policy.pod_selector,
            (Direction.INGRESS,),
            rules,
            (),
            policy.labels,
            policy.source,
        ),
    ), notes


def _notes_on_rules(policy: LegacyPolicy) -> Iterator[Note]:
    for i, rule in enumerate(policy.rules, 1):
        for code, items, what in (
            ("empty-from", rule.peers, "from nobody"),
            ("empty-ports", rule.ports, "at no port"),
        ):
            if items == ():
                name = code.removeprefix("empty-")
                text = (
                    f"{policy}, rule {i}, has an empty {name}: it matched nothing ({what}), and in "
                    f"v1 it would match everything, so the rule is left out; taken literally it "
                    f"would open"
                )
                yield Note(code, str(policy), text, rule.source or policy.source)


def _as_v1(rule: LegacyRule) -> Rule:
    return Rule(rule.peers or (), rule.ports or (), rule.source)
