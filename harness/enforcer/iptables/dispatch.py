"""The dispatch tree: from an address to its pod's chain in few comparisons, however many pods.

iptables has no maps. A tree over the address's hexadecimal digits meets at most 16 rules a level,
and pods of one node share most digits: 250 pods of a /24 make two levels.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.enforcer import names, ranges
from harness.enforcer.ruleset import Chain

FEW = 8  # so many addresses are compared one after the other


def tree(
    leaves: Mapping[str, str], family: int, flag: str, root: str, branch: str
) -> dict[str, Chain]:
    """Chains of the tree, what is led to before what leads there; ``root`` is the last.

    ``leaves``: address -> the rule for it. ``flag`` is ``-s`` or ``-d``; ``branch`` begins the
    names of all chains but the root.
    """
    bits = 32 if family == 4 else 128
    chains: dict[str, Chain] = {}

    def grow(name: str, below: list[tuple[int, str]], depth: int) -> None:
        if len(below) <= FEW:
            chains[name] = tuple(rule for _, rule in below)
            return
        # the first digit in which they differ: the digits before it are skipped
        differ = (below[0][0] ^ below[-1][0]).bit_length()
        depth = bits - (differ + 3) // 4 * 4 + 4
        groups: dict[int, list[tuple[int, str]]] = {}
        for address, rule in below:
            groups.setdefault(address >> (bits - depth), []).append((address, rule))
        rules = []
        for digits, group in groups.items():
            if len(group) == 1:
                rules.append(group[0][1])
                continue
            prefix = f"{ranges.text(digits << (bits - depth), family)}/{depth}"
            child = f"{branch}{names.digest(prefix)}"
            grow(child, group, depth)
            rules.append(f"{flag} {prefix} -g {child}")
        chains[name] = tuple(rules)

    grow(root, sorted((ranges.number(a), rule) for a, rule in leaves.items()), 0)
    return chains
