"""Random scenarios, drawn by Hypothesis from a seed: small worlds, odd policies, any change.

Names, labels, ports and addresses come from alphabets so small that they collide all the time,
which is where engines go wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness.model.actions import Action, Apply, Delete, Relabel
from harness.model.flow import Endpoint, Via
from harness.model.policy import (
    Direction,
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
    Requirement,
    Rule,
)
from harness.model.transition import step
from harness.model.world import (
    NAMESPACE_NAME_LABEL,
    ContainerPort,
    External,
    Namespace,
    Pod,
    Service,
    ServicePort,
    World,
)
from harness.scenarios.generate import random_id
from harness.scenarios.labels import labels_of
from harness.scenarios.presume import OUTSIDE
from harness.scenarios.scenario import Probes, Scenario, Step
from harness.scenarios.worlds import world_of

NAMESPACES = ("x", "y")
PODS = ("a", "b", "c")
KEYS = ("app", "tier")
VALUES = ("web", "db", "")
PORTS = (80, 81)
NAMES = ("web", "alt")
#: The outside host, ranges around it, and all there is. (What an ipBlock means for pods is left to
#: the implementation; a profile that pins it makes those cells judged as well.)
CIDRS = {
    "203.0.113.0/24": ("203.0.113.10/32", "203.0.113.128/25"),
    "203.0.113.10/32": (),
    "203.0.113.64/26": (),
    "0.0.0.0/0": ("203.0.113.0/28", "10.0.0.0/8"),
}

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)


def _requirement(operator: Operator, key: str, values: list[str]) -> Requirement:
    takes_values = operator in (Operator.IN, Operator.NOT_IN)
    return Requirement(key, operator, tuple(sorted(values)) if takes_values else ())


requirements = st.builds(
    _requirement,
    st.sampled_from(Operator),
    st.sampled_from(KEYS),
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=2, unique=True),
)
selectors = st.one_of(
    st.just(LabelSelector()),
    st.sampled_from(VALUES).map(lambda value: LabelSelector((("app", value),))),
    st.builds(
        LabelSelector,
        labels.map(lambda chosen: tuple(sorted(chosen.items()))),
        st.lists(requirements, max_size=2).map(tuple),
    ),
)
namespace_selectors = st.one_of(
    selectors,
    st.sampled_from(NAMESPACES).map(lambda n: LabelSelector(((NAMESPACE_NAME_LABEL, n),))),
)
ip_blocks = st.sampled_from(sorted(CIDRS)).flatmap(
    lambda cidr: st.builds(
        IPBlock,
        st.just(cidr),
        st.lists(st.sampled_from(CIDRS[cidr]), unique=True).map(tuple)
        if CIDRS[cidr]
        else st.just(()),
    )
)
peers = st.one_of(
    st.builds(Peer, selectors),
    st.builds(Peer, st.none(), namespace_selectors),
    st.builds(Peer, selectors, namespace_selectors),
    st.builds(Peer, st.none(), st.none(), ip_blocks),
)
protocols = st.sampled_from((Protocol.TCP, Protocol.TCP, Protocol.UDP))
policy_ports = st.one_of(
    st.builds(PolicyPort, protocols, st.one_of(st.none(), st.sampled_from((*PORTS, *NAMES)))),
    st.builds(PolicyPort, protocols, st.sampled_from((79, 80)), st.sampled_from((80, 81, 65535))),
)
rules = st.lists(
    st.builds(
        Rule,
        st.lists(peers, max_size=3).map(tuple),
        st.lists(policy_ports, max_size=2).map(tuple),
    ),
    max_size=2,
).map(tuple)
policies = st.builds(
    NetworkPolicy,
    st.sampled_from(NAMESPACES),
    st.sampled_from(("p", "q", "r")),
    selectors,
    st.lists(st.sampled_from(Direction), unique=True).map(lambda d: tuple(sorted(d))),
    rules,
    rules,
)
_pod_ports = st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True).map(
    lambda names: tuple(
        ContainerPort(number, protocol, f"{name}{'' if protocol is Protocol.TCP else '-udp'}")
        for number, name in zip(PORTS, names, strict=True)
        for protocol in (Protocol.TCP, Protocol.UDP)
    )
)
_keys = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(PODS))


@st.composite
def _worlds(draw: st.DrawFn) -> World:
    pods = [
        Pod(namespace, name, draw(labels), ports=draw(_pod_ports))
        for namespace, name in draw(st.lists(_keys, min_size=3, max_size=5, unique=True))
    ]
    ports = tuple(ServicePort(n, n, Protocol.TCP, f"p{n}") for n in PORTS)
    external = External(OUTSIDE.name, OUTSIDE.ips[:1], tuple(ContainerPort(n) for n in PORTS))
    world = world_of(
        [Namespace(name, draw(labels)) for name in NAMESPACES],
        pods,
        [Service("x", "web", {"app": "web"}, ports)],
    )
    return world.with_(externals={external.name: external})


def _actions(world: World) -> st.SearchStrategy[Action]:
    """What can be done in this world."""
    possible: list[st.SearchStrategy[Action]] = [
        st.builds(Apply, policies),
        st.builds(Apply, policies),
        st.builds(Apply, st.builds(_pod, _keys, labels, _pod_ports)),
        st.builds(_relabel_namespace, st.sampled_from(NAMESPACES), _new_labels),
    ]
    if world.policies:
        keys = st.sampled_from(sorted(world.policies))
        possible.append(keys.map(lambda key: Delete("NetworkPolicy", *key)))
    if world.pods:
        keys = st.sampled_from(sorted(world.pods))
        possible.append(st.builds(_relabel_pod, keys, _new_labels))
    if len(world.pods) > 2:
        keys = st.sampled_from(sorted(world.pods))
        possible.append(keys.map(lambda key: Delete("Pod", *key)))
    return st.one_of(possible)


_new_labels = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from((*VALUES, None)), min_size=1, max_size=2
)


def _relabel_namespace(name: str, new: dict[str, str | None]) -> Relabel:
    return Relabel("Namespace", "", name, new)


def _relabel_pod(key: tuple[str, str], new: dict[str, str | None]) -> Relabel:
    return Relabel("Pod", *key, new)


def _pod(key: tuple[str, str], own: dict[str, str], ports: tuple[ContainerPort, ...]) -> Pod:
    return Pod(*key, own, ports=ports)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """One scenario: one to three steps, each of one to three changes. Its id is still empty."""
    start = world = draw(_worlds())
    steps = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        actions: list[Action] = [Apply(draw(policies))] if number == 1 else []
        world = step(world, actions[0]) if actions else world
        for _ in range(draw(st.integers(0 if actions else 1, 2))):
            action = draw(_actions(world))
            if isinstance(action, Apply) and getattr(action.object, "key", None) in world.pods:
                continue
            world = step(world, action)
            actions.append(action)
        steps.append(Step(f"change {number}", tuple(actions)))
    ports = ((80, Protocol.TCP), (81, Protocol.TCP), (80, Protocol.UDP))
    return Scenario(
        id="",
        title="drawn at random",
        why="whatever the policies are, the network does what the specification says of them",
        world=start,
        steps=tuple(steps),
        features=frozenset({"generated"}),
        probes=Probes(
            ports=tuple(
                draw(st.lists(st.sampled_from(ports), min_size=1, max_size=2, unique=True))
            ),
            vias=(Via.POD_IP, *draw(st.sampled_from(((), (Via.SERVICE_IP,), (Via.EXTERNAL_IP,))))),
            sources=draw(
                st.sampled_from(
                    (None, (Endpoint.parse("*/*"), Endpoint.parse(f"external:{OUTSIDE.name}")))
                )
            ),
        ),
    )


def scenario(from_seed: int, number: int) -> Scenario:
    """The scenario ``generated/SEED-NUMBER``; numbers count from 1. The same seed (and the same
    Hypothesis) draws the same ones."""
    block, place = divmod(number - 1, _BLOCK)
    found = _block(from_seed, block)[place]
    return replace(
        found, id=random_id(from_seed, number), features=labels_of(found) | {"generated"}
    )


def draw(count: int, from_seed: int) -> list[Scenario]:
    """The first ``count`` of them."""
    return [scenario(from_seed, number) for number in range(1, count + 1)]


#: Scenarios that are drawn together: no two of them are alike, and each costs a little less.
_BLOCK = 50


@lru_cache(maxsize=8)
def _block(from_seed: int, block: int) -> tuple[Scenario, ...]:
    found: dict[str, Scenario] = {}
    turn = 0
    while len(found) < _BLOCK:
        _draw_into(found, from_seed + (block + 2**32 * turn) * 2**32)
        turn += 1
    return tuple(found.values())


def _draw_into(found: dict[str, Scenario], from_seed: int) -> None:
    @seed(from_seed)
    @settings(
        max_examples=_BLOCK + 10,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(scenarios())
    def take(scenario: Scenario) -> None:
        if len(found) < _BLOCK:
            found.setdefault(repr(scenario), scenario)

    take()
