"""Made-up clusters of any size, shaped as real ones are: teams' namespaces, a default deny in
each, policies with labels, namespaces, ranges, numbered and named ports."""

from __future__ import annotations

from random import Random

from harness.model.policy import (
    EVERYTHING,
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
from harness.model.world import ContainerPort, Namespace, Pod, World

APPS = [f"app{i}" for i in range(30)]
TIERS = ("front", "back", "db")
TEAMS = [f"t{i}" for i in range(37)]


def cluster(pods: int, namespaces: int, policies: int, seed: int = 0) -> World:
    """A world of this size; the same for the same numbers."""
    random = Random(seed)
    names = [f"ns{i}" for i in range(namespaces)]
    found: dict[tuple[str, str], NetworkPolicy] = {}
    for i in range(policies):
        policy = _policy(random, names[i % namespaces], i, default_deny=i < namespaces)
        found[policy.key] = policy
    made = [_pod(random, names[i % namespaces], i) for i in range(pods)]
    return World(
        namespaces={name: _namespace(random, name, i) for i, name in enumerate(names)},
        pods={pod.key: pod for pod in made},
        policies=found,
    )


def _namespace(random: Random, name: str, i: int) -> Namespace:
    env = random.choice(["prod", "dev", "test"])
    return Namespace(name, {"team": TEAMS[i % len(TEAMS)], "env": env})


def _pod(random: Random, namespace: str, i: int) -> Pod:
    return Pod(
        namespace,
        f"p{i}",
        {"app": random.choice(APPS), "tier": random.choice(TIERS), "serial": str(i)},
        f"n{i % 50}",
        (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}",),
        (ContainerPort(8080, name="http"), ContainerPort(9090 + i % 3, name="metrics")),
    )


def _app(random: Random) -> LabelSelector:
    return LabelSelector((("app", random.choice(APPS)),))


def _policy(random: Random, namespace: str, i: int, *, default_deny: bool) -> NetworkPolicy:
    if default_deny:
        types = tuple(Direction) if i % 3 == 0 else (Direction.INGRESS,)
        return NetworkPolicy(namespace, "default-deny", EVERYTHING, types)
    tier = LabelSelector((("tier", random.choice(TIERS)),))
    subject = _app(random) if random.random() < 0.7 else tier
    rules = tuple(
        Rule(
            tuple(_peer(random) for _ in range(random.randrange(1, 4))),
            tuple(_port(random) for _ in range(random.randrange(0, 3))),
        )
        for _ in range(random.randrange(1, 3))
    )
    if random.random() < 0.75:
        return NetworkPolicy(namespace, f"np{i}", subject, (Direction.INGRESS,), rules)
    return NetworkPolicy(namespace, f"np{i}", subject, (Direction.EGRESS,), (), rules)


def _peer(random: Random) -> Peer:
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            return Peer(_app(random))
        case 4 | 5:
            return Peer(None, LabelSelector((("team", random.choice(TEAMS)),)))
        case 6 | 7:
            env = random.choice(["prod", "dev"])
            return Peer(_app(random), LabelSelector((("env", env),)))
        case 8:
            return Peer(LabelSelector((), (Requirement("tier", Operator.NOT_IN, ("db",)),)))
        case _:
            return Peer(None, None, IPBlock(f"172.{random.randrange(16, 32)}.0.0/16"))


def _port(random: Random) -> PolicyPort:
    match random.randrange(8):
        case 0 | 1 | 2 | 3:
            number = random.choice([80, 443, 8080, 9090, 5432, 6379, 3306])
            return PolicyPort(Protocol.TCP, number)
        case 4 | 5:
            return PolicyPort(Protocol.TCP, random.choice(["http", "metrics"]))
        case 6:
            first = 8000 + 10 * random.randrange(10)
            return PolicyPort(Protocol.TCP, first, first + 10 * random.randrange(1, 10))
        case _:
            return PolicyPort(Protocol.UDP, 53)
