"""Names and comments for kernel objects: short, told apart by a digest, never cut ambiguously."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from harness.enforcer.compiled import PodQuery

DIGEST = 16  # hexadecimal digits: 64 bits


def digest(text: str) -> str:
    """What tells one name from another: 64 bits of the text's SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


@lru_cache(maxsize=1 << 16)
def of_query(query: PodQuery) -> str:
    """The digest of a query."""
    return digest(repr(query))


def of_union(union: frozenset[PodQuery]) -> str:
    """The digest of a union of queries, whatever their order."""
    return digest(" ".join(sorted(of_query(query) for query in union)))


def comment(text: str, limit: int) -> str:
    """Text for a rule's comment: at most ``limit`` bytes, what is cut marked by a digest.

    Quotes, control characters and all beyond ASCII become ``?``: the tools would trip over them.
    """
    clean = re.sub(r"[^ !#-\[\]-~]", "?", text)
    if len(clean) <= limit:
        return clean
    tail = f"...{digest(text)}"
    return clean[: limit - len(tail)] + tail
