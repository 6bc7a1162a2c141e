"""Scenarios out of factors: every pair (or triple) of values of them in one scenario at least.

The values are what policies, worlds and changes are made of; a mistake of an engine mostly needs
two of them together to show (a port by name *and* UDP, an exception *and* egress).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from harness.model.actions import Action, Apply, Delete, Relabel
from harness.model.flow import Endpoint, Via
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
from harness.model.world import NAMESPACE_NAME_LABEL, ContainerPort, Pod, World
from harness.scenarios import covering, worlds
from harness.scenarios.labels import labels_of
from harness.scenarios.presume import OUTSIDE
from harness.scenarios.scenario import Probes, Scenario, Step

FACTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "direction": ("ingress", "egress", "both"),
        "subject": ("all", "label", "in", "not-in", "exists", "does-not-exist"),
        "peers": (
            "anybody", "pods", "pods-not-in", "all-pods", "namespace", "namespace-name",
            "all-namespaces", "namespace-and-pods", "namespace-or-pods", "outside", "outside-but",
            "nobody",
        ),
        "ports": ("any", "number", "name", "range", "protocol", "two"),
        "protocol": ("TCP", "UDP"),
        "rules": ("none", "empty", "one", "two"),
        "types": ("listed", "left-out"),
        "beside": ("nothing", "deny-all", "allow-all", "overlap"),
        "change": (
            "create", "update", "delete", "relabel-pod", "relabel-namespace", "new-pod",
            "policy-first",
        ),
        "via": ("pod-ip", "service-ip"),
    }
)  # fmt: skip

_A = LabelSelector((("pod", "a"),))
_OUTSIDE_RANGE = "203.0.113.0/24"


def scenarios(strength: int = 2, seed: int = 0) -> list[Scenario]:
    """A scenario for each row. ``seed`` picks among the arrays, which are equally good."""
    found = covering.rows(FACTORS, strength, seed)
    return [build(row, f"pairs/{seed}-{number:03}") for number, row in enumerate(found, 1)]


def build(row: Mapping[str, str], scenario_id: str) -> Scenario:
    """The scenario that a row means: ``x/a`` and its neighbours are the subjects."""
    words = ", ".join(f"{name} {value}" for name, value in row.items())
    protocol = Protocol(row["protocol"])
    policy = _policy(row)
    world, steps = _change(row, policy, _beside(row, policy))
    vias = (Via(row["via"]),)
    outside = Endpoint.parse("external:outside")
    scenario = Scenario(
        id=scenario_id,
        title=words,
        why="every pair of values of the factors occurs in one scenario",
        world=world,
        steps=steps,
        probes=Probes(
            ports=((80, protocol), (81, protocol)),
            vias=(*vias, Via.EXTERNAL_IP) if row["peers"].startswith("outside") else vias,
            sources=(Endpoint.parse("*/*"), outside)
            if row["peers"].startswith("outside") and row["via"] == "pod-ip"
            else None,
        ),
    )
    return replace(scenario, features=labels_of(scenario) | {"generated"})


def _world() -> World:
    """Two namespaces of three pods; a port's name is another number in each pod."""
    base = worlds.grid("xy", "abc")
    renamed = {"a": 80, "b": 81, "c": 80}

    def ports(pod: Pod) -> tuple[ContainerPort, ...]:
        return tuple(
            replace(p, name=f"web-{p.protocol.lower()}") if p.port == renamed[pod.name] else p
            for p in pod.ports
        )

    pods = {key: replace(pod, ports=ports(pod)) for key, pod in base.pods.items()}
    external = replace(OUTSIDE, ips=OUTSIDE.ips[:1], ports=worlds.container_ports((80, 81)))
    return base.with_(pods=pods, externals={external.name: external})


def _subject(row: Mapping[str, str]) -> LabelSelector:
    return {
        "all": EVERYTHING,
        "label": _A,
        "in": _expression(Operator.IN, "a", "b"),
        "not-in": _expression(Operator.NOT_IN, "c"),
        "exists": _expression(Operator.EXISTS),
        "does-not-exist": _expression(Operator.DOES_NOT_EXIST, key="finished"),
    }[row["subject"]]


def _expression(operator: Operator, *values: str, key: str = "pod") -> LabelSelector:
    return LabelSelector((), (Requirement(key, operator, values),))


