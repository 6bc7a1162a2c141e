"""The harness's values as the API's objects: what is really sent to a cluster.

A pod of the harness runs images as they are published, with everything else in its manifest: the
server's configuration comes in an environment variable, so that a pod is one request. Its first
process waits at a FIFO for the exit code to end with, because from inside of a container the
first process can hardly be killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.labs import server
from harness.labs.base import LabError
from harness.model.manifest import to_manifest
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, Pod, Service, Workload

Json = dict[str, Any]

RUN_LABEL = "netpol-harness/run"
"""On everything that a run makes: what has it may be deleted."""
WORKER_LABEL = "netpol-harness/worker"
"""Which of a run's workers has made it, where several share a cluster."""
KEPT_LABEL = "netpol-harness/kept"
"""On the namespaces of a run that is over and leaves what it has made on purpose."""
CLIENT = "client"
IPS_ANNOTATION = "netpol-harness/ips"

_LONGEST_PAGE = 120_000
_END = "/tmp/end"  # noqa: S108 - in the container
# Where nginx' stream module is a file (Debian's package), UDP needs it loaded.
_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
_STREAM = (
    f'test -e {_MODULE} && case "`nginx -V 2>&1`" in '
    f'*with-stream=dynamic*) echo "load_module {_MODULE};";; esac'
)


def _wait(well: str) -> str:
    """Wait for an exit code. A process that ends, of those that were left to the first one too,
    breaks its reading off: it reads on as long as all is ``well``."""
    return (
        f"{{ until read -r code < {_END}; do {well} || exit 1; done; }} 2>/dev/null; "
        'exit "${code:-0}"'
    )


_SERVE = (
    f"mkfifo {_END} && cd /tmp && "
    '{{ {first}printf %s "$NETPOL_CONFIG"; }} > nginx.conf && '
    'printf %s "$NETPOL_PAGE" > index.html && '
    "trap 'exit 0' TERM && trap : CHLD && "  # dash would read on else
    "{{ nginx -e stderr -c /tmp/nginx.conf -g 'daemon off; master_process off; user root;' & }} "
    "|| exit 1; "
    "{wait}"
)
_IDLE = f"trap 'exit 0' TERM; mkfifo {_END}; {_wait(f'[ -p {_END} ]')}"


@dataclass(frozen=True, slots=True)
class Images:
    """What servers and clients run. ``stream_module``: file of nginx' stream module in the
    server's image; None: built in, as in the published image, or else where Debian has it."""

    server: str = "docker.io/library/nginx:1.29"
    client: str = "docker.io/library/busybox:1.37"
    stream_module: str | None = None


def labelled(manifest: Json, marks: Mapping[str, str]) -> Json:
    """The same, with the labels by which a run knows what it has made."""
    meta = manifest["metadata"]
    labels = {**(meta.get("labels") or {}), **marks}
    return {**manifest, "metadata": {**meta, "labels": labels}}


def finish_command(code: int) -> list[str]:
    """What to exec in each container of a pod so that it ends with this exit code."""
    return ["sh", "-c", f"echo {code} > {_END}"]


