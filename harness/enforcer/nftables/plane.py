"""Apply: bring our own tables to a rendered ruleset, by one atomic switch.

Every start builds a whole new **epoch** (tables with a letter in their name) beside what is there:
sets, maps and chains that no packet meets. One small transaction then hooks it into the kernel and
deletes all other epochs, for both families at once. So does every mending. In between, a change is
one transaction; where that would not fit the socket's send buffer (inside a user namespace), what
is new is built first, in pieces.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping

from harness.enforcer import netlink, tool
from harness.enforcer.compiled import Compiled
from harness.enforcer.listing import Listing
from harness.enforcer.nftables.listing import read
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
    unsure = False

    def __init__(self) -> None:
        self._nft = Nft()
        self._room = 300_000  # bytes of one transaction; halved when it was too much
        self._epoch = ""
        self._renderers: dict[int, Renderer] = {}
        self._there: dict[int, Ruleset] = {}
        self._hooks: list[str] = []  # the lines that led to rules last
        self._ear = netlink.open_socket(1 << netlink.NFNLGRP_NFTABLES - 1)
        self._port = self._own_port()

    def apply(self, compiled: Compiled) -> None:
        """Bring the snapshot into force. After a ToolError what was in force before still is."""
        if not self._epoch:
            self._install(compiled)
            return
        wanted = {family: render(compiled) for family, render in self._renderers.items()}
        try:
            self._update({f: change(self._there[f], wanted[f]) for f in FAMILIES})
        except tool.ToolError as error:
            # what was done of it is unknown now: a new epoch is built, which can come in pieces
            self._epoch = ""
            if not isinstance(error, tool.TooLargeError):
                raise  # by the next attempt
            self._install(compiled)
            return
        self._there = wanted

    def clean(self) -> None:
        """Take away all that this plane ever made on the node, in whatever state it is."""
        self._epoch, self._hooks = "", []
        self._nft.run("".join(f"delete {table}\n" for table in self._tables()))

    def live(self) -> list[Listing]:
        found = []
        for line in self._tables():
            words = line.split()[1]
            listing = read(4 if words == "ip" else 6, self._nft.run(f"list {line}\n"))
            if listing.roots:  # else: half built by one that was killed
                found.append(listing)
        return found

    # What others do to it

    def fileno(self) -> int:
        return self._ear.fileno()

    def noticed(self) -> str:
        heard = netlink.overhear(self._ear)
        for message in heard.messages:
            if not self._is_own(message.port) and (table := _our_table(message)):
                self._epoch = ""
                return f"somebody changed table {table}"
        self.unsure |= heard.lost
        return ""

    def glance(self) -> str:
        return ""  # the kernel tells of everything

    def verify(self) -> str:
        self.unsure = False
        problem = self._compare() if self._epoch else ""
        if problem:
            self._epoch = ""
        return problem

    def size(self) -> tuple[int, int]:
        rules = sum(len(rules) for one in self._there.values() for rules in one.chains.values())
        return rules, sum(len(one.sets) for one in self._there.values())

    def _compare(self) -> str:
        for family, ruleset in self._there.items():
            table = self._table(family)
            try:
                there = sizes(self._nft.run(f"list table {table}\n", as_json=True))
            except tool.ToolError as error:
                return str(error)
            wanted = {name: len(made.elements) for name, made in ruleset.sets.items()}
            wanted |= {name: len(rules) for name, rules in ruleset.chains.items()}
            hooks = self._renderers[family].hooks()
            wanted |= {name: len(rules) - 1 for name, rules in hooks.items()}
            if there != wanted:
                wrong = sorted(n for n in {*there, *wanted} if there.get(n) != wanted.get(n))
                return f"table {table} is not as it was made: {', '.join(wrong[:5])}"
        return ""

    def _is_own(self, port: int) -> bool:
        return port == self._port if self._nft.in_process else port in tool.recent

    def _own_port(self) -> int:
        """The netlink port that our own changes come from, seen on one that changes nothing.

        It mostly is this process's number; but another process of that number in another process
        namespace may have taken it.
        """
        if not self._nft.in_process:
            return -1  # every nft has another one: tool.recent knows
        name = f"netpol-{os.urandom(8).hex()}"
        self._nft.run(f"add table ip {name}\ndelete table ip {name}\n")
        for message in netlink.overhear(self._ear).messages:
            if _table_of(message) == name:
                return message.port
        return os.getpid()

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
        self._lead_back()
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
        self._epoch, self._there, self._hooks = epoch, wanted, switch

    def _lead_back(self) -> None:
        """Lead packets to what was in force last, if it is there: mostly that alone is what
        somebody broke, and it is shut long before all is built anew."""
        with contextlib.suppress(tool.ToolError):
            self._nft.run("".join(self._hooks))

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


def _table_of(message: netlink.Message) -> str:
    """The table that a message of nftables is about."""
    if message.command == netlink.NEWGEN:
        return ""
    return netlink.text(message.attributes().get(1, b""))  # NFTA_*_TABLE, NFTA_TABLE_NAME


def _our_table(message: netlink.Message) -> str:
    name = _table_of(message)
    return name if re.fullmatch("netpol-[a-z]", name) else ""


def sizes(listing: str) -> dict[str, int]:
    """How many elements the sets of a table have, and how many rules its chains."""
    found: dict[str, int] = {}
    for item in json.loads(listing)["nftables"]:
        for kind, thing in item.items():
            if kind in ("set", "map"):
                found[thing["name"]] = len(thing.get("elem", ()))
            elif kind == "chain":
                found.setdefault(thing["name"], 0)
            elif kind == "rule":
                found[thing["chain"]] = found.get(thing["chain"], 0) + 1
    return found


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
        yield f"flush chain {table} {name}\n"
        yield from rule_lines(table, name, tuple(rules))


def rule_lines(table: str, chain: str, rules: Chain) -> Iterator[str]:
    """Lines that add a chain's rules."""
    return (f"add rule {table} {chain} {rule}\n" for rule in rules)


def elements(verb: str, table: str, name: str, which: Iterable[str]) -> Iterator[str]:
    """Lines that add or delete elements, few enough in one to be cut into pieces between them."""
    for piece in pieces(sorted(which), 500, lambda _: 1):
        yield f"{verb} element {table} {name} {{ {', '.join(piece)} }}\n"
