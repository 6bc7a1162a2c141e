"""Scenarios' names on a cluster that others use too: namespaces of one's own, nodes as they are.

A scenario says ``x`` and ``worker``. On a shared cluster its namespace is ``PREFIX-x``, so that
runs and workers never meet, and ``worker`` is whatever node comes second. Nothing that a policy
means is changed by that: it selects pods of its own namespace, and namespaces by labels, of which
only the one that holds the name has to follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.model.actions import Action, Apply, Delete, Finish, Object, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy, ClusterPeer, ClusterRule, Subject
from harness.model.flow import Cell, Endpoint
from harness.model.policy import LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import (
    NAMESPACE_NAME_LABEL,
    Namespace,
    Node,
    Pod,
    Service,
    World,
)

SYSTEM = ("default", "kube-node-lease", "kube-public", "kube-system")
"""Namespaces that every cluster has."""


@dataclass(frozen=True, slots=True)
class Names:
    """``prefix`` goes before namespaces (none: names stay as they are). ``nodes``: what scenarios
    call a node -> its name. ``kept``: namespaces that keep their names."""

    prefix: str = ""
    nodes: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = SYSTEM

    def namespace(self, name: str) -> str:
        """The cluster's name of a scenario's namespace."""
        return f"{self.prefix}-{name}" if self.prefix and name and name not in self.kept else name

    def own(self, name: str) -> str:
        """The scenario's name of a namespace of the cluster."""
        return name.removeprefix(f"{self.prefix}-") if self.prefix else name

    # -- to the cluster ----------------------------------------------------------------------

    def action(self, action: Action) -> Action:
        match action:
            case Apply(object=item):
                return Apply(self.object(item))
            case Delete(kind=kind, namespace=namespace, name=name):
                return Delete(kind, self.namespace(namespace), self._name(kind, name))
            case Relabel(kind=kind, namespace=namespace, name=name, labels=labels):
                return Relabel(kind, self.namespace(namespace), self._name(kind, name), labels)
            case Finish(namespace=namespace, name=name, phase=phase):
                return Finish(self.namespace(namespace), name, phase)

    def _name(self, kind: str, name: str) -> str:
        match kind:
            case "Namespace":
                return self.namespace(name)
            case "Node":
                return self.nodes.get(name, name)
            case "ClusterNetworkPolicy":
                return f"{self.prefix}-{name}" if self.prefix else name
        return name

    def object(self, item: Object) -> Object:
        match item:
            case Namespace():
                return replace(item, name=self.namespace(item.name))
            case Pod():
                return self.pod(item)
            case Service():
                return replace(item, namespace=self.namespace(item.namespace))
            case Node():
                return replace(item, name=self.nodes.get(item.name, item.name))
            case NetworkPolicy():
                return replace(
                    item,
                    namespace=self.namespace(item.namespace),
                    ingress=tuple(map(self._rule, item.ingress)),
                    egress=tuple(map(self._rule, item.egress)),
                )
            case ClusterNetworkPolicy():
                return replace(
                    item,
                    name=self._name("ClusterNetworkPolicy", item.name),
                    subject=self._subject(item.subject),
                    ingress=tuple(map(self._cluster_rule, item.ingress)),
                    egress=tuple(map(self._cluster_rule, item.egress)),
                )
        return item

    def pod(self, pod: Pod) -> Pod:
        node = self.nodes.get(pod.node, pod.node) if pod.node else pod.node
        return replace(pod, namespace=self.namespace(pod.namespace), node=node)

    def endpoint(self, end: Endpoint) -> Endpoint:
        return replace(end, namespace=self.namespace(end.namespace))

    def cell(self, cell: Cell) -> Cell:
        return replace(cell, source=self.endpoint(cell.source), target=self.endpoint(cell.target))

    def world(self, world: World) -> World:
        """The world's pods and Services; policies and namespaces are left as they are."""
        pods = [self.pod(pod) for pod in world.pods.values()]
        services = [
            replace(one, namespace=self.namespace(one.namespace)) for one in world.services.values()
        ]
        return world.with_(
            pods={pod.key: pod for pod in pods}, services={one.key: one for one in services}
        )

    # -- and back ----------------------------------------------------------------------------

    def back(self, world: World, found: World) -> World:
        """The scenario's ``world`` with what a lab has ``found`` for :meth:`world`."""
        pods = [replace(p, namespace=self.own(p.namespace)) for p in found.pods.values()]
        services = [replace(s, namespace=self.own(s.namespace)) for s in found.services.values()]
        system = {name: one for name, one in found.namespaces.items() if name in SYSTEM}
        return world.with_(
            namespaces={**system, **world.namespaces},
            pods={pod.key: pod for pod in pods},
            services={one.key: one for one in services},
            nodes=found.nodes,
            externals=found.externals,
        )

    # -- selectors ---------------------------------------------------------------------------

    def _rule(self, rule: Rule) -> Rule:
        return replace(rule, peers=tuple(map(self._peer, rule.peers)))

    def _peer(self, peer: Peer) -> Peer:
        chosen = peer.namespace_selector
        return replace(peer, namespace_selector=self._selector(chosen)) if chosen else peer

    def _cluster_rule(self, rule: ClusterRule) -> ClusterRule:
        return replace(rule, peers=tuple(map(self._cluster_peer, rule.peers)))

    def _cluster_peer(self, peer: ClusterPeer) -> ClusterPeer:
        return replace(
            peer,
            namespaces=self._selector(peer.namespaces) if peer.namespaces else peer.namespaces,
            pods=self._subject(peer.pods) if peer.pods else peer.pods,
        )

    def _subject(self, subject: Subject) -> Subject:
        return replace(subject, namespace_selector=self._selector(subject.namespace_selector))

    def _selector(self, selector: LabelSelector) -> LabelSelector:
        """The same, where it looks at the label that holds a namespace's name."""
        return replace(
            selector,
            match_labels=tuple(
                (key, self.namespace(value) if key == NAMESPACE_NAME_LABEL else value)
                for key, value in selector.match_labels
            ),
            match_expressions=tuple(
                replace(one, values=tuple(map(self.namespace, one.values)))
                if one.key == NAMESPACE_NAME_LABEL
                else one
                for one in selector.match_expressions
            ),
        )