def pod(
    item: Pod,
    images: Images,
    families: Sequence[int],
    *,
    ask_ips: bool = False,
    answers_as: str = "",
) -> Json:
    """A pod of the harness. ``ask_ips``: the cluster takes :data:`IPS_ANNOTATION`.

    ``answers_as``: what its servers call themselves, if not by the pod's name.
    """
    if item.page is not None and len(item.page.encode()) > _LONGEST_PAGE:
        raise LabError(
            f"the page of pod {item} is longer than {_LONGEST_PAGE} bytes: a container gets it as "
            "an environment variable, and the kernel takes none that is longer"
        )
    containers = _containers(item, images, families, answers_as or str(item))
    spec: Json = {
        "containers": containers,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    if item.host_network:
        spec["hostNetwork"] = True
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"
    if item.node:
        # Bound by name, past the scheduler: taints of control planes do not matter.
        spec["nodeName"] = item.node
    meta: Json = {"name": item.name, "namespace": item.namespace, "labels": dict(item.labels)}
    if ask_ips and item.ips:
        meta["annotations"] = {IPS_ANNOTATION: ",".join(item.ips)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def containers_of(item: Pod) -> dict[str, list[ContainerPort]]:
    """The serving containers of a pod, by name, with their ports; none in a mere client."""
    if item.workload is Workload.CLIENT:
        return {}
    found: dict[str, list[ContainerPort]] = {}
    for port in item.ports:
        found.setdefault(port.container, []).append(port)
    return found or {"server": []}


def client_container(item: Pod) -> str:
    """The container that probes are sent from."""
    servers = containers_of(item)
    if item.workload is Workload.SERVER:
        return next(iter(servers))
    return CLIENT if CLIENT not in servers else f"{CLIENT}-{len(servers)}"


def _containers(item: Pod, images: Images, families: Sequence[int], answers_as: str) -> list[Json]:
    made = []
    for index, (name, ports) in enumerate(containers_of(item).items()):
        by_protocol = {
            protocol: list(dict.fromkeys(p.port for p in ports if p.protocol is protocol))
            for protocol in Protocol
        }
        page = item.page if index == 0 else None
        config = server.nginx_config(
            answers_as,
            tcp=by_protocol[Protocol.TCP] or ([] if ports else [server.DEFAULT_PORT]),
            udp=by_protocol[Protocol.UDP],
            families=families,
            page_directory="/tmp" if page is not None else None,  # noqa: S108
            stream_module=images.stream_module,
        )
        made.append(
            {
                "name": name,
                "image": images.server,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", _serve(images, by_protocol[Protocol.UDP])],
                "env": [
                    {"name": "NETPOL_CONFIG", "value": _literal(config)},
                    {"name": "NETPOL_PAGE", "value": _literal(page or "")},
                ],
                "ports": [_port(port) for port in ports],
                # nginx writes the file when it listens. No packet is needed: policies are out.
                # Only until then: a probe that goes on costs every pod a process a second.
                "startupProbe": {
                    "exec": {"command": ["test", "-s", "/tmp/nginx.pid"]},  # noqa: S108
                    "periodSeconds": 1,
                    "failureThreshold": 60,
                },
            }
        )
    if item.workload is not Workload.SERVER:
        made.append(
            {
                "name": client_container(item),
                "image": images.client,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", _IDLE],
            }
        )
    return made


def _serve(images: Images, udp: Sequence[int]) -> str:
    """The shell text that a server's container runs."""
    looks = udp and images.stream_module is None
    # A zombie has no program.
    return _SERVE.format(first=f"{_STREAM}; " if looks else "", wait=_wait("[ -e /proc/$!/exe ]"))


def _literal(text: str) -> str:
    """Kubernetes expands ``$(NAME)`` in values, and ``$$`` stands for a dollar."""
    return text.replace("$", "$$")


def _port(port: ContainerPort) -> Json:
    found: Json = {"containerPort": port.port, "protocol": str(port.protocol)}
    if port.name:
        found["name"] = port.name
    if port.host_port:
        found["hostPort"] = port.host_port
    return found


def service(item: Service, families: Sequence[int]) -> Json:
    """A Service, on all families of the cluster; addresses that it has already are left to it."""
    manifest = to_manifest(replace(item, cluster_ips=()))
    if len(families) > 1:
        manifest["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    if item.cluster_ips and not item.headless:
        manifest["spec"]["clusterIP"] = item.cluster_ips[0]
        manifest["spec"]["clusterIPs"] = list(item.cluster_ips)
    return manifest


def label_change(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    """The merge patch of labels that leads from one to the other."""
    gone: dict[str, str | None] = {key: None for key in old if key not in new}
    return gone | {key: value for key, value in new.items() if old.get(key) != value}
