"""A small world to judge policies in, and a short way to write what is expected of it."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

from harness.model.flow import Cell, Decision, Endpoint, EndpointKind, Via
from harness.model.manifest import load_text
from harness.model.oracle import decide
from harness.model.policy import Protocol
from harness.model.profile import NO_PROFILE, Profile
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Node,
    Pod,
    Service,
    ServicePort,
    World,
)

NODES = {
    "n1": Node("n1", ("192.168.0.1", "fd01::1"), labels={"zone": "east"}),
    "n2": Node("n2", ("192.168.0.2", "fd01::2"), labels={"zone": "west"}),
}
PORTS = (
    ContainerPort(80, Protocol.TCP, "http"),
    ContainerPort(81, Protocol.TCP, "admin"),
    ContainerPort(80, Protocol.UDP, "http-udp"),
    ContainerPort(53, Protocol.UDP, "dns"),
)


def three_by_three() -> World:
    """Namespaces x, y, z (labelled ``ns``), in each the pods a, b, c (labelled ``pod``); a and b
    on node n1, c on n2; addresses 10.0.N.M. A Service ``svc`` in each leads to a alone."""
    pods: dict[tuple[str, str], Pod] = {}
    services: dict[tuple[str, str], Service] = {}
    for n, namespace in enumerate("xyz"):
        for m, name in enumerate("abc", 1):
            ips = (f"10.0.{n}.{m}", f"fd00::{n}:{m}")
            node = "n2" if name == "c" else "n1"
            pods[namespace, name] = Pod(namespace, name, {"pod": name}, node, ips, PORTS)
        port = ServicePort(8080, "http")
        services[namespace, "svc"] = Service(
            namespace, "svc", {"pod": "a"}, (port,), (f"10.96.0.{n + 1}", f"fd00:96::{n + 1}")
        )
    return World(
        namespaces={name: Namespace(name, {"ns": name}) for name in "xyz"},
        pods=pods,
        services=services,
        nodes=NODES,
        externals={"world": External("world", ("203.0.113.9", "2001:db8::9"))},
    )


def with_policies(text: str, world: World | None = None) -> World:
    """The world with the policies of a YAML text, in namespace x where they name none."""
    loaded = load_text(dedent(text), "policies.yaml", server_version=(1, 35))
    assert not loaded.errors, [str(problem) for problem in loaded.errors]
    base = world or three_by_three()
    found = loaded.world()
    policies = {}
    for (namespace, name), policy in found.policies.items():
        key = ("x" if namespace == "default" else namespace, name)
        policies[key] = replace(policy, namespace=key[0])
    return base.with_(
        policies={**base.policies, **policies},
        cluster_policies={**base.cluster_policies, **found.cluster_policies},
    )


def cell(text: str, *, family: int = 4) -> Cell:
    """``x/a -> y/b:80``, ``…:80/UDP``, ``x/a -> svc:x/svc:8080`` (by name), ``… -> node:n1:80``."""
    source, _, rest = text.partition(" -> ")
    target, _, port = rest.rpartition(":")
    number, _, protocol = port.partition("/")
    by_ip = target.startswith("ip:")
    end = Endpoint.parse(target.removeprefix("ip:"))
    via = {
        EndpointKind.SERVICE: Via.SERVICE_IP if by_ip else Via.SERVICE_NAME,
        EndpointKind.NODE: Via.NODE_IP,
        EndpointKind.EXTERNAL: Via.EXTERNAL_IP,
        EndpointKind.POD: Via.POD_IP,
    }[end.kind]
    return Cell(Endpoint.parse(source), end, int(number), Protocol(protocol or "TCP"), via, family)


def ask(world: World, text: str, profile: Profile = NO_PROFILE, *, family: int = 4) -> Decision:
    return decide(world, cell(text, family=family), profile)


def verdict(world: World, text: str, profile: Profile = NO_PROFILE, *, family: int = 4) -> str:
    """``allow``, ``deny`` or ``undefined(reason)``."""
    decision = ask(world, text, profile, family=family)
    return f"undefined({decision.reason})" if decision.reason else str(decision.verdict)


def sources_that_reach(world: World, target: str) -> str:
    """The pods that may connect to ``x/a:80``, like ``x/b y/c``; open ones have a ``?``."""
    found = []
    for (namespace, name), _ in sorted(world.pods.items()):
        said = verdict(world, f"{namespace}/{name} -> {target}")
        if said != "deny" and said != "undefined(self)":
            found.append(f"{namespace}/{name}" + ("" if said == "allow" else "?"))
    return " ".join(found)
