"""Which kind, and which node image with it: pinned by digest, as each kind release publishes them.

A kind that is not in the table brings a pinned default of its own, which is then taken.
"""

from __future__ import annotations

import re

#: The oldest kind whose flags and configuration are those that are used here.
OLDEST = (0, 32)

#: kind's minor version -> Kubernetes' minor version -> the image that was published for it.
NODE_IMAGES: dict[tuple[int, int], dict[str, str]] = {
    (0, 33): {
        "1.37": "docker.io/kindest/node:v1.37.0@sha256:"
        "a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5",
        "1.36": "docker.io/kindest/node:v1.36.4@sha256:"
        "099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed",
        "1.35": "docker.io/kindest/node:v1.35.8@sha256:"
        "07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0",
        "1.34": "docker.io/kindest/node:v1.34.11@sha256:"
        "44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d",
    },
    (0, 32): {
        "1.36": "docker.io/kindest/node:v1.36.1@sha256:"
        "3489c7674813ba5d8b1a9977baea8a6e553784dab7b84759d1014dbd78f7ebd5",
    },
}
DEFAULT = "1.36"
NODE_REPOSITORY = "docker.io/kindest/node"

_NUMBER = re.compile(r"v?(\d+)\.(\d+)")


def of_kind(text: str) -> tuple[int, int] | None:
    """Minor version in the output of ``kind version``."""
    found = _NUMBER.search(text)
    return (int(found[1]), int(found[2])) if found else None


def node_image(kind: tuple[int, int], wanted: str = "") -> str:
    """The node image for a kind. ``wanted``: an image, or a minor version of Kubernetes (``1.35``);
    empty: the default. Empty is returned where kind's own default is to be taken."""
    known = NODE_IMAGES.get(kind, {})
    if not wanted:
        return known.get(DEFAULT, "")
    return known.get(wanted.removeprefix("v"), wanted)


def of_image(image: str) -> tuple[int, int] | None:
    """Minor version of Kubernetes in the tag of a node image; None where it says nothing."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    found = _NUMBER.match(tag)
    return (int(found[1]), int(found[2])) if found else None
