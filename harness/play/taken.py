"""What runs on a live cluster, taken down as manifests: a run is derived from the file, and can be
done again from it when the cluster has become another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.desk.inputs import InputError
from harness.desk.live import read_cluster
from harness.labs.base import LabError
from harness.model.manifest import to_yaml
from harness.model.world import World
from harness.play import furnish
from harness.play.derived import lacking


@dataclass(frozen=True, slots=True)
class Taken:
    """``objects``: what was found, as an embedded lab can have it. ``notes`` and ``lacking`` as
    of what is derived from manifests."""

    objects: tuple[Any, ...]
    notes: tuple[str, ...]
    lacking: tuple[str, ...]

    def write(self, file: Path, where: str) -> None:
        """As manifests, with a line that says where they are from. Raises LabError."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# {where} at {now}\n{to_yaml(self.objects)}", encoding="utf-8")
        except OSError as error:
            raise LabError(f"{file} cannot be written: {error.strerror}") from None


def take(context: str, namespaces: Sequence[str] = ()) -> Taken:
    """What is in a cluster, or in some of its namespaces; "" is the current context. Only pods are
    read, not the workloads that have made them. Raises LabError."""
    try:
        loaded = read_cluster("", context, namespaces)
    except InputError as error:
        raise LabError(str(error)) from None
    everything = loaded.world()
    world = furnish.portable(everything)
    if not (world.pods or world.policies or world.cluster_policies):
        raise LabError("there is no pod and no policy there to derive from")
    return Taken(tuple(_objects(world)), tuple(_notes(everything, world)), tuple(lacking(loaded)))


def _objects(world: World) -> Iterator[Any]:
    """Namespaces with nothing in them as well: policies may select those by their labels."""
    for home in (world.namespaces, world.pods, world.services, world.policies):
        yield from home.values()
    yield from world.cluster_policies.values()


def _notes(everything: World, world: World) -> Iterator[str]:
    gone = Counter(namespace for namespace, _ in everything.pods.keys() - world.pods.keys())
    for namespace, number in gone.items():
        yield f"{number} pods of {namespace} are left out: the lab has its own"
    policies = len(world.policies) + len(world.cluster_policies)
    yield f"{len(world.pods)} pods, {len(world.services)} Services and {policies} policies taken"
