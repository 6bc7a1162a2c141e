"""Names of container images, as runtimes spell them out."""

from __future__ import annotations

_HUB = "docker.io"


def full(name: str) -> str:
    """A name with its registry and tag: ``nginx`` is ``docker.io/library/nginx:latest``.

    A digest is kept, and then no tag is added.
    """
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"{_HUB}/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"{_HUB}/{name}"
    if "@" in name:
        return name
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def repository(name: str) -> str:
    """A full name without tag and digest."""
    name = full(name).partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name
