"""Which pods each query finds, kept up to date as pods, namespaces and queries come and go.

Every query and every pod is filed under a label that the query requires (its anchor), so that an
event looks only at queries that can be concerned, and a new query only at such pods.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from harness.enforcer import meaning
from harness.enforcer.compiled import PodKey, PodQuery
from harness.model.policy import Labels, LabelSelector
from harness.model.world import NAMESPACE_NAME_LABEL

Anchor = tuple[str, str] | None
Move = tuple[PodKey, PodQuery]


class PodIndex:
    """Membership of pods in queries. Changing methods return the moves: who entered or left what.

    ``namespaces`` is shared with the owner, who changes it and then calls :meth:`relabel`.
    """

    def __init__(self, namespaces: Mapping[str, Labels]) -> None:
        self._namespaces = namespaces
        self._labels: dict[PodKey, Labels] = {}
        self._found: dict[PodKey, set[PodQuery]] = {}
        self._members: dict[PodQuery, set[PodKey]] = {}
        # by namespace or namespace selector, then by anchor
        self._queries: dict[str | LabelSelector, dict[Anchor, dict[PodQuery, None]]] = {}
        # by namespace, then by label; None holds every pod of the namespace
        self._pods: dict[str, dict[Anchor, set[PodKey]]] = {}
        self._spaces: dict[LabelSelector, set[str]] = {}

    def members(self, query: PodQuery) -> set[PodKey]:
        """The pods that a watched query finds."""
        return self._members.get(query, set())

    def found_by(self, key: PodKey) -> set[PodQuery]:
        """The watched queries that find a pod."""
        return self._found.get(key, set())

    def has(self, key: PodKey) -> bool:
        """Is the pod in the index?"""
        return key in self._labels

    # pods

    def put(self, key: PodKey, labels: Labels) -> list[Move]:
        """A pod is there, with these labels."""
        if key in self._labels:
            if self._labels[key] == labels:
                return []
            self._unfile(key)
        elif key[0] not in self._pods:
            self._pods[key[0]] = defaultdict(set)
            self._meet_namespace(key[0])
        self._labels[key] = labels
        filed = self._pods[key[0]]
        filed[None].add(key)
        for label in labels.items():
            filed[label].add(key)
        now = {query for query in self._candidates(key) if meaning.selects(query.pods, labels)}
        return self._move(key, now)

    def drop(self, key: PodKey) -> list[Move]:
        """A pod is gone."""
        if key not in self._labels:
            return []
        moves = self._move(key, set())
        self._unfile(key)
        del self._labels[key], self._found[key]
        return moves

    def _unfile(self, key: PodKey) -> None:
        filed = self._pods[key[0]]
        filed[None].discard(key)
        for label in self._labels[key].items():
            filed[label].discard(key)
            if not filed[label]:
                del filed[label]

    def _candidates(self, key: PodKey) -> Iterator[PodQuery]:
        anchors: list[Anchor] = [None, *self._labels[key].items()]
        for where in self._places(key[0]):
            filed = self._queries[where]
            for anchor in anchors:
                yield from filed.get(anchor, ())

    def _places(self, namespace: str) -> Iterator[str | LabelSelector]:
        if namespace in self._queries:
            yield namespace
        for selector, names in self._spaces.items():
            if namespace in names:
                yield selector

    def _move(self, key: PodKey, now: set[PodQuery]) -> list[Move]:
        before = self._found.get(key, set())
        for query in before - now:
            self._members[query].discard(key)
        for query in now - before:
            self._members[query].add(key)
        self._found[key] = now
        return [(key, query) for query in before ^ now]

    # queries

    def watch(self, query: PodQuery) -> None:
        """Keep the members of a query from now on."""
        if query in self._members:
            return
        where, selector = query
        if isinstance(where, LabelSelector) and where not in self._spaces:
            self._spaces[where] = {
                name for name in self._pods if meaning.selects(where, self._space_labels(name))
            }
        anchor = meaning.anchor(selector)
        self._queries.setdefault(where, {}).setdefault(anchor, {})[query] = None
        spaces = [where] if isinstance(where, str) else self._spaces[where]
        members = self._members[query] = {
            key
            for name in spaces
            for key in self._pods.get(name, {}).get(anchor, ())
            if meaning.selects(selector, self._labels[key])
        }
        for key in members:
            self._found[key].add(query)

    def unwatch(self, query: PodQuery) -> None:
        """Forget a query."""
        for key in self._members.pop(query, ()):
            self._found[key].discard(query)
        where, anchor = query.namespaces, meaning.anchor(query.pods)
        filed = self._queries.get(where, {})
        filed.get(anchor, {}).pop(query, None)
        if not filed.get(anchor, True):
            del filed[anchor]
        if not filed:
            self._queries.pop(where, None)
            if isinstance(where, LabelSelector):
                self._spaces.pop(where, None)

    # namespaces

    def relabel(self, namespace: str) -> list[Move]:
        """A namespace has other labels than before."""
        self._meet_namespace(namespace)
        moves: list[Move] = []
        for key in tuple(self._pods.get(namespace, {}).get(None, ())):
            labels = self._labels[key]
            now = {query for query in self._candidates(key) if meaning.selects(query.pods, labels)}
            moves += self._move(key, now)
        return moves

    def _meet_namespace(self, namespace: str) -> None:
        labels = self._space_labels(namespace)
        for selector, names in self._spaces.items():
            if meaning.selects(selector, labels):
                names.add(namespace)
            else:
                names.discard(namespace)

    def _space_labels(self, namespace: str) -> Labels:
        return self._namespaces.get(namespace) or {NAMESPACE_NAME_LABEL: namespace}


def pods_in(moves: Iterable[Move]) -> set[PodKey]:
    """The pods that some moves are about."""
    return {key for key, _ in moves}
