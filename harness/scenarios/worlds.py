"""Named worlds: what scenarios start from when they say ``world: NAME``.

Few, and shared by many scenarios: the runner keeps a world up from one scenario to the next and
changes only what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MappingProxyType

from harness.labs.server import WELCOME
from harness.model.policy import Protocol
from harness.model.world import (
    ContainerPort,
    Namespace,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)

_TCP_UDP = (Protocol.TCP, Protocol.UDP)


def world_of(
    namespaces: Iterable[Namespace] = (), pods: Iterable[Pod] = (), services: Iterable[Service] = ()
) -> World:
    """A World out of lists. Namespaces of pods and Services that are not listed are added."""
    pods, services = list(pods), list(services)
    named = {n.name: n for n in namespaces}
    for namespace in [p.namespace for p in pods] + [s.namespace for s in services]:
        named.setdefault(namespace, Namespace(namespace))
    return World(
        namespaces=named,
        pods={p.key: p for p in pods},
        services={s.key: s for s in services},
    )


def container_ports(
    numbers: Iterable[int], protocols: Iterable[Protocol] = _TCP_UDP
) -> tuple[ContainerPort, ...]:
    """Ports named as in ``serve-80-tcp``."""
    return tuple(ContainerPort(n, p, f"serve-{n}-{p.lower()}") for n in numbers for p in protocols)


def grid(
    namespaces: Iterable[str],
    pods: Iterable[str],
    numbers: Iterable[int] = (80, 81),
    protocols: Iterable[Protocol] = _TCP_UDP,
    *,
    services: bool = True,
) -> World:
    """``pods`` in each of ``namespaces``: labels ``pod=NAME``, ``ns=NAME``, every port of
    ``numbers`` and ``protocols`` served; one Service ``s-NS-POD`` in front of each pod."""
    ports = container_ports(numbers, protocols)
    spaces = list(namespaces)
    names = list(pods)
    return world_of(
        [Namespace(ns, {"ns": ns}) for ns in spaces],
        [Pod(ns, name, {"pod": name}, ports=ports) for ns in spaces for name in names],
        [
            Service(
                ns,
                f"s-{ns}-{name}",
                {"pod": name},
                tuple(ServicePort(p.port, p.port, p.protocol, p.name) for p in ports),
            )
            for ns in spaces
            for name in names
        ]
        if services
        else [],
    )


def _three_by_three() -> World:
    return grid("xyz", "abc")


def _pair() -> World:
    return grid("x", "ab")


def _two_by_two() -> World:
    return grid("xy", "ab")


def _named_ports() -> World:
    """One name, a number of its own in each pod; ``c`` has it on a sidecar and for UDP only."""
    base = grid("xy", "abc", (80, 81), services=False)
    own = {"a": (80, Protocol.TCP), "b": (81, Protocol.TCP), "c": (80, Protocol.UDP)}
    pods = []
    for (_, name), pod in base.pods.items():
        number, protocol = own[name]
        ports = tuple(
            ContainerPort(
                p.port,
                p.protocol,
                "web" if (p.port, p.protocol) == (number, protocol) else p.name,
                "sidecar" if name == "c" and p.port == 80 else "server",
            )
            for p in pod.ports
        )
        pods.append(Pod(pod.namespace, name, pod.labels, ports=ports))
    return world_of(base.namespaces.values(), pods)


def _demo() -> World:
    """The demo of the seed: nginx with two replicas behind a Service, and clients."""
    http = (ContainerPort(80, Protocol.TCP, "http"),)
    return world_of(
        [Namespace("np-demo"), Namespace("other")],
        [
            Pod(
                "np-demo",
                f"nginx-{n}",
                {"run": "nginx"},
                ports=http,
                workload=Workload.SERVER,
                page=WELCOME,
            )
            for n in (1, 2)
        ]
        + [
            Pod("np-demo", "busy", {"run": "busy"}, ports=http),
            Pod("np-demo", "access", {"run": "access"}, ports=http),
            Pod("np-demo", "plain", {}, ports=http),
            Pod("other", "access", {"run": "access"}, ports=http),
        ],
        [Service("np-demo", "nginx", {"run": "nginx"}, (ServicePort(80, 80),))],
    )


_WORLDS: Mapping[str, Callable[[], World]] = MappingProxyType(
    {
        "three-by-three": _three_by_three,
        "two-by-two": _two_by_two,
        "pair": _pair,
        "named-ports": _named_ports,
        "demo": _demo,
    }
)


def names() -> tuple[str, ...]:
    return tuple(_WORLDS)


@cache
def world(name: str) -> World:
    """The world of that name. Raises KeyError (see :func:`names`)."""
    return _WORLDS[name]()
