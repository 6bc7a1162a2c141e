"""Reading what ``iptables-save -c`` and ``ipset save`` print."""

from __future__ import annotations

import re
from collections.abc import Collection

from harness.enforcer.listing import Listing, LiveRule

_RULE = re.compile(r"^\[(\d+):\d+\] -A (\S+) (.*)$", re.MULTILINE)
_COMMENT = re.compile(r' ?-m comment --comment (?:"([^"]*)"|(\S+))')


def read(family: int, save: str, ipsets: str, jumps: Collection[str]) -> Listing:
    """The filter table. ``jumps``: our chains that chains of the kernel jump to, in order."""
    listing = Listing(family, [name for name in jumps if f"-j {name}\n" in save])
    table = save.partition("*filter")[2].partition("COMMIT")[0]
    for packets, chain, words in _RULE.findall(table):
        if chain in jumps or re.match(r"NP[a-z][46]-", chain):
            comment = _COMMENT.search(words)
            said = (comment[1] or comment[2] or "") if comment else ""
            rule = LiveRule(_COMMENT.sub("", words).strip(), said, int(packets))
            listing.chains.setdefault(chain, []).append(rule)
    for line in ipsets.splitlines():
        verb, name, *rest = line.split()
        if re.match(rf"NP[a-z]{family}-", name):
            elements = listing.sets.setdefault(name, [])
            if verb == "add":
                elements.append(rest[0])
    return listing
