"""The cluster on every fabric, address family and proxy: pods, Services, names, hostPorts."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.addresses import of_family
from harness.model.actions import Apply
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort, World
from tests.netns.clusters import cluster_up, eventually, wget

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("fabric", "families", "proxy", "mode"),
    [
        ("overlay", (6,), "kube-proxy", "nftables"),
        ("bridged", (4, 6), "kube-proxy", "iptables"),
        ("routed", (4, 6), "lab", "iptables"),
    ],
)
def test_services_and_names(
    tmp_path: Path, fabric: str, families: tuple[int, ...], proxy: str, mode: str
) -> None:
    with cluster_up(
        tmp_path / "lab", fabric=fabric, families=families, proxy=proxy, proxy_mode=mode
    ) as lab:
        pods = [
            Pod("x", f"p{n}", {"app": "p"}, ports=(ContainerPort(80, name="web"),), node=node)
            for n, node in enumerate(("worker", "worker2"))
        ]
        ported = Pod("x", "ported", ports=(ContainerPort(80, host_port=8081),), node="worker")
        service = Service("x", "s", {"app": "p"}, (ServicePort(81, "web"),))
        headless = Service("x", "h", {"app": "p"}, (ServicePort(80, 80),), headless=True)
        outside = Service("x", "n", {"app": "p"}, (ServicePort(80, 80),), type="NodePort")
        things = [*pods, ported, service, headless, outside]
        lab.apply([Apply(Namespace("x")), *(Apply(thing) for thing in things)])
        world = lab.resolve(
            World(
                pods={pod.key: pod for pod in (*pods, ported)},
                services={one.key: one for one in (service, headless, outside)},
            )
        )
        names = {str(pod) for pod in pods}
        node_port = world.services["x", "n"].ports[0].node_port
        assert node_port
        for family in families:
            cluster_ip = of_family(world.services["x", "s"].cluster_ips, family)
            node = of_family(world.nodes["worker2"].ips, family)
            first = of_family(world.nodes["worker"].ips, family)
            assert cluster_ip
            assert node
            assert first
            for url in (
                f"http://{_host(cluster_ip)}:81/t/1",
                f"http://{_host(node)}:{node_port}/t/1",
            ):
                assert _backends(lab, "x/p0", url, names) == names
            host_port = f"http://{_host(first)}:8081/t/1"
            assert _backends(lab, "external:outside", host_port, {"x/ported"}) == {"x/ported"}
        assert _backends(lab, "x/p0", "http://s.x:81/t/1", names) == names
        eventually(lambda: wget(lab, "x/p0", "http://h.x/t/1"))


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _backends(lab: EmbeddedClusterLab, client: str, url: str, wanted: set[str]) -> set[str]:
    """Who answers, until all that are wanted have (each is as likely as the other)."""
    seen: set[str] = set()

    def ask() -> bool:
        answer = wget(lab, client, url).split()
        seen.update(answer[1:2])
        return seen >= wanted

    eventually(ask)
    return seen
