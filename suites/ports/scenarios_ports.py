"""Every way to write a port alone, and every pair of two of them in one rule.

``x/a`` takes connections at the ports, ``x/b`` makes connections to them, so that one look shows
both directions. Two items of ``ports`` add up, whatever they are: one engine lets a single port
override all ports, another loses all ports when the same range also has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from harness.model.actions import Apply
from harness.model.flow import Endpoint, Via
from harness.model.policy import (
    Direction,
    LabelSelector,
    NetworkPolicy,
    PolicyPort,
    Protocol,
    Rule,
)
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Probes, Scenario, Step
from harness.scenarios.worlds import grid

TCP, UDP = Protocol.TCP, Protocol.UDP
NUMBERS = (80, 81, 82, 83)
WORLD = grid("xy", "ab", NUMBERS, services=False)
DIALLED = (*((n, TCP) for n in NUMBERS), *((n, UDP) for n in NUMBERS[:3]))
PROBES = Probes(
    ports=DIALLED,
    vias=(Via.POD_IP,),
    sources=(Endpoint.parse("y/b"),),
    targets=(Endpoint.parse("x/a"),),
    extra=tuple(parse_cell(f"x/b -> y/a:{n}/{protocol}") for n, protocol in DIALLED),
)


class Kind(NamedTuple):
    """A way to write a port: how it is called, what it means, and the features that it has."""

    name: str
    means: str
    port: PolicyPort
    features: tuple[str, ...]


KINDS = (
    Kind("tcp", "every TCP port", PolicyPort(TCP), ("any-port", "tcp")),
    Kind("udp", "every UDP port", PolicyPort(UDP), ("any-port", "udp")),
    Kind("80", "80/TCP", PolicyPort(TCP, 80), ("numbered-port", "tcp")),
    Kind("81", "81/TCP", PolicyPort(TCP, 81), ("numbered-port", "tcp")),
    Kind("80-udp", "80/UDP", PolicyPort(UDP, 80), ("numbered-port", "udp")),
    Kind("named", "80/TCP by name", PolicyPort(TCP, "serve-80-tcp"), ("named-port", "tcp")),
    Kind("named-udp", "81/UDP by name", PolicyPort(UDP, "serve-81-udp"), ("named-port", "udp")),
    Kind(
        "named-wrong-protocol",
        "nothing: the name is one of a UDP port, and TCP is asked for",
        PolicyPort(TCP, "serve-82-udp"),
        ("named-port", "tcp"),
    ),
    Kind(
        "named-nowhere",
        "nothing: no pod has a port of that name",
        PolicyPort(TCP, "nowhere"),
        ("named-port", "tcp"),
    ),
    Kind("range", "81 to 82/TCP", PolicyPort(TCP, 81, 82), ("end-port", "tcp")),
    Kind("range-of-one", "83 to 83/TCP", PolicyPort(TCP, 83, 83), ("end-port", "tcp")),
    Kind("range-udp", "81 to 65535/UDP", PolicyPort(UDP, 81, 65535), ("end-port", "udp")),
)


def scenarios() -> Iterator[Scenario]:
    """Twelve kinds alone, and the 66 pairs of them."""
    for kind in KINDS:
        yield _scenario(f"ports/one/{kind.name}", (kind,))
    for one, other in combinations(KINDS, 2):
        yield _scenario(f"ports/two/{one.name}+{other.name}", (one, other))


def _scenario(name: str, kinds: tuple[Kind, ...]) -> Scenario:
    rule = Rule(ports=tuple(kind.port for kind in kinds))
    a, b = (LabelSelector((("pod", name),)) for name in "ab")
    ingress = NetworkPolicy("x", "in", a, (Direction.INGRESS,), ingress=(rule,))
    egress = NetworkPolicy("x", "out", b, (Direction.EGRESS,), egress=(rule,))
    features = {"ingress", "egress", "target-pod-selector", "any-peer", "tcp", "udp"}
    features |= {feature for kind in kinds for feature in kind.features}
    if len(kinds) > 1:
        features |= {"multi-port-protocol"}
    return Scenario(
        id=name,
        title="The ports are " + " and ".join(kind.means for kind in kinds),
        why="the ports of one rule are a union; each means what it means alone",
        world=WORLD,
        steps=(Step("to x/a at them, and from x/b to them", (Apply(ingress), Apply(egress))),),
        features=frozenset(features),
        probes=PROBES,
    )
