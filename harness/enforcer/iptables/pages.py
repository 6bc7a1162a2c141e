"""The chain of one target; a long one in pages, so that a change of one row is a small one.

What page a row is on depends on its ports and on how many pages there are; with another number of
pages all are other ones, built before any packet meets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.enforcer import names
from harness.enforcer.compiled import Row, Rows, differing
from harness.enforcer.ruleset import Chain, Lines, Ruleset, Sets

PAGE = 48  # rules in a chain, before it is cut into pages


class Pages:
    """Remembers what it made of the rows of a target, and makes anew the pages that change.

    ``render`` writes a row; ``prefix`` begins the names of pages; ``after`` is the rule that
    follows the jump to each of them.
    """

    def __init__(
        self, chain: str, render: Callable[[Row], Lines], *, prefix: str, after: str
    ) -> None:
        self._chain = chain
        self._render = render
        self._prefix = prefix
        self._after = after
        self._rows: Rows = {}
        self._size = 0
        self._pages: list[dict[str, Lines]] = []
        self._made: list[tuple[Sets, Chain]] = []
        self.ruleset = Ruleset()

    def turn(self, rows: Rows) -> None:
        """Go on to other rows."""
        changed = differing(self._rows, rows)
        lines = {ports: self._render(rows[ports]) for ports in changed if ports in rows}
        self._size += sum(len(one.rules) for one in lines.values())
        for ports in changed:
            if ports in self._rows:
                self._size -= len(self._page_of(ports).pop(ports).rules)
        self._rows = rows
        count = 1 if self._size <= PAGE else 1 << (self._size // PAGE).bit_length()
        if count != len(self._pages):
            lines |= {ports: one for page in self._pages for ports, one in page.items()}
            self._pages = [{} for _ in range(count)]
            self._made = [({}, ())] * count
            changed = [*lines]
        for ports, one in lines.items():
            self._page_of(ports)[ports] = one
        for number in {self._number(ports) for ports in changed}:
            self._made[number] = _joined(self._pages[number])
        self.ruleset = self._put_together()

    def _number(self, ports: str) -> int:
        return int(ports, 16) % len(self._pages)

    def _page_of(self, ports: str) -> dict[str, Lines]:
        return self._pages[self._number(ports)]

    def _put_together(self) -> Ruleset:
        sets = {name: one for made, _ in self._made for name, one in made.items()}
        if len(self._made) == 1:
            return Ruleset(sets, {self._chain: self._made[0][1]})
        chains: dict[str, Chain] = {}
        jumps: list[str] = []
        for number, (_, rules) in enumerate(self._made):
            if rules:
                place = f"{self._chain} {number}/{len(self._made)}"
                page = self._prefix + names.digest(place)
                chains[page] = rules
                jumps += [f"-j {page}", self._after]
        return Ruleset(sets, {**chains, self._chain: tuple(jumps)})


def _joined(page: Mapping[str, Lines]) -> tuple[Sets, Chain]:
    """A page in the order of the names of the policies."""
    lines = sorted(page.values(), key=lambda one: one.origins)
    sets = {name: made for one in lines for name, made in one.sets.items()}
    return sets, tuple(rule for one in lines for rule in one.rules)
