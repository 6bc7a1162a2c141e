"""Apply: bring the filter table and the ipsets to a rendered ruleset, never through an open state.

Every start builds a whole new **epoch** (a letter in all names) beside what is there, then leads
the packets to it by one small transaction for each family, then takes the rest away. So does every
mending, unless it is enough to put our jumps first again, or elements back into sets. In between, a
change touches only what differs, in this order:

1. new sets are filled, addresses that lose their place are taken out of sets,
2. one ``iptables-restore --noflush``: new chains, changed chains, then gone chains,
3. addresses that gain a place are put into sets, gone sets are destroyed.

``ipset restore`` is no transaction; in this order every moment allows at most what was allowed
before or what is allowed after. Chains that no packet can meet yet may come in several pieces:
inside a user namespace one nftables transaction has to fit the socket's send buffer.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from harness.enforcer import netlink, tool
from harness.enforcer.compiled import Compiled
from harness.enforcer.iptables import ipset, legacy
from harness.enforcer.iptables.listing import read
from harness.enforcer.iptables.render import Renderer, comment_of
from harness.enforcer.listing import Listing
from harness.enforcer.ruleset import Chain, Change, KernelSet, Ruleset, change, pieces

FAMILIES = (4, 6)
OURS = re.compile(r"^NP([a-z])[46]-")
JUMPS = {"FORWARD": "NETPOL", "INPUT": "NETPOL-INPUT"}
LEAST = 20_000  # bytes: a transaction that does not fit this will never fit
JUMP_COMMENT = "network policies"


class Iptables:
    """The data plane of one node. ``variant`` is ``nft``, ``legacy`` or ``""`` (the default)."""

    name = "iptables"
    unsure = False

    def __init__(self, variant: str = "") -> None:
        self._suffix = f"-{variant}" if variant else ""
        # what is not installed is told before anything is begun
        versions = [[name, "--version"] for name in (self._tool(4), "ipset")]
        self._legacy = "legacy" in tool.run_all([(argv, "") for argv in versions])[0]
        self._room = 420_000  # bytes of one transaction; halved when it was too much
        self._epoch = ""
        self._renderers: dict[int, Renderer] = {}
        self._there: dict[int, Ruleset] = {}
        self._hooks: dict[int, dict[str, Chain]] = {}  # that led to rules last
        self._ear = netlink.open_socket(1 << netlink.NFNLGRP_NFTABLES - 1)
        self._sets = netlink.open_socket()
        self._displaced = False  # are our jumps not the first any more?
        self._short = False  # are our sets not as they were made?
        self._seen: object = None  # what the last glance saw, if it was as it should be

    def apply(self, compiled: Compiled) -> None:
        """Bring the snapshot into force. After a ToolError what was in force before still is."""
        epoch = self._epoch
        if not epoch:
            self._install(compiled)
            return
        self._epoch = ""  # should this fail: from the beginning
        if self._displaced:
            self._restore({family: [*self._jumps(family)] for family in FAMILIES})
            self._displaced = False
        if self._short and not self._refill():
            self._install(compiled)
            return
        self._epoch = epoch
        wanted = {family: render(compiled) for family, render in self._renderers.items()}
        changes = {family: change(self._there[family], wanted[family]) for family in FAMILIES}
        try:
            self._update(changes)
        except tool.ToolError as error:
            # what was done of it is unknown now: a new epoch is built, which can come in pieces
            self._epoch = ""
            if not isinstance(error, tool.TooLargeError):
                raise  # by the next attempt
            self._install(compiled)
            return
        self._there = wanted

    def live(self) -> list[Listing]:
        ipsets = tool.run(["ipset", "save"])
        found = []
        for family in FAMILIES:
            save = tool.run([self._tool(family, "-save"), "-c", "-t", "filter"])
            found.append(read(family, save, ipsets, list(JUMPS.values())))
        return [listing for listing in found if listing.roots]

    # What others do to it

    def fileno(self) -> int:
        return self._ear.fileno()

    def noticed(self) -> str:
        heard = netlink.overhear(self._ear)
        if not self._epoch or self._legacy:
            return ""
        foreign = [touched(one) for one in heard.messages if one.port not in tool.recent]
        chains = [chain for table, chain in foreign if table == "filter"]
        for chain in chains:
            if OURS.match(chain) or chain in JUMPS.values() or not chain:
                return self._distrust(f"somebody changed {chain or 'the table filter'}")
        self.unsure |= heard.lost
        return self._compare_jumps() if JUMPS.keys() & set(chains) else ""

    def glance(self) -> str:
        """The kernel tells nothing of ipsets, and nothing of legacy tables."""
        if not self._epoch:
            return ""
        headers = netlink.ask_sets(self._sets)
        tables = [legacy.table_info(family) for family in FAMILIES] if self._legacy else []
        seen = headers, tables
        if seen == self._seen:
            return ""
        problem = self._compare_sets(headers)
        if not problem and self._legacy:
            problem = self._compare_chains() or self._compare_jumps()
        if not problem:
            self._seen = seen
        return problem

    def verify(self) -> str:
        if not self._epoch:
            return ""
        self.unsure = False
        headers = netlink.ask_sets(self._sets)
        return self._compare_sets(headers) or self._compare_chains() or self._compare_jumps()

    def size(self) -> tuple[int, int]:
        rules = sum(len(rules) for one in self._there.values() for rules in one.chains.values())
        return rules, sum(len(one.sets) for one in self._there.values())

    def _distrust(self, problem: str) -> str:
        self._epoch = ""
        return problem

    def _compare_sets(self, headers: list[bytes]) -> str:
        there = netlink.set_sizes(headers)
        wanted = self._wanted_sets()
        amiss = [name for name, one in wanted.items() if there.get(name) != len(one.elements)]
        self._short = bool(amiss)
        if not amiss:
            return ""
        problem = f"ipset {amiss[0]} is not as it was made"
        return problem if there.keys() >= wanted.keys() else self._distrust(problem)

    def _refill(self) -> bool:
        """Put everything back into all sets that are there; whether they are as they were made
        then. They hold all that is wanted, so that their numbers tell whether they hold more."""
        there = netlink.set_sizes(netlink.ask_sets(self._sets))
        sets = {name: one for name, one in self._wanted_sets().items() if name in there}
        ipset.restore(ipset.filled(sets), exist=True)
        return not self._compare_sets(netlink.ask_sets(self._sets))

    def _wanted_sets(self) -> dict[str, KernelSet]:
        rulesets = self._there.values()
        return {name: one for ruleset in rulesets for name, one in ruleset.sets.items()}

    def _compare_chains(self) -> str:
        for family, ruleset in self._there.items():
            lines = (line for line in self._list(family) if line[:2] in ("-N", "-A"))
            there = Counter(line.split()[1] for line in lines)
            wanted = {**ruleset.chains, **self._renderers[family].hooks()}
            for name, rules in wanted.items():
                if there[name] != 1 + len(rules):
                    return self._distrust(f"chain {name} is not as it was made")
        return ""

    def _compare_jumps(self) -> str:
        self._displaced = any(True for family in FAMILIES for _ in self._jumps(family))
        return "our jumps are not the first rules any more" if self._displaced else ""

    # One change

    def _update(self, changes: Mapping[int, Change]) -> None:
        chains = any(one.chains for one in changes.values())
        before = [line for one in changes.values() for line in ipset.before(one)]
        after = [line for one in changes.values() for line in ipset.after(one)]
        if not chains:
            ipset.restore(before + after)
            return
        ipset.restore(before)
        self._switch({family: one for family, one in changes.items() if one.chains})
        ipset.restore(after)

    def _switch(self, changes: Mapping[int, Change]) -> None:
        """New, changed and gone chains; if need be, the first and last in pieces."""
        whole: dict[int, list[str]] = {}
        for family, one in changes.items():
            kept = {**one.new_chains, **one.changed_chains}
            gone = [f"-X {name}" for name in one.gone_chains]
            whole[family] = [*declare([*kept, *one.gone_chains]), *fill(kept), *gone]
        if all(sum(map(weigh, lines)) <= self._room for lines in whole.values()):
            try:
                self._restore(whole)
                return
            except tool.TooLargeError:
                self._shrink()
        for family, one in changes.items():
            self._build(family, one.new_chains)
        self._restore(
            {
                family: [*declare(one.changed_chains), *fill(one.changed_chains)]
                for family, one in changes.items()
            }
        )
        for family, one in changes.items():
            self._remove(family, one.gone_chains)

    # A new epoch

    def _install(self, compiled: Compiled) -> None:
        self._lead_back()
        in_force = self._in_force()
        self._sweep(keep=in_force)  # what an earlier attempt left half built
        epoch = next(letter for letter in string.ascii_lowercase if letter not in in_force)
        self._renderers = {family: Renderer(family, f"NP{epoch}{family}-") for family in FAMILIES}
        wanted = {family: render(compiled) for family, render in self._renderers.items()}
        changes = [change(Ruleset(), ruleset) for ruleset in wanted.values()]
        ipset.restore([line for one in changes for line in ipset.before(one)])
        for family in FAMILIES:
            self._build(family, wanted[family].chains)
        hooks = {family: render.hooks() for family, render in self._renderers.items()}
        self._hook(hooks)
        self._epoch, self._there, self._hooks = epoch, wanted, hooks
        self._short = False
        self._sweep(keep={epoch})

    def _hook(self, hooks: Mapping[int, Mapping[str, Chain]]) -> None:
        """Fill the two chains that keep their names, and put the jumps to them first."""
        self._restore(
            {f: [*declare(chains), *fill(chains), *self._jumps(f)] for f, chains in hooks.items()}
        )

    def _lead_back(self) -> None:
        """Lead packets to what was in force last, if it is there: mostly that alone is what
        somebody broke, and it is shut long before all is built anew. In the same way sets that
        were emptied are filled, so that what is allowed does not wait either."""
        with contextlib.suppress(tool.ToolError):
            self._hook(self._hooks)
        if self._compare_sets(netlink.ask_sets(self._sets)):
            with contextlib.suppress(tool.ToolError):
                self._refill()

    def _in_force(self) -> set[str]:
        """The epochs that packets are led to; two after a crash between the families' switches."""
        rules = (
            line
            for family in FAMILIES
            for line in self._list(family)
            if line.split()[1] in JUMPS.values()
        )
        return {match[1] for line in rules if (match := re.search(r" NP([a-z])[46]-", line))}

    def _jumps(self, family: int) -> Iterator[str]:
        """Lines that put our jumps first, if they are not already."""
        for base, ours in JUMPS.items():
            rules = [line for line in self._list(family, base) if line.startswith("-A ")]
            mine = [line for line in rules if line.endswith(f" -j {ours}")]
            if len(mine) == 1 and rules[0] == mine[0]:
                continue
            yield from (f"-D {line.removeprefix('-A ')}" for line in mine)
            yield f"-I {base} 1 {comment_of(JUMP_COMMENT)} -j {ours}"

    def _sweep(self, keep: Collection[str]) -> None:
        """Take away what no packet meets any more: all epochs but those to keep."""
        for family in FAMILIES:
            self._remove(family, stale(self._chain_names(family), keep))
        ipset.restore(f"destroy {name}" for name in stale(ipset.names(), keep))

    def clean(self) -> None:
        """Take away all that this plane ever made on the node, in whatever state it is."""
        for family in FAMILIES:
            lines = []
            names = set(self._chain_names(family))
            for base, ours in JUMPS.items():
                lines += [
                    f"-D {line.removeprefix('-A ')}"
                    for line in self._list(family, base)
                    if line.endswith(f" -j {ours}")
                ]
                if ours in names:
                    lines += [f":{ours} - [0:0]", f"-X {ours}"]
            # flushed before removed, and what refers to them goes first
            self._restore({family: sorted(lines, key=lambda line: line.startswith("-X"))})
        self._epoch, self._hooks = "", {}
        self._sweep(keep=())

    # The tools

    def _build(self, family: int, chains: Mapping[str, Chain]) -> None:
        """Chains that nothing leads to yet, in pieces."""
        left = list(chains.items())
        while left:
            piece = next(pieces(left, self._room, weigh_chain))
            try:
                self._restore({family: [*declare(dict(piece)), *fill(dict(piece))]})
            except tool.TooLargeError:
                self._shrink()
                continue
            left = left[len(piece) :]

    def _remove(self, family: int, names: Iterable[str]) -> None:
        """Chains that nothing else leads to: emptied first, as they lead to one another."""
        left = list(names)
        for lines in (declare(left), (f"-X {name}" for name in left)):
            for piece in pieces(lines, 300, lambda _: 1):
                self._restore({family: piece})

    def _shrink(self) -> None:
        if self._room <= LEAST:
            raise tool.ToolError(f"not even {self._room} bytes fit one transaction")
        self._room //= 2

    def _restore(self, lines: Mapping[int, list[str]]) -> None:
        """One transaction for each family, both at the same time."""
        calls = [
            (
                [self._tool(family, "-restore"), "--noflush", "--wait", "5"],
                "\n".join(("*filter", *those, "COMMIT", "")),
            )
            for family, those in lines.items()
            if those
        ]
        tool.run_all(calls)

    def _list(self, family: int, chain: str = "") -> list[str]:
        argv = [self._tool(family), "--wait", "5", "-S", *([chain] if chain else [])]
        return tool.run(argv).splitlines()

    def _chain_names(self, family: int) -> list[str]:
        return [line.split()[1] for line in self._list(family) if line.startswith("-N ")]

    def _tool(self, family: int, what: str = "") -> str:
        return f"{'ip6tables' if family == 6 else 'iptables'}{self._suffix}{what}"


