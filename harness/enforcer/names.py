"""Names and comments for kernel objects: short, told apart by a digest, never cut ambiguously."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

from harness.enforcer.compiled import Anything, Layer, PodQuery, Ports, Target, Way
from harness.enforcer.ranges import Range
from harness.model.policy import Direction, Protocol

DIGEST = 16  # hexadecimal digits: 64 bits


def digest(text: str) -> str:
    """What tells one name from another: 64 bits of the text's SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


@lru_cache(maxsize=1 << 16)
def of_query(query: PodQuery) -> str:
    """The digest of a query."""
    return digest(repr(query))


def of_queries(queries: Iterable[PodQuery]) -> str:
    """The digest of several queries, whatever their order."""
    return digest(" ".join(sorted(of_query(query) for query in queries)))


@lru_cache(maxsize=1 << 16)
def of_ports(ports: Ports | Anything) -> str:
    """The digest of a list of ports."""
    return digest(repr(ports))


LETTER = {Direction.INGRESS: "i", Direction.EGRESS: "o"}


def pod_set(union: frozenset[PodQuery], *, guard: bool = False) -> str:
    """The set of the addresses that a union of queries finds. ``guard``: one that shuts."""
    return f"{'q' if guard else 'p'}-{of_queries(union)}"


def block_set(ranges: tuple[Range, ...]) -> str:
    """The set of some address ranges."""
    return f"b-{digest(repr(ranges))}"


def port_set(protocol: Protocol, name: str) -> str:
    """The set of the numbers that pods give to one name."""
    return f"n-{digest(f'{protocol} {name}')}"


def target_chain(target: Target) -> str:
    """The chain of what policies that select the same pods allow together."""
    return f"t{LETTER[target.direction]}-{of_query(target.query)}"


def tier_chain(layers: tuple[Layer, ...]) -> str:
    """The chain of some layers of one tier, in their order."""
    return f"a{LETTER[layers[0].direction]}-{digest(repr(layers))}"


def class_chain(direction: Direction, way: Way) -> str:
    """The chain of the pods that the same policies speak of."""
    targets = None if way.targets is None else of_queries(target.query for target in way.targets)
    return f"c{LETTER[direction]}-{digest(repr((way.admin, targets, way.baseline)))}"


def isolated(direction: Direction, targets: tuple[Target, ...]) -> str:
    """What the last rule of a class says of itself."""
    return f"{direction} isolated by policies of namespace {targets[0].query.namespaces}"


def comment(text: str, limit: int) -> str:
    """Text for a rule's comment: at most ``limit`` bytes, what is cut marked by a digest.

    Quotes, control characters and all beyond ASCII become ``?``: the tools would trip over them.
    """
    clean = re.sub(r"[^ !#-\[\]-~]", "?", text)
    if len(clean) <= limit:
        return clean
    tail = f"...{digest(text)}"
    return clean[: limit - len(tail)] + tail
