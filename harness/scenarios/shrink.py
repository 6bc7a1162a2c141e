"""The smallest scenario that still fails: what is not needed for the failure is taken away.

Works on any scenario, generated or written, and knows nothing of why it fails: ``fails`` runs it,
on the lab, and says whether it still does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.flow import Cell
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, PolicyPort, Rule
from harness.model.world import NAMESPACE_NAME_LABEL, Namespace, Pod, World
from harness.scenarios.check import check
from harness.scenarios.scenario import Probes, Scenario
from harness.scenarios.tree import ScenarioError

K = TypeVar("K")
T = TypeVar("T")


def shrink(
    scenario: Scenario, fails: Callable[[Scenario], bool], tries: int = 200
) -> tuple[Scenario, int]:
    """The smallest variant found that still fails, and how many were tried.

    Takes a smaller variant that fails and goes on from there, until none does or ``tries`` are
    used up. ``scenario`` itself is not run: it is taken to fail. Expectations by hand are dropped,
    for they are about the whole.
    """
    smallest = replace(
        scenario, steps=tuple(replace(one, expect=(), checks=()) for one in scenario.steps)
    )
    used = 0
    at = since = 0  # which variant is next; how many came to nothing since the last that failed
    while True:
        candidates = list(variants(smallest))
        while since < len(candidates):
            candidate = candidates[at % len(candidates)]
            at = at % len(candidates) + 1
            since += 1
            if not _stands(candidate):
                continue
            if used == tries:
                return smallest, used
            used += 1
            if fails(candidate):
                # What came to nothing before will mostly do so again: go on from here.
                smallest, at, since = candidate, at - 1, 0
                break
        else:
            return smallest, used


def focus(scenario: Scenario, cells: set[Cell]) -> Scenario:
    """The same scenario with just these cells asked: the first thing to try."""
    asked = Probes(vias=(), extra=tuple(sorted(cells, key=str)))
    return replace(
        scenario,
        probes=asked,
        steps=tuple(replace(one, probes=None, expect=()) for one in scenario.steps),
    )


def _stands(scenario: Scenario) -> bool:
    try:
        check(scenario)
    except ScenarioError:
        return False
    return True


def variants(scenario: Scenario) -> Iterator[Scenario]:
    """Variants with one thing less, the largest things first; before them, with much less."""
    yield from _leaps(scenario)
    for steps in _less(scenario.steps):
        if steps:
            yield replace(scenario, steps=steps)
    # A whole step's changes done together with the next one's.
    for i in range(len(scenario.steps) - 1):
        one, two = scenario.steps[i : i + 2]
        merged = replace(two, actions=(*one.actions, *two.actions))
        yield replace(scenario, steps=(*scenario.steps[:i], merged, *scenario.steps[i + 2 :]))
    for world in _smaller_worlds(scenario.world):
        yield replace(scenario, world=world)
    for i, one in enumerate(scenario.steps):
        for actions in _smaller_actions(one.actions):
            smaller = replace(one, actions=actions)
            yield replace(scenario, steps=(*scenario.steps[:i], smaller, *scenario.steps[i + 1 :]))
    yield from _fewer_probes(scenario)
    for world in _smaller_pods_of(scenario.world):  # each makes pods anew
        yield replace(scenario, world=world)


def _leaps(scenario: Scenario) -> Iterator[Scenario]:
    """One step for all; only the pods that are asked about; no Services."""
    if len(scenario.steps) > 1:
        actions = tuple(action for one in scenario.steps for action in one.actions)
        yield replace(scenario, steps=(replace(scenario.steps[-1], actions=actions),))
    world = scenario.world
    if not scenario.probes.vias:
        asked = {str(end) for cell in scenario.probes.extra for end in (cell.source, cell.target)}
        pods = {key: pod for key, pod in world.pods.items() if str(pod) in asked}
        if len(pods) < len(world.pods) - 1:
            yield replace(scenario, world=world.with_(pods=pods))
    if len(world.services) > 1:
        yield replace(scenario, world=world.with_(services={}))


def _less(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Without each one of them, the last first."""
    for i in reversed(range(len(items))):
        yield (*items[:i], *items[i + 1 :])


def _without(mapping: Mapping[K, T]) -> Iterator[dict[K, T]]:
    """Without each one of its keys, the last first."""
    for key in reversed(list(mapping)):
        yield {k: v for k, v in mapping.items() if k != key}


def _smaller_worlds(world: World) -> Iterator[World]:
    for home in ("policies", "cluster_policies", "services", "pods", "externals"):
        for fewer in _without(getattr(world, home)):
            yield world.with_(**{home: fewer})
    used = {ns for ns, _ in (*world.pods, *world.services, *world.policies)}
    for name in world.namespaces:
        if name not in used:
            fewer_namespaces = {k: v for k, v in world.namespaces.items() if k != name}
            yield world.with_(namespaces=fewer_namespaces)
    for key, policy in world.policies.items():
        for simpler in _smaller_policies(policy):
            yield world.with_(policies={**world.policies, key: simpler})
    for name, namespace in world.namespaces.items():
        for labels in _without(namespace.labels):
            if NAMESPACE_NAME_LABEL in labels:
                yield world.with_(namespaces={**world.namespaces, name: Namespace(name, labels)})


