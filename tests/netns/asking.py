"""Ask servers of the lab, the way a probe does."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from harness.labs.netns.addresses import of_family
from harness.labs.netns.lab import NetnsLab
from harness.model.flow import Endpoint, EndpointKind

DATAGRAM = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(b"?")
print(sock.recv(1000).decode(), end="")
"""


@dataclass(frozen=True)
class Reply:
    """What a server said of itself and of its client; ``name`` is empty when none answered."""

    name: str = ""
    server: str = ""
    port: int = 0
    client: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.name)


def url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/t/x"


def ask(lab: NetnsLab, client: str, host: str, port: int = 80, seconds: float = 3) -> Reply:
    """One ``wget`` from a client (by its text form) to an address or a name."""
    argv = ["busybox", "timeout", str(seconds), "busybox", "wget", "-q", "-O", "-", url(host, port)]
    done = lab.exec(Endpoint.parse(client), argv)
    if done.code != 0:
        return Reply(error=done.err.strip() or f"exit {done.code}")
    return _reply(done.out, "x")


def ask_udp(lab: NetnsLab, client: str, host: str, port: int) -> Reply:
    """One datagram and its answer."""
    argv = [sys.executable, "-S", "-c", DATAGRAM, host, str(port)]
    done = lab.exec(Endpoint.parse(client), argv)
    return _reply(done.out, "-") if done.code == 0 else Reply(error=done.err.strip())


def _reply(text: str, token: str) -> Reply:
    got, name, server, port, client, _ = text.split()
    assert got == token
    return Reply(name, server, int(port), client)


def address(lab: NetnsLab, who: str, family: int = 4) -> str:
    """An endpoint's own address."""
    end = Endpoint.parse(who)
    match end.kind:
        case EndpointKind.POD:
            ips = lab.world.pods[end.namespace, end.name].ips
        case EndpointKind.NODE:
            ips = lab.world.nodes[end.name].ips
        case EndpointKind.EXTERNAL:
            ips = lab.world.externals[end.name].ips
        case EndpointKind.SERVICE:
            ips = lab.world.services[end.namespace, end.name].cluster_ips
    found = of_family(ips, family)
    assert found
    return found
