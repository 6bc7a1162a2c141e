"""Where network-config-analyzer 2.1.0 departs from the specification, one by one.

Two of its departures are refusals, and the worlds are written so that it reads them:

* ``policyTypes`` has to list Ingress before Egress; the API takes any order.
* rules of a direction that ``policyTypes`` does not list are refused; the API takes them, and they
  do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.model.flow import Cell, EndpointKind
from harness.model.policy import LabelSelector, NetworkPolicy, Operator
from harness.model.selectors import selects
from harness.model.world import World


def empty_value_of_a_namespace(world: World, cell: Cell) -> bool:
    """One end is subject of a policy with a peer that asks a namespace for an empty value, which
    some namespace does not have because it lacks the key."""
    ends = {
        (end.namespace, end.name)
        for end in (cell.source, cell.target)
        if end.kind is EndpointKind.POD
    }
    return any(
        key in ends
        and policy.namespace == pod.namespace
        and selects(policy.pod_selector, pod.labels)
        and _asks_for_nothing(policy, world)
        for key, pod in world.pods.items()
        for policy in world.policies.values()
    )


def _asks_for_nothing(policy: NetworkPolicy, world: World) -> bool:
    return any(
        key not in namespace.labels
        for rule in (*policy.ingress, *policy.egress)
        for peer in rule.peers
        if peer.namespace_selector is not None
        for key in _empty_keys(peer.namespace_selector)
        for namespace in world.namespaces.values()
    )


def _empty_keys(selector: LabelSelector) -> set[str]:
    keys = {key for key, value in selector.match_labels if value == ""}
    return keys | {
        one.key
        for one in selector.match_expressions
        if one.operator in (Operator.IN, Operator.NOT_IN) and "" in one.values
    }


#: What it says otherwise of cells -> whether a cell of a world may be such a case.
KNOWN: Mapping[str, Callable[[World, Cell], bool]] = {
    "an empty value in a namespaceSelector matches namespaces that lack the key": (
        empty_value_of_a_namespace
    ),
}
