"""How the programs of a control plane are started: one function with the arguments of each.

Why these flags: everything lives and dies with the lab, so that nothing is synced to a disk, no
leader is elected, and no port is opened that nobody asks. The limits on requests a second are
lifted because the clients' defaults (20 a second) are meant for clusters that others share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.labs.controlplane.binaries import Binaries
from harness.labs.netns import addresses as ip
from harness.labs.netns.furnish import RUN

HOME = f"{RUN}/api"
"""Files of the control plane, on the lab's own file system: they vanish with it."""
PORT = 6443
KUBELET_PORT = 10250
ETCD = "http://127.0.0.1:2379"
DOMAIN = "cluster.local"
ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"

#: Controllers for what hollow nodes have not: volumes, autoscaling, certificate requests.
_NO_CONTROLLERS = (
    "horizontal-pod-autoscaler-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "ephemeral-volume-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "service-lb-controller",
    "node-route-controller",
    # It annotates a new node while that is given its pod range, and the allocator, which then looks
    # at the node twice, passes a range over. Its hint is for the caches of kubelets.
    "ttl-controller",
    "cloud-node-lifecycle-controller",
    "bootstrap-signer-controller",
    "token-cleaner-controller",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """``address``: where the API server listens; ``families``: 4, 6 or both, the first leads."""

    binaries: Binaries
    address: str
    families: tuple[int, ...]

    @property
    def server(self) -> str:
        """URL of the API server inside of the lab."""
        return f"https://{bracketed(self.address)}:{PORT}"

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of Kubernetes."""
        major, minor = self.binaries.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def service_cidrs(self) -> str:
        return ",".join(ip.SERVICE_CIDRS[family] for family in self.families)

    @property
    def cluster_cidrs(self) -> str:
        return ",".join(ip.CLUSTER_CIDRS[family] for family in self.families)


def bracketed(address: str) -> str:
    """An address as URLs want it."""
    return f"[{address}]" if ":" in address else address


def kubeconfig_path(who: str) -> str:
    """Where the kubeconfig of one of the programs is."""
    return f"{HOME}/{who}.kubeconfig"


def etcd(settings: Settings) -> list[str]:
    """The store; on loopback of the node that it runs on."""
    peer = "http://127.0.0.1:2380"
    return [
        str(settings.binaries["etcd"]),
        "--name=lab",
        f"--data-dir={HOME}/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def kube_apiserver(settings: Settings) -> list[str]:
    """The API server, RBAC and the Node authorizer on."""
    return [
        str(settings.binaries["kube-apiserver"]),
        f"--etcd-servers={ETCD}",
        f"--bind-address={settings.address}",
        f"--advertise-address={settings.address}",
        f"--secure-port={PORT}",
        f"--tls-cert-file={HOME}/apiserver.crt",
        f"--tls-private-key-file={HOME}/apiserver.key",
        f"--client-ca-file={HOME}/ca.crt",
        f"--token-auth-file={HOME}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={HOME}/sa.pub",
        f"--service-account-signing-key-file={HOME}/sa.key",
        f"--service-cluster-ip-range={settings.service_cidrs}",
        f"--kubelet-certificate-authority={HOME}/ca.crt",
        f"--kubelet-client-certificate={HOME}/apiserver-kubelet.crt",
        f"--kubelet-client-key={HOME}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def kube_controller_manager(settings: Settings) -> list[str]:
    """Deployments, Jobs, EndpointSlices, service accounts, node CIDRs, garbage collection, …"""
    masks = [
        f"--node-cidr-mask-size-ipv{family}={ip.NODE_MASKS[family]}" for family in settings.families
    ]
    if len(masks) == 1:
        masks = [f"--node-cidr-mask-size={ip.NODE_MASKS[settings.families[0]]}"]
    return [
        str(settings.binaries["kube-controller-manager"]),
        f"--kubeconfig={kubeconfig_path('controller-manager')}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
        "--allocate-node-cidrs",
        f"--cluster-cidr={settings.cluster_cidrs}",
        f"--service-cluster-ip-range={settings.service_cidrs}",
        *masks,
        f"--service-account-private-key-file={HOME}/sa.key",
        f"--root-ca-file={HOME}/ca.crt",
        "--use-service-account-credentials",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in _NO_CONTROLLERS)]),
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def kube_scheduler(settings: Settings) -> list[str]:
    """Who binds pods to nodes."""
    return [
        str(settings.binaries["kube-scheduler"]),
        f"--kubeconfig={kubeconfig_path('scheduler')}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def kube_proxy(settings: Settings, node: str, mode: str) -> list[str]:
    """Services on one node. ``mode``: ``iptables`` or ``nftables``.

    The three conntrack settings are sysctls that only the host's administrator may write.
    """
    return [
        str(settings.binaries["kube-proxy"]),
        f"--kubeconfig={kubeconfig_path('proxy')}",
        f"--hostname-override={node}",
        f"--proxy-mode={mode}",
        f"--cluster-cidr={settings.cluster_cidrs}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--iptables-min-sync-period=0s",
        "--nodeport-addresses=primary",
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-bind-address=127.0.0.1:10256",
        "--profiling=false",
    ]


def component_users() -> Sequence[tuple[str, str]]:
    """(file name, user) of the programs that have a kubeconfig of their own."""
    return (
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
        ("proxy", "system:kube-proxy"),
    )
