"""Scenarios derived from somebody's own manifests: each policy's cases, positive and negative, in
both directions, and what no policy speaks of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.model.flow import Endpoint, EndpointKind, Verdict, Via
from harness.model.manifest import Loaded
from harness.model.oracle import expected
from harness.model.policy import EVERYTHING, Direction, NetworkPolicy, Protocol
from harness.model.selectors import selects
from harness.model.world import ContainerPort, Namespace, Pod, World
from harness.play import furnish
from harness.play.cast import cast
from harness.run.place import Place
from harness.scenarios.cells import SYSTEM_NAMESPACE, cells, pod_endpoint
from harness.scenarios.check import EVERYTHING as ALL_FEATURES
from harness.scenarios.labels import labels_of
from harness.scenarios.presume import presume
from harness.scenarios.scenario import Probes, Scenario, Step

#: A pod that no policy can mean by its labels, put into each namespace: negative cases need one.
STRANGER = "netpol-stranger"
#: More pods than this are more than one embedded lab should hold.
MOST_PODS = 200
_LEFT_OUT = re.compile(r"(?P<kind>\w+) \((?P<version>\S+)\) is left out")
_OUTSIDE = Endpoint(EndpointKind.EXTERNAL, "", "*")


@dataclass(frozen=True, slots=True)
class Derived:
    """``scenarios``; ``lacking``: what the model cannot hold, so that the answer may be wrong;
    ``notes``: what people should know of the world that was made."""

    scenarios: tuple[Scenario, ...]
    lacking: tuple[str, ...]
    notes: tuple[str, ...]


def derive(loaded: Loaded, place: Place) -> Derived:
    """What is to be run. Nothing is derived where there is nothing that runs."""
    lacks = tuple(lacking(loaded))
    world, notes = _world(loaded.world(), place)
    if len(world.pods) > MOST_PODS:
        text = f"{len(world.pods)} pods that policies tell apart: at most {MOST_PODS} are made"
        return Derived((), (*lacks, text), tuple(notes))
    found = tuple(_scenarios(world, place.families))
    named = {scenario.id.partition("/")[2].partition("/")[2] for scenario in found}
    idle = [str(p) for p in world.policies.values() if str(p) not in named]
    notes += [f"{name} selects no pod that runs: nothing is derived from it" for name in idle]
    counts: Counter[Verdict] = Counter()
    for scenario in found:
        counts.update(_verdicts(scenario))
    notes.append(
        f"{len(world.pods)} pods, {len(world.policies) + len(world.cluster_policies)} policies; "
        f"{counts[Verdict.ALLOW]} connections that should work, {counts[Verdict.DENY]} that should "
        f"not, {counts[Verdict.UNDEFINED]} left open"
    )
    return Derived(found, lacks, tuple(notes))


def lacking(loaded: Loaded) -> Iterator[str]:
    """What the model cannot hold: errors, and objects of other people's kinds, which may make pods
    or be policies."""
    for problem in loaded.problems:
        if problem.severity == "error":
            yield str(problem)
            continue
        if found := _LEFT_OUT.match(problem.message):
            group = found["version"].rpartition("/")[0]
            own = "." not in group or group.endswith(".k8s.io")
            if not own or "NetworkPolicy" in found["kind"]:
                what = f"{found['kind']} ({found['version']})"
                yield f"{problem.where}: {what} may matter, and is not read"


def _world(world: World, place: Place) -> tuple[World, list[str]]:
    notes = []
    ended = sum(not pod.live for pod in world.pods.values())
    if ended:
        notes.append(f"{ended} pods that have ended are left out")
    if any(port.node_port for s in world.services.values() for port in s.ports):
        notes.append("node ports are left out: they are the cluster's own")
    if not world.pods:
        world = cast(world)
        notes.append("there is no pod in them: pods stand for what the policies select")
    world = furnish.running(furnish.fit(world, place.node_names))
    fewer = furnish.few(world)
    if gone := len(world.pods) - len(fewer.pods):
        notes.append(f"{gone} pods are left out that nothing can tell from two others")
    return furnish.with_outside(_with_strangers(fewer), place.families), notes


def _with_strangers(world: World) -> World:
    """With a pod without labels in each namespace, and in one that nobody speaks of."""
    ports = tuple(dict.fromkeys(port.port for pod in world.pods.values() for port in pod.ports))
    served = tuple(ContainerPort(number) for number in ports[:1] or (80,))
    homes = {namespace for namespace, _ in world.pods} - {SYSTEM_NAMESPACE} | {STRANGER}
    strangers = {(name, STRANGER): Pod(name, STRANGER, {}, ports=served) for name in sorted(homes)}
    namespaces = {**world.namespaces}
    for name in homes:
        namespaces.setdefault(name, Namespace(name))
    return world.with_(namespaces=namespaces, pods={**world.pods, **strangers})


def _scenarios(world: World, families: tuple[int, ...]) -> Iterator[Scenario]:
    subjects: dict[Direction, set[tuple[str, str]]] = {d: set() for d in Direction}
    for policy in world.policies.values():
        for direction in _directions(policy):
            pods = [
                pod
                for pod in world.pods.values()
                if pod.namespace == policy.namespace and selects(policy.pod_selector, pod.labels)
            ]
            subjects[direction].update(pod.key for pod in pods)
            if pods:
                what = f"{str(direction).lower()}/{policy.namespace}/{policy.name}"
                title = f"{direction} of the pods that {policy} selects"
                yield _scenario(what, title, world, families, direction, pods)
    for name, cluster_policy in world.cluster_policies.items():
        subject = cluster_policy.subject
        pods = [
            pod
            for pod in world.pods.values()
            if selects(subject.namespace_selector, world.namespaces[pod.namespace].labels)
            and selects(subject.pod_selector or EVERYTHING, pod.labels)
        ]
        for direction in Direction:
            if pods and getattr(cluster_policy, direction.lower()):
                what = f"cluster-{direction.lower()}/{name}"
                title = f"{direction} of the pods that {name} is about"
                yield _scenario(what, title, world, families, direction, pods)
    for direction in Direction:
        free = [pod for pod in world.pods.values() if pod.key not in subjects[direction]]
        if free:
            what = f"{direction.lower()}/unrestricted"
            title = f"{direction} of the pods that no NetworkPolicy selects for it"
            yield _scenario(what, title, world, families, direction, free)


def _directions(policy: NetworkPolicy) -> list[Direction]:
    if policy.policy_types:
        return list(policy.policy_types)
    return [Direction.INGRESS, *([Direction.EGRESS] if policy.egress else [])]


def _scenario(
    what: str,
    title: str,
    world: World,
    families: tuple[int, ...],
    direction: Direction,
    pods: Sequence[Pod],
) -> Scenario:
    ends = tuple(map(pod_endpoint, pods))
    hosts = (_OUTSIDE,) if world.externals else ()
    everybody = (Endpoint(EndpointKind.POD, "*", "*"), *hosts)
    if direction is Direction.INGRESS:
        behind = tuple(_services(world, pods))
        sources, targets = everybody, (*ends, *behind)
    else:
        behind = tuple(_services(world, world.pods.values()))
        sources, targets = ends, (*everybody, *behind)
    vias = [Via.POD_IP, *([Via.SERVICE_IP, Via.SERVICE_NAME] if behind else [])]
    vias += [Via.EXTERNAL_IP] if direction is Direction.EGRESS and hosts else []
    scenario = Scenario(
        id=f"manifests/{what}",
        title=title,
        why="the network does what the specification says of these policies, all of them together",
        world=world,
        steps=(Step("with the policies of the manifests"),),
        probes=Probes(_ports(world), tuple(vias), families, sources, targets),
    )
    return replace(scenario, features=labels_of(scenario) | {"manifests"})


def _services(world: World, pods: Iterable[Pod]) -> Iterator[Endpoint]:
    wanted = {pod.key for pod in pods}
    for service in world.services.values():
        if any(pod.key in wanted for pod in world.backends(service)):
            yield Endpoint(EndpointKind.SERVICE, service.namespace, service.name)


def _ports(world: World) -> tuple[tuple[int, Protocol], ...]:
    offered = [port for pod in world.pods.values() for port in pod.ports]
    offered += [port for host in world.externals.values() for port in host.ports]
    ports = {(port.port, port.protocol): None for port in offered}
    ports |= {(port.port, port.protocol): None for s in world.services.values() for port in s.ports}
    return tuple(ports)


def _verdicts(scenario: Scenario) -> Iterator[Verdict]:
    """What is expected of its cells, as far as that can be told before a lab gives addresses."""
    world = presume(scenario.world)
    asked = cells(world, scenario.probes, ALL_FEATURES)
    yield from (decision.verdict for decision in expected(world, asked).values())
