"""A cluster that is as kind leaves it: real API, made of namespaces, behind stand-in programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cnis import catalogue
from harness.labs.cluster.objects import Images
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import stream_module
from harness.run import embedded
from harness.run.place import Place
from tests.standins import Standins

COREDNS = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "coredns", "namespace": "kube-system"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "coredns"}},
        "template": {
            "metadata": {"labels": {"app": "coredns"}},
            "spec": {
                "containers": [
                    {"name": "coredns", "image": "busybox", "command": ["sleep", "3600"]}
                ]
            },
        },
    },
}

ENTRY = """\
title = "Agent"
network = "routed"
labs = ["kind"]
enforces = true
deny = "drop"
config = "kind-none.yaml"
routes = true

[[ready]]
namespace = "agent"
kind = "DaemonSet"
name = "agent"

[[evidence]]
title = "rules"
argv = ["iptables-nft-save", "-c"]
"""
"""The catalogue's form of the CNI that :data:`AGENT` installs."""

AGENT = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.agent.example.org}
spec:
  group: agent.example.org
  scope: Cluster
  names: {plural: pools, singular: pool, kind: Pool}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: agent.example.org/v1
kind: Pool
metadata: {name: default}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: HOME}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers:
        - name: agent
          image: docker.io/library/busybox:1.37
          command: [sh, -c, "echo the agent begins; sleep 3600"]
---
apiVersion: v1
kind: Namespace
metadata: {name: HOME}
"""
"""A CNI's manifest, in namespace HOME: what has to come first stands last."""


@contextmanager
def as_kind(
    directory: Path, cni: str = "enforcer"
) -> Iterator[tuple[EmbeddedClusterLab, Standins]]:
    """The cluster, with ``cni`` as its policy engine, and the programs that seem to make it."""
    place = Place(api=True, run="kind")
    lab = embedded.make(catalogue.get(cni), place, directory / "lab")
    assert isinstance(lab, EmbeddedClusterLab)
    lab.up()
    try:
        # The nodes' own servers make room for those of the lab on the cluster.
        lab.holder.request("drop", boxes=[f"server@node:{name}" for name in lab.node_names])
        lab.api.apply(COREDNS)
        standins = Standins(directory / "standins", lab.node_names)
        kubeconfig = lab.plane.kubeconfig(lab.forward().server)
        (standins.folder / "kubeconfig").write_text(kubeconfig)
        yield lab, standins
    finally:
        lab.down()


def images(lab: EmbeddedClusterLab) -> Images:
    """What stands for nginx and busybox there."""
    return Images("nginx", "busybox", stream_module(lab.holder))


def names(lab: EmbeddedClusterLab, kind: str, **chosen: Any) -> list[str]:
    """Names of the objects of a kind."""
    return [item["metadata"]["name"] for item in lab.api.list(kind, **chosen)["items"]]
