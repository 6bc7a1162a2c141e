"""Apply: bring our own tables to a rendered ruleset, by one atomic switch.

Every start builds a whole new **epoch** (tables with a letter in their name) beside what is there:
sets, maps and chains that no packet meets. One small transaction then hooks it into the kernel and
deletes all other epochs, for both families at once. So does every mending. In between, a change is
one transaction; where that would not fit the socket's send buffer (inside a user namespace), what
is new is built first, in pieces.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping

from harness.enforcer import tool
from harness.enforcer.compiled import Compiled
from harness.enforcer.nftables.nft import Nft
from harness.enforcer.nftables.render import WORDS, Renderer
from harness.enforcer.ruleset import Chain, Change, Ruleset, change, pieces

FAMILIES = (4, 6)
OURS = re.compile(r"^table (ip6?) (netpol-([a-z]))\b")
LEAST = 20_000  # bytes: a transaction that does not fit this will never fit

# Bytes that a command takes on the wire to the kernel, roughly
RULE, ELEMENT, OTHER = 900, 100, 250


class Nftables:
    """The data plane of one node."""

    name = "nftables"

    def __init__(self) -> None:
        self._nft = Nft()
        self._room = 300_000  # bytes of one transaction; halved when it was too much
        self._epoch = ""
        self._renderers: dict[int, Renderer] = {}
        self._there: dict[int, Ruleset] = {}

    def apply(self, compiled: Compiled) -> None:
        """Bring the snapshot into force. After a ToolError what was in force before still is."""
        if not self._epoch:
            self._install(compiled)
            return
        wanted = {family: render(compiled) for family, render in self._renderers.items()}
        try:
            self._update({f: change(self._there[f], wanted[f]) for f in FAMILIES})
        except tool.ToolError:
            # what was done of it is unknown now: the next attempt builds a new epoch
            self._epoch = ""
            raise
        self._there = wanted

    def forget(self) -> None:
        """Somebody else changed something: the next :meth:`apply` builds everything anew."""
        self._epoch = ""

    def clean(self) -> None:
        """Take away all that this plane ever made on the node, in whatever state it is."""
        self._epoch = ""
        self._nft.run("".join(f"delete {table}\n" for table in self._tables()))

    def _update(self, changes: Mapping[int, Change]) -> None:
        tables = {family: self._table(family) for family in FAMILIES}
        build = [line for f, one in changes.items() for line in new_parts(one, tables[f])]
        switch = [line for f, one in changes.items() for line in switched(one, tables[f])]
        remove = [line for f, one in changes.items() for line in gone_parts(one, tables[f])]
        whole = [*build, *switch, *remove]
        if sum(map(weigh, whole)) <= self._room:
            try:
                self._nft.run("".join(whole))
                return
            except tool.TooLargeError:
                self._shrink()
        self._in_pieces(build)
        self._nft.run("".join(switch))
        self._in_pieces(remove)

    def _install(self, compiled: Compiled) -> None:
        there = self._tables()
        used = {table[-1] for table in there}
        epoch = next((letter for letter in string.ascii_lowercase if letter not in used), "a")
        self._renderers = {family: Renderer(family) for family in FAMILIES}
        wanted = {family: render(compiled) for family, render in self._renderers.items()}
        tables = {family: self._table(family, epoch) for family in FAMILIES}
        lines = [f"add table {table}\n" for table in tables.values()]
        for family, table in tables.items():
            lines += new_parts(change(Ruleset(), wanted[family]), table)
        self._in_pieces(lines)
        switch = [
            line for f, render in self._renderers.items() for line in hooked(render, tables[f])
        ]
        self._nft.run("".join([*switch, *(f"delete {table}\n" for table in there)]))
        self._epoch, self._there = epoch, wanted

    def _table(self, family: int, epoch: str = "") -> str:
        return f"{WORDS[family].ip} netpol-{epoch or self._epoch}"

    def _tables(self) -> list[str]:
        """Our tables, of every epoch, as ``table ip netpol-a``."""
        lines = self._nft.run("list tables").splitlines()
        return [match[0] for line in lines if (match := OURS.match(line))]

    def _in_pieces(self, lines: Iterable[str]) -> None:
        left = list(lines)
        while left:
            piece = next(pieces(left, self._room, weigh))
            try:
                self._nft.run("".join(piece))
            except tool.TooLargeError:
                self._shrink()
                continue
            left = left[len(piece) :]

    def _shrink(self) -> None:
        if self._room <= LEAST:
            raise tool.ToolError(f"not even {self._room} bytes fit one transaction")
        self._room //= 2


def weigh(line: str) -> int:
    """Bytes of a command on the wire, roughly."""
    if line.startswith("add rule"):
        return RULE
    if " element " in line[:20]:
        return OTHER + ELEMENT * (line.count(",") + 1)
    return OTHER


def new_parts(one: Change, table: str) -> Iterator[str]:
    """Sets, maps and chains that nothing leads to yet. Declared before anything refers to them."""
    for name, made in one.new_sets.items():
        kind, type_ = made.type.split(" ", 1)
        flags = "flags interval; " if type_.endswith(" interval") else ""
        yield f"add {kind} {table} {name} {{ type {type_.removesuffix(' interval')}; {flags}}}\n"
    yield from (f"add chain {table} {name}\n" for name in one.new_chains)
    for name, rules in one.new_chains.items():
        yield from rule_lines(table, name, rules)
    for name, made in one.new_sets.items():
        yield from elements("add", table, name, made.elements)


def switched(one: Change, table: str) -> Iterator[str]:
    """What packets meet at once: chains with other rules, elements that go and come."""
    yield from (f"flush chain {table} {name}\n" for name in one.changed_chains)
    for name, rules in one.changed_chains.items():
        yield from rule_lines(table, name, rules)
    for name, away in one.taken.items():
        yield from elements("delete", table, name, away)
    for name, more in one.given.items():
        yield from elements("add", table, name, more)


def gone_parts(one: Change, table: str) -> Iterator[str]:
    """What nothing leads to any more, emptied before it is deleted."""
    yield from (f"flush chain {table} {name}\n" for name in one.gone_chains)
    for name, there in one.gone_sets.items():
        yield f"delete {there.type.split(' ', 1)[0]} {table} {name}\n"
    yield from (f"delete chain {table} {name}\n" for name in one.gone_chains)


def hooked(render: Renderer, table: str) -> Iterator[str]:
    """The base chains."""
    for name, (type_, *rules) in render.hooks().items():
        yield f"add chain {table} {name} {{ {type_} }}\n"
        yield from rule_lines(table, name, tuple(rules))


def rule_lines(table: str, chain: str, rules: Chain) -> Iterator[str]:
    """Lines that add a chain's rules."""
    return (f"add rule {table} {chain} {rule}\n" for rule in rules)


def elements(verb: str, table: str, name: str, which: Iterable[str]) -> Iterator[str]:
    """Lines that add or delete elements, few enough in one to be cut into pieces between them."""
    for piece in pieces(sorted(which), 500, lambda _: 1):
        yield f"{verb} element {table} {name} {{ {', '.join(piece)} }}\n"
