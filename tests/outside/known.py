"""Where network-config-analyzer 2.1.0 departs from the specification, one by one.

Two of its departures are refusals, and the worlds are written so that it reads them:

* ``policyTypes`` has to list Ingress before Egress; the API takes any order.
* rules of a direction that ``policyTypes`` does not list are refused; the API takes them, and they
  do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from harness.model.flow import Cell, EndpointKind
from harness.model.policy import LabelSelector, NetworkPolicy, Operator, Peer
from harness.model.selectors import selects
from harness.model.world import World


def empty_value_of_a_namespace(world: World, cell: Cell) -> bool:
    """A peer asks a namespace for an empty value, and some namespace lacks the key."""
    return any(
        key not in namespace.labels
        for _, peer in _peers(world, cell)
        if peer.namespace_selector is not None
        for key in _empty_keys(peer.namespace_selector)
        for namespace in world.namespaces.values()
    )


def key_of_a_pod_elsewhere(world: World, cell: Cell) -> bool:
    """A podSelector beside a namespaceSelector asks for a key, and one end is elsewhere."""
    return any(
        one.operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST)
        and {cell.source.namespace, cell.target.namespace} != {policy.namespace}
        for policy, peer in _peers(world, cell)
        if peer.namespace_selector is not None and peer.pod_selector is not None
        for one in peer.pod_selector.match_expressions
    )


def _peers(world: World, cell: Cell) -> Iterator[tuple[NetworkPolicy, Peer]]:
    """The peers of the policies whose subject is one of the ends."""
    for end in (cell.source, cell.target):
        pod = world.pods.get((end.namespace, end.name)) if end.kind is EndpointKind.POD else None
        for policy in world.policies.values():
            if pod is None:
                continue
            if policy.namespace == end.namespace and selects(policy.pod_selector, pod.labels):
                for rule in (*policy.ingress, *policy.egress):
                    yield from ((policy, peer) for peer in rule.peers)


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
    "Exists and DoesNotExist of a podSelector beside a namespaceSelector find pods of the policy's "
    "own namespace alone": key_of_a_pod_elsewhere,
}
