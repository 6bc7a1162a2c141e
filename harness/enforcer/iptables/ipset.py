"""ipsets: the lines that make and change them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.enforcer import tool
from harness.enforcer.ruleset import Change, KernelSet

MAX_ELEMENTS = 1 << 22  # a ceiling, not a size: an ipset takes memory as it grows
LEAST_BUCKETS = 64


def before(change: Change) -> Iterator[str]:
    """What comes before the rules change: new sets, and elements that go."""
    for name, made in change.new_sets.items():
        yield create(name, made)
        yield from (f"add {name} {element}" for element in sorted(made.elements))
    for name, elements in change.taken.items():
        yield from (f"del {name} {element}" for element in sorted(elements))


def after(change: Change) -> Iterator[str]:
    """What comes after it: elements that come, and sets that nothing speaks of any more."""
    for name, elements in change.given.items():
        yield from (f"add {name} {element}" for element in sorted(elements))
    for name in change.gone_sets:
        yield f"destroy {name}"


def create(name: str, made: KernelSet) -> str:
    """A set with room for its elements and for many more."""
    family = "inet6" if name[3] == "6" else "inet"
    buckets = max(LEAST_BUCKETS, 1 << len(made.elements).bit_length())
    return f"create {name} {made.type} family {family} hashsize {buckets} maxelem {MAX_ELEMENTS}"


def restore(lines: Iterable[str]) -> None:
    """Perform lines in order. Not a transaction: an error leaves what came before it."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        tool.run(["ipset", "restore"], text)


def names() -> list[str]:
    """The names of all sets that there are."""
    return tool.run(["ipset", "list", "-n"]).split()
