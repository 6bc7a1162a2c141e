"""The cluster's DNS server: dnsmasq in a pod behind a Service, as CoreDNS is.

It answers for ``NAME.NAMESPACE.svc.cluster.local``: the ClusterIPs, or the ready pods of a
headless Service. What it does not know does not exist.
"""

from __future__ import annotations

from harness.labs.netns.furnish import directory
from harness.labs.netns.topology import CLUSTER_DOMAIN, Spec
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Pod, Service, ServicePort, Workload, World

NAMESPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
PORT = 53


def pod(node: str) -> Pod:
    """The server's pod."""
    return Pod(
        NAMESPACE,
        "coredns-0",
        LABELS,
        node=node,
        ports=(
            ContainerPort(PORT, Protocol.UDP, "dns"),
            ContainerPort(PORT, Protocol.TCP, "dns-tcp"),
        ),
        workload=Workload.SERVER,
    )


def service(cluster_ips: tuple[str, ...]) -> Service:
    """The Service in front of it."""
    return Service(
        NAMESPACE,
        "kube-dns",
        LABELS,
        (
            ServicePort(PORT, PORT, Protocol.UDP, "dns"),
            ServicePort(PORT, PORT, Protocol.TCP, "dns-tcp"),
        ),
        cluster_ips,
    )


def hosts_file(box: str) -> str:
    """Where the server in that box reads its names."""
    return f"{directory(box)}/hosts"


def loaded(box: str) -> str:
    """What it says when it has read them."""
    return f"read {hosts_file(box)}"


def process(box: str) -> Spec:
    """What runs in the pod."""
    path = hosts_file(box)
    return {
        "files": {path: ""},
        "argv": [
            *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--log-facility=-"),
            *("--no-resolv", "--no-hosts", f"--addn-hosts={path}", "--cache-size=0"),
            *(f"--port={PORT}", f"--local=/{CLUSTER_DOMAIN}/", "--address=/#/"),
        ],
        "ready": loaded(box),
    }


def hosts(world: World) -> str:
    """The names of a world, as a hosts file."""
    lines = []
    for (namespace, name), item in sorted(world.services.items()):
        addresses = item.cluster_ips
        if item.headless:
            addresses = tuple(ip for backend in world.backends(item) for ip in backend.ips)
        full = f"{name}.{namespace}.svc.{CLUSTER_DOMAIN}"
        lines += [f"{address} {full}\n" for address in addresses]
    return "".join(lines)
