"""What one address family's part of the kernel should hold, and the way from one such to the next.

Both data planes render to this form. Names are the kernel's own; rules are in the language of the
plane's tool, without the words that say where they go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

#: ICMPv6 without which IPv6 does not work at all: neighbour discovery (RFC 4861), MLD (RFC 2710,
#: RFC 3810). Never blocked.
NEIGHBOUR_DISCOVERY = (130, 131, 132, 133, 134, 135, 136, 137, 143)

Chain = tuple[str, ...]


class KernelSet(NamedTuple):
    """A set or map: its type in the plane's words, and its elements. A ``guard`` is one that
    shuts: where a change is no transaction, elements come early to it and go late."""

    type: str
    elements: frozenset[str]
    guard: bool = False


Sets = Mapping[str, KernelSet]


class Lines(NamedTuple):
    """What a row of a target is rendered to, and the rules of policies that it comes from."""

    origins: tuple[str, ...]
    sets: Sets
    rules: Chain


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Sets and chains by name. A chain stands after those that its rules lead to."""

    sets: Sets = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """The way from one ruleset to another, in parts that can be done one after the other.

    ``taken`` and ``given`` are elements of sets that exist before and after; ``guards`` names
    those of these sets that shut.
    """

    new_sets: Mapping[str, KernelSet]
    taken: Mapping[str, frozenset[str]]
    given: Mapping[str, frozenset[str]]
    guards: frozenset[str]
    gone_sets: Mapping[str, KernelSet]
    new_chains: Mapping[str, Chain]
    changed_chains: Mapping[str, Chain]
    gone_chains: tuple[str, ...]

    @property
    def chains(self) -> bool:
        """Does any chain change?"""
        return bool(self.new_chains or self.changed_chains or self.gone_chains)

    def __bool__(self) -> bool:
        return bool(self.new_sets or self.taken or self.given or self.gone_sets or self.chains)


def change(old: Ruleset, new: Ruleset) -> Change:
    """What has to be done to get from ``old`` to ``new``."""
    taken: dict[str, frozenset[str]] = {}
    given: dict[str, frozenset[str]] = {}
    for name, wanted in new.sets.items():
        there = old.sets.get(name)
        if there is None or there is wanted or there.elements is wanted.elements:
            continue
        if away := there.elements - wanted.elements:
            taken[name] = away
        if more := wanted.elements - there.elements:
            given[name] = more
    new_chains: dict[str, Chain] = {}
    changed_chains: dict[str, Chain] = {}
    for name, rules in new.chains.items():
        known = old.chains.get(name)
        if known is None:
            new_chains[name] = rules
        elif known is not rules and known != rules:
            changed_chains[name] = rules
    gone = old.chains.keys() - new.chains.keys()
    return Change(
        new_sets={name: made for name, made in new.sets.items() if name not in old.sets},
        taken=taken,
        given=given,
        guards=frozenset(name for name in taken.keys() | given.keys() if new.sets[name].guard),
        gone_sets={name: there for name, there in old.sets.items() if name not in new.sets},
        new_chains=new_chains,
        changed_chains=changed_chains,
        # the other way round: what leads to a chain goes before it
        gone_chains=tuple(name for name in reversed(list(old.chains)) if name in gone)
        if gone
        else (),
    )


def pieces(items: Iterable[T], size: int, weigh: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, cut into pieces that weigh at most ``size`` (or hold one item)."""
    piece: list[T] = []
    weight = 0
    for item in items:
        if piece and weight + weigh(item) > size:
            yield piece
            piece, weight = [], 0
        piece.append(item)
        weight += weigh(item)
    if piece:
        yield piece


class Memo:
    """Remembers what was made of a value for as long as the very same value is asked about."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[object, object]] = {}
        self._next: dict[Hashable, tuple[object, object]] = {}

    def __call__(self, key: Hashable, value: object, make: Callable[[], T]) -> T:
        """``make()``, or what it gave the last time if ``value`` is that of the last time."""
        return self.onward(key, value, lambda _: make())

    def onward(self, key: Hashable, value: object, make: Callable[[T | None], T]) -> T:
        """The same, where ``make`` goes on from what it gave the last time (None: nothing)."""
        known = self._made.get(key)
        if known is None or known[0] is not value:
            known = value, make(known and known[1])  # type: ignore[arg-type]
        self._next[key] = known
        return known[1]  # type: ignore[return-value]  # what this key's make() gave

    def turn(self) -> None:
        """Forget what was not asked for since the last turn."""
        self._made, self._next = self._next, {}


class Parts:
    """Puts a ruleset together out of parts, making anew only those whose values are other ones.

    A part is made by a function of its values and of a :class:`Memo` that is the part's own.
    """

    def __init__(self) -> None:
        self._memos: dict[str, Memo] = {}
        self._made: dict[str, tuple[tuple[object, ...], Ruleset]] = {}

    def __call__(self, name: str, make: Callable[..., Ruleset], *values: object) -> Ruleset:
        known = self._made.get(name)
        if known is not None and all(a is b for a, b in zip(known[0], values, strict=True)):
            return known[1]
        memo = self._memos.setdefault(name, Memo())
        made = make(*values, memo)
        memo.turn()
        self._made[name] = values, made
        return made


def join(parts: Iterable[Ruleset]) -> Ruleset:
    """One ruleset out of parts, in their order."""
    sets: dict[str, KernelSet] = {}
    chains: dict[str, Chain] = {}
    for part in parts:
        sets.update(part.sets)
        chains.update(part.chains)
    return Ruleset(sets, chains)