def _peers(row: Mapping[str, str]) -> tuple[Peer, ...]:
    in_y = LabelSelector((("ns", "y"),))
    b = LabelSelector((("pod", "b"),))
    return {
        "anybody": (),
        "pods": (Peer(b),),
        "pods-not-in": (Peer(_expression(Operator.NOT_IN, "b")),),
        "all-pods": (Peer(EVERYTHING),),
        "namespace": (Peer(None, in_y),),
        "namespace-name": (Peer(None, LabelSelector(((NAMESPACE_NAME_LABEL, "y"),))),),
        "all-namespaces": (Peer(None, EVERYTHING),),
        "namespace-and-pods": (Peer(b, in_y),),
        "namespace-or-pods": (Peer(None, in_y), Peer(b)),
        "outside": (Peer(ip_block=IPBlock(_OUTSIDE_RANGE)),),
        "outside-but": (Peer(ip_block=IPBlock(_OUTSIDE_RANGE, (f"{OUTSIDE.ips[0]}/32",))),),
        "nobody": (Peer(LabelSelector((("pod", "nobody"),))),),
    }[row["peers"]]


def _ports(row: Mapping[str, str]) -> tuple[PolicyPort, ...]:
    protocol = Protocol(row["protocol"])
    other = Protocol.UDP if protocol is Protocol.TCP else Protocol.TCP
    return {
        "any": (),
        "number": (PolicyPort(protocol, 80),),
        "name": (PolicyPort(protocol, f"web-{protocol.lower()}"),),
        "range": (PolicyPort(protocol, 79, 80),),
        "protocol": (PolicyPort(protocol),),
        "two": (PolicyPort(protocol, 81), PolicyPort(other, 80)),
    }[row["ports"]]


def _policy(row: Mapping[str, str]) -> NetworkPolicy:
    rule = Rule(_peers(row), _ports(row))
    rules: tuple[Rule, ...] = {
        "none": (),
        "empty": (Rule(),),
        "one": (rule,),
        "two": (Rule((Peer(LabelSelector((("pod", "c"),))),), (PolicyPort(port=81),)), rule),
    }[row["rules"]]
    ingress = row["direction"] != "egress"
    egress = row["direction"] != "ingress"
    types = tuple(
        direction
        for direction, wanted in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress))
        if wanted
    )
    return NetworkPolicy(
        "x",
        "p",
        _subject(row),
        types if row["types"] == "listed" else (),
        rules if ingress else (),
        rules if egress else (),
    )


def _beside(row: Mapping[str, str], policy: NetworkPolicy) -> tuple[NetworkPolicy, ...]:
    types = policy.policy_types or (Direction.INGRESS,)
    return {
        "nothing": (),
        "deny-all": (NetworkPolicy("x", "q", policy_types=types),),
        "allow-all": (NetworkPolicy("x", "q", EVERYTHING, types, (Rule(),), (Rule(),)),),
        "overlap": (NetworkPolicy("x", "q", _A, types, *((Rule((Peer(_A, EVERYTHING),)),),) * 2),),
    }[row["beside"]]


def _change(
    row: Mapping[str, str], policy: NetworkPolicy, beside: tuple[NetworkPolicy, ...]
) -> tuple[World, tuple[Step, ...]]:
    """The world to begin with, and the steps."""
    world = _world()
    first: tuple[Action, ...] = tuple(Apply(other) for other in beside)
    together = (*first, Apply(policy))
    other = replace(policy, pod_selector=EVERYTHING, ingress=(), egress=())
    made = world.pods["x", "a"]
    match row["change"]:
        case "create":
            return world, (Step("the policies are created", together),)
        case "update":
            return world, (
                Step("another policy of that name", (*first, Apply(other))),
                Step("the policy takes its place", (Apply(policy),)),
            )
        case "delete":
            return world, (
                Step("the policies are created", together),
                Step("the policy is deleted", (Delete("NetworkPolicy", "x", "p"),)),
            )
        case "relabel-pod":
            return world, (
                Step("the policies are created", together),
                Step("x/a and x/b change roles", (
                    Relabel("Pod", "x", "a", {"pod": "b"}), Relabel("Pod", "x", "b", {"pod": "a"}),
                )),
            )  # fmt: skip
        case "relabel-namespace":
            return world, (
                Step("the policies are created", together),
                Step("y is y no more", (Relabel("Namespace", "", "y", {"ns": "z"}),)),
            )
        case "new-pod":
            return world, (
                Step("the policies are created", together),
                Step("another a comes", (Apply(replace(made, name="new")),)),
            )
        case _:  # policy-first
            fewer = {key: pod for key, pod in world.pods.items() if key != ("x", "a")}
            return world.with_(pods=fewer), (
                Step("the policies are there first", (*together, Apply(made))),
            )
