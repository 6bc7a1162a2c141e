"""Clients and targets as people type them: names, workloads, Services, addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from harness.desk.groups import workload_of
from harness.desk.inputs import InputError
from harness.model import cidr, words
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.policy import Protocol
from harness.model.world import ContainerPort, External, Pod, ServicePort, World


@dataclass(frozen=True, slots=True)
class End:
    """An end in a world that holds it. ``note`` tells whom a workload's name was taken for."""

    world: World
    endpoint: Endpoint
    note: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``port``: number, name, or "" where none was typed."""

    end: str
    port: str
    protocol: Protocol | None


def parse_target(text: str) -> Wanted:
    """``DST[:PORT][/PROTO]``. Raises :class:`InputError`."""
    kind = next((k for k in ("svc:", "node:", "external:") if text.startswith(k)), "")
    rest = text[len(kind) :]
    protocol = None
    head, slash, tail = rest.rpartition("/")
    if slash and tail.upper() in Protocol.__members__:
        rest, protocol = head, Protocol[tail.upper()]
    elif slash and ":" in head and not rest.startswith("["):
        raise InputError(f"{text!r}: {tail!r} is no protocol; it is one of TCP, UDP, SCTP")
    if rest.startswith("["):  # [2001:db8::1]:80
        address, _, port = rest[1:].partition("]")
        return Wanted(kind + address, port.removeprefix(":"), protocol)
    if cidr.is_address(rest):
        return Wanted(kind + rest, "", protocol)
    name, _, port = rest.partition(":")
    return Wanted(kind + name, port, protocol)


def find(world: World, text: str) -> End:
    """Whom a text means: ``NAMESPACE/POD``, ``NAMESPACE/WORKLOAD`` (its first pod), the same
    without a namespace where only one has it, ``svc:NAMESPACE/NAME``, ``node:NAME``,
    ``external:NAME``, or an address outside of the cluster. Raises :class:`InputError`."""
    if cidr.is_address(text):
        return _address(world, text)
    if text.startswith("svc:"):
        key = _only(text[4:], world.services, "Service", prefix="svc:")
        return End(world, Endpoint(EndpointKind.SERVICE, *key))
    for prefix, kind, known in (
        ("node:", EndpointKind.NODE, list(world.nodes)),
        ("external:", EndpointKind.EXTERNAL, list(world.externals)),
    ):
        if text.startswith(prefix):
            name = text.removeprefix(prefix)
            if name not in known:
                raise _unknown(f"{kind} {name}", name, known, prefix)
            return End(world, Endpoint(kind, "", name))
    return _pod(world, text)


def _address(world: World, text: str) -> End:
    for pod in world.pods.values():
        if text in pod.ips:
            return End(world, Endpoint(EndpointKind.POD, *pod.key), f"{text} is {pod}")
    for node in world.nodes.values():
        if text in node.ips:
            end = Endpoint(EndpointKind.NODE, "", node.name)
            return End(world, end, f"{text} is node {node.name}")
    host = External(text, (text,))
    bigger = world.with_(externals={**world.externals, text: host})
    return End(bigger, Endpoint(EndpointKind.EXTERNAL, "", text))


def _pod(world: World, text: str) -> End:
    namespace, slash, name = text.rpartition("/")
    fitting = [pod for pod in world.pods.values() if not slash or pod.namespace == namespace]
    exact = [pod for pod in fitting if pod.name == name]
    if len(exact) == 1:
        return End(world, Endpoint(EndpointKind.POD, *exact[0].key))
    members = exact or [pod for pod in fitting if workload_of(pod.name) == name]
    workloads = sorted({(pod.namespace, workload_of(pod.name)) for pod in members})
    if len(workloads) > 1 or len(exact) > 1:
        where = words.listed(sorted({pod.namespace for pod in members}))
        raise InputError(f"{text!r} is in several namespaces ({where}): write NAMESPACE/{name}")
    if members:
        first = min(members, key=lambda pod: pod.name)
        count = "its only pod" if len(members) == 1 else f"the first of its {len(members)} pods"
        note = f"{text} stands for {first}, {count}"
        return End(world, Endpoint(EndpointKind.POD, *first.key), note)
    if any(key == (namespace, name) for key in world.services):
        raise InputError(f"{text!r} is no pod, but there is a Service: write svc:{text}")
    raise _unknown(f"pod {text}", text, [str(pod) for pod in world.pods.values()], "")


def _only(text: str, known: Iterable[tuple[str, str]], kind: str, prefix: str) -> tuple[str, str]:
    """The one key that a text names, with or without its namespace."""
    known = list(known)
    namespace, slash, name = text.rpartition("/")
    found = [key for key in known if key[1] == name and (not slash or key[0] == namespace)]
    if len(found) == 1:
        return found[0]
    if found:
        where = words.listed(sorted(key[0] for key in found))
        raise InputError(
            f"{prefix}{text} is in several namespaces ({where}): write {prefix}NAMESPACE/{name}"
        )
    raise _unknown(f"{kind} {text}", text, ["/".join(key) for key in known], prefix)


def _unknown(what: str, text: str, known: list[str], prefix: str) -> InputError:
    near = get_close_matches(text, known, n=1, cutoff=0.6)
    if near:
        return InputError(f"there is no {what}\n  hint: do you mean {prefix}{near[0]}?")
    names = words.listed(sorted(known), limit=8) or "none at all"
    return InputError(f"there is no {what}; there is: {names}")


# -- a connection ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """The cell that was typed, in a world that holds both ends."""

    world: World
    cell: Cell
    notes: tuple[str, ...]


def cell_of(
    world: World, source: str, target: str, *, by_name: bool = True, family: int = 4
) -> Asked:
    """``SRC DST[:PORT[/PROTO]]``. ``by_name``: a Service is asked by its name, else by address;
    ``family``: where the ends do not decide it. Raises :class:`InputError`."""
    wanted = parse_target(target)
    client = find(world, source)
    server = find(client.world, wanted.end)
    ends = (client.endpoint, server.endpoint)
    if client.endpoint.kind is EndpointKind.SERVICE:
        raise InputError("a Service is no client: name one of its pods")
    port, protocol = port_of(server.world, server.endpoint, wanted)
    vias = {
        EndpointKind.POD: Via.POD_IP,
        EndpointKind.NODE: Via.NODE_IP,
        EndpointKind.EXTERNAL: Via.EXTERNAL_IP,
        EndpointKind.SERVICE: Via.SERVICE_NAME if by_name else Via.SERVICE_IP,
    }
    outside = [e.name for e in ends if e.kind is EndpointKind.EXTERNAL]
    typed = [name for name in outside if cidr.is_address(name)]
    if typed:
        family = max(map(cidr.family, typed))
    via = vias[server.endpoint.kind]
    cell = Cell(*ends, port, protocol, via, family)
    return Asked(server.world, cell, tuple(end.note for end in (client, server) if end.note))


# -- ports -----------------------------------------------------------------------------------------


def port_of(world: World, target: Endpoint, wanted: Wanted) -> tuple[int, Protocol]:
    """The port that is meant: by number, by the target's own name for it, or its only one.

    Raises :class:`InputError`.
    """
    if wanted.port.isascii() and wanted.port.isdigit() and len(wanted.port) < 6:
        number = int(wanted.port)
        if not 1 <= number <= 65535:
            raise InputError(f"{wanted.port} is no port: ports are 1 to 65535")
        return number, wanted.protocol or Protocol.TCP
    offered = _offered(world, target)
    fitting = [
        port
        for port in offered
        if wanted.protocol in (None, port.protocol) and wanted.port in ("", port.name)
    ]
    if len({(port.port, port.protocol) for port in fitting}) == 1:
        return fitting[0].port, fitting[0].protocol
    names = [f"{p.port}/{p.protocol}" + (f" ({p.name})" if p.name else "") for p in offered]
    has = f"it has {words.listed(names, limit=8)}" if names else "it declares none"
    what = f"no port {wanted.port!r}" if wanted.port and not fitting else "no single port"
    raise InputError(f"{target} has {what} to take; {has}. Write {target}:PORT or :PORT/UDP")


def _offered(world: World, target: Endpoint) -> tuple[ContainerPort | ServicePort, ...]:
    thing: Pod | External | None = None
    match target.kind:
        case EndpointKind.POD:
            thing = world.pods[target.namespace, target.name]
        case EndpointKind.EXTERNAL:
            thing = world.externals[target.name]
        case EndpointKind.SERVICE:
            return world.services[target.namespace, target.name].ports
    return thing.ports if thing is not None else ()
