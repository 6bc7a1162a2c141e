"""What runs for a container: programs of this machine stand for the images that are known."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.labs import server
from harness.labs.netns import dns
from harness.labs.netns.furnish import RUN
from harness.labs.netns.topology import CLUSTER_DOMAIN

Container = Mapping[str, Any]

_ROOT = Path(__file__).resolve().parents[4]

PATH = "/run/netpol/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""As in a busybox image: its own applets come first."""
HARNESS = "netpol-enforcer"
"""The harness's own image (``deploy/Containerfile``), by its short name."""
_ENTRY = ("python3", "-m", "harness.enforcer")
_COMMAND = ("run",)
DNS_IMAGE = "netpol-lab/dns"
DNS_HOSTS = f"{RUN}/dns/hosts"
"""The names that the lab's DNS server answers with, as a hosts file."""


@dataclass(frozen=True, slots=True)
class Run:
    """``argv`` of a container's process, and the files that it needs (path -> text).

    ``tcp`` and ``udp`` are ports that it must answer on before it counts as ready.
    """

    argv: tuple[str, ...]
    files: Mapping[str, str]
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()


class UnknownImageError(Exception):
    """No program stands for this image."""

    def __init__(self, image: str) -> None:
        super().__init__(
            f'Failed to pull image "{image}": this lab runs no images: nginx and busybox of this '
            f"machine, and this checkout, stand for images called nginx, busybox and {HARNESS}. "
            "Use one of them, or run on a real cluster (--lab kind, --lab kubeconfig)"
        )


def environment_of(image: str) -> dict[str, str]:
    """What an image itself sets: the harness's runs this machine's Python with this checkout."""
    if short_name(image) != HARNESS:
        return {"PATH": PATH}
    return {
        "PATH": f"{Path(sys.executable).parent}:{PATH}",
        "PYTHONPATH": str(_ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def short_name(image: str) -> str:
    """``registry/library/nginx:1.27@sha256:…`` -> ``nginx``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def run_of(
    pod: str,
    container: Container,
    env: Mapping[str, str],
    *,
    home: str,
    families: Sequence[int],
    stream_module: str | None,
    page: str | None,
) -> Run:
    """What to run for a container of the pod ``NAMESPACE/NAME``.

    ``home`` is a directory in the lab for its files. Raises UnknownImageError.
    """
    image = container.get("image", "")
    name = "dns" if image == DNS_IMAGE else short_name(image)
    if name not in ("nginx", "busybox", "dns", HARNESS):
        raise UnknownImageError(image)
    argv = [expand(word, env) for word in container.get("command") or ()]
    args = [expand(word, env) for word in container.get("args") or ()]
    ports = {
        protocol: tuple(
            dict.fromkeys(
                port["containerPort"]
                for port in container.get("ports") or ()
                if port.get("protocol", "TCP") == protocol
            )
        )
        for protocol in ("TCP", "UDP")
    }
    if name == "nginx":
        tcp = ports["TCP"] or (() if ports["UDP"] else (server.DEFAULT_PORT,))
        if argv:
            return Run((*argv, *args), {}, ports["TCP"], ports["UDP"])
        files = {
            f"{home}/nginx.conf": server.nginx_config(
                pod,
                tcp=tcp,
                udp=ports["UDP"],
                families=families,
                page_directory=home,
                work_directory=home,
                stream_module=stream_module,
            ),
            f"{home}/{server.PAGE_FILE}": server.WELCOME if page is None else page,
        }
        options = "daemon off; master_process off; user root;"
        command = ("nginx", "-e", "stderr", "-c", f"{home}/nginx.conf", "-g", options)
        return Run(command, files, tcp, ports["UDP"])
    if name == "dns":
        return Run(dns_command(), {}, ports["TCP"], ())
    if name == HARNESS:
        return Run((*(argv or _ENTRY), *(args or (() if argv else _COMMAND))), {}, ports["TCP"])
    return Run((*argv, *args) if argv or args else ("sh",), {})


def dns_command() -> tuple[str, ...]:
    """dnsmasq with the lab's names and nothing else."""
    return (
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--log-facility=-", "--no-resolv"),
        *("--no-hosts", f"--addn-hosts={DNS_HOSTS}", "--cache-size=0", f"--port={dns.PORT}"),
        *(f"--local=/{CLUSTER_DOMAIN}/", "--address=/#/"),
    )


_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")


def expand(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` as in a container's command: unknown names stay, ``$$(NAME)`` is ``$(NAME)``."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def downward(
    pod: Mapping[str, Any], field: str, ips: Sequence[str], host_ips: Sequence[str]
) -> str:
    """A ``fieldRef`` of the downward API. Raises KeyError for one that is not known."""
    meta, spec = pod["metadata"], pod["spec"]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", field)
    if match:
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    values: dict[str, str] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec["nodeName"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
        "status.hostIP": host_ips[0],
        "status.hostIPs": ",".join(host_ips),
    }
    return values[field]
