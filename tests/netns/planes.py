"""A real API server for tests that need no nodes, pods or proxies: etcd and the control plane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.labs.controlplane import binaries, crds
from harness.labs.controlplane.plane import ControlPlane
from harness.labs.netns import addresses as ip
from harness.labs.netns.client import Holder
from harness.labs.netns.fabric import FABRICS
from harness.labs.netns.topology import Topology
from harness.model.world import Node
from tests.netns.clusters import eventually


@contextmanager
def plane_up(directory: Path) -> Iterator[ControlPlane]:
    """A control plane that serves NetworkPolicy and ClusterNetworkPolicy.

    Where the programs or the CRD lack it fails, with what makes them (`make api-binaries`).
    """
    found, definition = binaries.find(), crds.find()
    directory.mkdir(parents=True, exist_ok=True)
    holder = Holder(directory / "lab.log")
    try:
        topology = Topology(holder, FABRICS["routed"], (4,))
        node = Node("control-plane", (ip.at(ip.NODE_CIDRS[4], 2),))
        topology.start([node])
        plane = ControlPlane(holder, [node], found, logs=directory / "api")
        try:
            plane.start()
            api = plane.api()
            api.apply(definition)
            name = definition["metadata"]["name"]

            def established() -> bool:
                data = api.get("CustomResourceDefinition", "", name)
                conditions = data.get("status", {}).get("conditions") or ()
                return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

            eventually(established)
            eventually(lambda: api.find("ServiceAccount", "default", "default"))
            yield plane
            plane.check()
        finally:
            plane.abandon()
    finally:
        holder.close()
