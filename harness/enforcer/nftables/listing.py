"""Reading what ``nft list table`` prints."""

from __future__ import annotations

import re

from harness.enforcer.listing import Listing, LiveRule

_BLOCK = re.compile(r"^\t(chain|set|map) ([\w-]+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"elements = \{(.*?)\}", re.DOTALL)
_COMMENT = re.compile(r' comment "([^"]*)"')
_COUNTER = re.compile(r" ?counter packets (\d+) bytes \d+")


def read(family: int, text: str) -> Listing:
    """One table."""
    listing = Listing(family)
    for kind, name, body in _BLOCK.findall(text):
        if kind != "chain":
            found = _ELEMENTS.search(body)
            items = re.split(r",\s+", found[1].strip()) if found else []
            listing.sets[name] = [item for item in items if item]
            continue
        rules = [line.strip() for line in body.splitlines()]
        if rules and rules[0].startswith("type filter hook"):
            listing.roots.append(name)
            del rules[0]
        listing.chains[name] = [_rule(line) for line in rules if line]
    listing.roots.sort(key=("forward-out", "forward-in", "input-out").index)
    return listing


def _rule(line: str) -> LiveRule:
    comment, counter = _COMMENT.search(line), _COUNTER.search(line)
    text = _COUNTER.sub("", _COMMENT.sub("", line)).strip()
    return LiveRule(text, comment[1] if comment else "", int(counter[1]) if counter else None)
