"""What is in force in the kernel, listed: each rule in a packet's order, in words if wanted.

Both data planes give the same form: chains with rules as their tool prints them, without the words
that say where they go, and sets with their elements. Names say what a chain or set is
(:mod:`harness.enforcer.names`); comments say which rules of which policies a rule comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.enforcer import names
from harness.enforcer.compiled import Compiled

SHOWN = 6  # elements of a set
_CUT = re.compile(rf"\.\.\.([0-9a-f]{{{names.DIGEST}}})$")
_LEADS = re.compile(r"(?:\bjump|\bgoto|-j|-g) ([\w-]+)")
_SET = re.compile(r"@([\w-]+)|--match-set ([\w-]+)")
_LEAF = re.compile(r"(?:! -[sd] \S+ )?-[sd] ([0-9a-f.:]+)(?:/(?:32|128)) ")
_PREFIX = re.compile(r"^NP[a-z][46]-")

CHAINS = {
    "ti": "ingress policies that select the same pods: what they allow together",
    "to": "egress policies that select the same pods: what they allow together",
    "ai": "ClusterNetworkPolicies of one tier, ingress: the first step that matches decides",
    "ao": "ClusterNetworkPolicies of one tier, egress: the first step that matches decides",
    "ci": "connections to {pods}",
    "co": "connections from {pods}",
    "di": "a branch of the tree that finds a pod by its address",
    "do": "a branch of the tree that finds a pod by its address",
    "g": "a page of a long chain",
    "s": "peers that may use a segment of ports",
    "mark": "sets the mark that means: allowed",
    "in": "finds the chain of the pod that a connection goes to; without one it is open",
    "out": "finds the chain of the pod that a connection comes from; without one it is open",
    "check": "forwarded packets that begin a connection",
    "host": "packets to the node itself that begin a connection",
    "nd-check": "what IPv6 itself needs passes, the rest is looked at",
    "nd-host": "what IPv6 itself needs passes, the rest is looked at",
    "NETPOL": "where forwarded packets come in, ahead of other rules",
    "NETPOL-INPUT": "where packets to the node come in, ahead of other rules",
    "forward-out": "the kernel's hook for forwarded packets: may their source send them?",
    "forward-in": "the kernel's hook for forwarded packets: may their destination get them?",
    "input-out": "the kernel's hook for packets to the node: may their source send them?",
}
#: What rules without a comment mean, by a piece of their text; the first that is found counts.
_RULES = (
    ("invalid", "a packet that belongs to no connection and begins none"),
    ("INVALID", "a packet that belongs to no connection and begins none"),
    ("icmp", "IPv6's own neighbour discovery and multicast"),
    ("--set-xmark 0x0/", "take away the mark of an earlier look"),
    ("--set-xmark", "allowed: set the mark"),
    ("--mark", "allowed by the chain above"),
    ("vmap @in", "to the chain of the destination pod, if a policy selects it"),
    ("vmap @out", "to the chain of the source pod, if a policy selects it"),
    ("vmap @m", "by its port to those who may use it"),
)


class LiveRule(NamedTuple):
    """One rule: its text, its comment (may be cut), the packets it counted (None: no counter)."""

    text: str
    comment: str
    packets: int | None


@dataclass(slots=True)
class Listing:
    """What is in force for one address family. ``roots``: the chains that the kernel leads to."""

    family: int
    roots: list[str] = field(default_factory=list)
    chains: dict[str, list[LiveRule]] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)

    def order(self) -> list[str]:
        """Chains in the order in which packets meet them."""
        found = dict.fromkeys(self.roots)
        left = list(reversed(self.roots))
        while left:
            for rule in self.chains.get(left.pop(), ()):
                for led in self._led(rule.text):
                    if led in self.chains and led not in found:
                        found[led] = None
                        left.insert(0, led)
        return [name for name in found if name in self.chains]

    def _led(self, text: str) -> Iterator[str]:
        yield from _LEADS.findall(text)
        for name in _SET.findall(text):
            for element in self.sets.get(name[0] or name[1], ()):
                yield from _LEADS.findall(element)

    def pods(self, chain: str) -> list[str]:
        """The addresses whose packets are led to a class's chain."""
        found = []
        for element in (one for name in ("in", "out") for one in self.sets.get(name, ())):
            address, _, leads = element.partition(" : ")
            if leads.endswith(f" {chain}"):
                found.append(address)
        for rules in self.chains.values():
            for rule in rules:
                if rule.text.endswith(f"-g {chain}") and (match := _LEAF.match(rule.text)):
                    found.append(f"{match[1]} ({rule.comment})")
        return list(dict.fromkeys(found))


def dump(listing: Listing) -> Iterator[str]:
    """The rules as they are, chain by chain."""
    for name in listing.order():
        yield f"chain {name}"
        for rule in listing.chains[name]:
            yield f"  {_count(rule)}{rule.text}{_quoted(rule.comment)}"


def explain(listing: Listing, legend: Mapping[str, str]) -> Iterator[str]:
    """The same with what each is for. ``legend`` tells what comments that were cut say."""
    for name in listing.order():
        yield f"chain {name}: {_purpose(listing, name)}"
        for rule in listing.chains[name]:
            yield f"  {_count(rule)}{rule.text}"
            yield f"  {'':>10}= {_meaning(rule, legend)}"
            for one in dict.fromkeys(a or b for a, b in _SET.findall(rule.text)):
                yield f"  {'':>10}  {one}: {_some(listing.sets.get(one, []))}"


def legend_of(compiled: Compiled) -> dict[str, str]:
    """The full text of each comment that says where a rule comes from, by its digest."""
    rows = [row for rows in compiled.targets.values() for row in rows.values()]
    rows += [step.row for steps in compiled.layers.values() for step in steps]
    texts = {", ".join(row.origins) for row in rows}
    texts |= {"/".join(pod) for pod in compiled.pods}
    return {names.digest(text): text for text in texts}


def _purpose(listing: Listing, name: str) -> str:
    short = _PREFIX.sub("", name)
    text = CHAINS.get(short) or CHAINS.get(short.split("-")[0], "")
    return text.format(pods=_some(listing.pods(name))) if "{" in text else text


def _meaning(rule: LiveRule, legend: Mapping[str, str]) -> str:
    if rule.comment:
        cut = _CUT.search(rule.comment)
        return legend.get(cut[1], rule.comment) if cut else rule.comment
    found = next((words for piece, words in _RULES if piece in rule.text), "")
    return found or "on to " + " ".join(_LEADS.findall(rule.text))


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return (", ".join(sorted(items)[:SHOWN]) or "nothing") + more


def _count(rule: LiveRule) -> str:
    return f"{'' if rule.packets is None else f'[{rule.packets}]':>10} "


def _quoted(comment: str) -> str:
    return f'  "{comment}"' if comment else ""
