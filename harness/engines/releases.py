"""Versions of an engine as tags of its image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from packaging.version import InvalidVersion, Version

from harness.cnis.engine import ApiEngine
from harness.engines import images
from harness.engines.images import ImageError


def tag_of(engine: ApiEngine, version: str) -> str:
    """The tag of a version."""
    return engine.tag.replace("{version}", version)


def versions_among(engine: ApiEngine, tags: Iterable[str]) -> list[str]:
    """The released versions that these tags stand for, the oldest first."""
    before, _, after = engine.tag.partition("{version}")
    shape = re.compile(re.escape(before) + r"(\d+(?:\.\d+)+)" + re.escape(after))
    found = {match[1] for tag in tags if (match := shape.fullmatch(tag))}
    return sorted(found, key=Version)


def exact(wanted: str, known: Sequence[str], repository: str) -> str:
    """``3.32.1`` is itself; ``3.32`` is the newest of its patches. Raises ImageError."""
    wanted = wanted.removeprefix("v")
    if wanted in known:
        return wanted
    patches = [version for version in known if version.startswith(f"{wanted}.")]
    if patches:
        return patches[-1]
    raise ImageError(
        f"{repository} has no release {wanted}",
        hint=f"the newest that it has: {', '.join(known[-6:]) or 'none'}",
    )


def between(good: str, bad: str, known: Sequence[str]) -> list[str]:
    """All releases from one to the other, both included, in the order of going there."""
    low, high = sorted((Version(good), Version(bad)))
    inside = [version for version in known if low <= Version(version) <= high]
    return inside if Version(good) <= Version(bad) else inside[::-1]


def released(engine: ApiEngine, repository: str) -> list[str]:
    """What the registry has. Raises ImageError."""
    return versions_among(engine, images.tags(repository))


def is_whole(version: str) -> bool:
    """Whether a version names one release and not a series of them."""
    try:
        return len(Version(version).release) >= 3
    except InvalidVersion:
        return False