def stale(names: Iterable[str], keep: Collection[str]) -> list[str]:
    """Those of our names that belong to none of the epochs to keep."""
    return [name for name in names if (match := OURS.match(name)) and match[1] not in keep]


def touched(message: netlink.Message) -> tuple[str, str]:
    """The table and the chain that a message of nftables is about; empty texts for others."""
    if message.subsystem != netlink.SUBSYS_NFTABLES:
        return "", ""
    found = message.attributes()
    table = netlink.text(found.get(1, b""))
    match message.command:
        case netlink.NEWCHAIN | netlink.DELCHAIN:
            return table, netlink.text(found.get(3, b""))
        case netlink.NEWRULE | netlink.DELRULE:
            return table, netlink.text(found.get(2, b""))
        case netlink.DELTABLE:
            return table, ""
    return "", ""


def weigh(line: str) -> int:
    """Bytes that a line takes on the wire to the kernel, roughly: matches have fixed sizes."""
    if not line.startswith("-A"):
        return 150
    addresses = line.count("-s ") + line.count("-d ")
    comments = line.count("--comment")
    return 340 + 200 * addresses + 650 * comments + 350 * (line.count(" -m ") - comments)


def weigh_chain(item: tuple[str, Chain]) -> int:
    """The same for a whole chain."""
    return 150 + sum(weigh(f"-A {rule}") for rule in item[1])


def declare(chains: Iterable[str]) -> Iterator[str]:
    """Lines that make chains, or empty those that are there."""
    return (f":{name} - [0:0]" for name in chains)


def fill(chains: Mapping[str, Chain]) -> Iterator[str]:
    """Lines that add a chain's rules."""
    return (f"-A {name} {rule}" for name, rules in chains.items() for rule in rules)