def _smaller_pods_of(world: World) -> Iterator[World]:
    for key, pod in world.pods.items():
        for other in _smaller_pods(pod):
            yield world.with_(pods={**world.pods, key: other})


def _smaller_pods(pod: Pod) -> Iterator[Pod]:
    for labels in _without(pod.labels):
        yield replace(pod, labels=labels)
    if len(pod.ports) > 1:
        for ports in _less(pod.ports):
            yield replace(pod, ports=ports)


def _smaller_actions(actions: tuple[Action, ...]) -> Iterator[tuple[Action, ...]]:
    yield from _less(actions)
    for i, action in enumerate(actions):
        for simpler in _smaller_action(action):
            yield (*actions[:i], simpler, *actions[i + 1 :])


def _smaller_action(action: Action) -> Iterator[Action]:
    match action:
        case Apply(object=NetworkPolicy() as policy):
            for simpler in _smaller_policies(policy):
                yield Apply(simpler)
        case Apply(object=Pod() as pod):
            for smaller in _smaller_pods(pod):
                yield Apply(smaller)
        case Relabel():
            if len(action.labels) > 1:
                for labels in _without(action.labels):
                    yield replace(action, labels=labels)
        case Delete() | Finish() | Apply():
            return


def _smaller_policies(policy: NetworkPolicy) -> Iterator[NetworkPolicy]:
    for ingress in _smaller_rules(policy.ingress):
        yield replace(policy, ingress=ingress)
    for egress in _smaller_rules(policy.egress):
        yield replace(policy, egress=egress)
    for types in _less(policy.policy_types):
        yield replace(policy, policy_types=types)
    for selector in _smaller_selectors(policy.pod_selector):
        yield replace(policy, pod_selector=selector)


def _smaller_rules(rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, ...]]:
    if len(rules) > 1:
        yield ()
    yield from _less(rules)
    for i, rule in enumerate(rules):
        for simpler in _smaller_rule(rule):
            yield (*rules[:i], simpler, *rules[i + 1 :])


def _smaller_rule(rule: Rule) -> Iterator[Rule]:
    for peer in rule.peers if len(rule.peers) > 2 else ():
        yield replace(rule, peers=(peer,))
    for peers in _less(rule.peers):
        yield replace(rule, peers=peers)
    for ports in _less(rule.ports):
        yield replace(rule, ports=ports)
    for i, peer in enumerate(rule.peers):
        for simpler in _smaller_peers(peer):
            yield replace(rule, peers=(*rule.peers[:i], simpler, *rule.peers[i + 1 :]))
    for i, port in enumerate(rule.ports):
        for narrower in _smaller_ports(port):
            yield replace(rule, ports=(*rule.ports[:i], narrower, *rule.ports[i + 1 :]))


def _smaller_ports(port: PolicyPort) -> Iterator[PolicyPort]:
    if port.end_port is not None:
        yield replace(port, end_port=None)
    if port.port is not None:
        yield replace(port, port=None, end_port=None)


def _smaller_peers(peer: Peer) -> Iterator[Peer]:
    if peer.ip_block is not None:
        for except_ in _less(peer.ip_block.except_):
            yield replace(peer, ip_block=replace(peer.ip_block, except_=except_))
        return
    if peer.pod_selector is not None and peer.namespace_selector is not None:
        yield replace(peer, pod_selector=None)
        yield replace(peer, namespace_selector=None)
    if peer.pod_selector is not None:
        for selector in _smaller_selectors(peer.pod_selector):
            yield replace(peer, pod_selector=selector)
    if peer.namespace_selector is not None:
        for selector in _smaller_selectors(peer.namespace_selector):
            yield replace(peer, namespace_selector=selector)


def _smaller_selectors(selector: LabelSelector) -> Iterator[LabelSelector]:
    for labels in _less(selector.match_labels):
        yield replace(selector, match_labels=labels)
    for expressions in _less(selector.match_expressions):
        yield replace(selector, match_expressions=expressions)
    for i, item in enumerate(selector.match_expressions):
        if len(item.values) > 1:
            for values in _less(item.values):
                fewer = replace(item, values=values)
                rest = selector.match_expressions
                yield replace(selector, match_expressions=(*rest[:i], fewer, *rest[i + 1 :]))


def _fewer_probes(scenario: Scenario) -> Iterator[Scenario]:
    probes = scenario.probes
    for extra in _less(probes.extra):
        if extra or probes.vias:
            yield replace(scenario, probes=replace(probes, extra=extra))
    if len(probes.ports) > 1:
        for ports in _less(probes.ports):
            yield replace(scenario, probes=replace(probes, ports=ports))
    if len(probes.vias) > 1:
        for vias in _less(probes.vias):
            yield replace(scenario, probes=replace(probes, vias=vias))
