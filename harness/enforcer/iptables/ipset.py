"""ipsets: the lines that make and change them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.enforcer import tool
from harness.enforcer.ruleset import Change, KernelSet

MAX_ELEMENTS = 1 << 22  # a ceiling, not a size: an ipset takes memory as it grows
LEAST_BUCKETS = 64


def before(change: Change) -> Iterator[str]:
    """What comes before the rules change: new sets, and what can only shut."""
    yield from (create(name, made) for name, made in change.new_sets.items())
    yield from filled(change.new_sets)
    yield from taken(change, guards=False)
    yield from given(change, guards=True)


def after(change: Change) -> Iterator[str]:
    """What comes after it: what can open, and sets that nothing speaks of any more."""
    yield from taken(change, guards=True)
    yield from given(change, guards=False)
    for name in change.gone_sets:
        yield f"destroy {name}"


def taken(change: Change, *, guards: bool) -> Iterator[str]:
    """Elements that go, out of sets that shut or out of the others."""
    for name, elements in change.taken.items():
        if (name in change.guards) == guards:
            yield from (f"del {name} {element}" for element in sorted(elements))


def given(change: Change, *, guards: bool) -> Iterator[str]:
    """Elements that come, into sets that shut or into the others."""
    for name, elements in change.given.items():
        if (name in change.guards) == guards:
            yield from (f"add {name} {element}" for element in sorted(elements))


def create(name: str, made: KernelSet) -> str:
    """A set with room for its elements and for many more."""
    family = "inet6" if name[3] == "6" else "inet"
    buckets = max(LEAST_BUCKETS, 1 << len(made.elements).bit_length())
    return f"create {name} {made.type} family {family} hashsize {buckets} maxelem {MAX_ELEMENTS}"


def filled(sets: Mapping[str, KernelSet]) -> Iterator[str]:
    """All elements of sets that are there."""
    for name, made in sets.items():
        yield from (f"add {name} {element}" for element in sorted(made.elements))


def restore(lines: Iterable[str], *, exist: bool = False) -> None:
    """Perform lines in order. Not a transaction: an error leaves what came before it. ``exist``:
    an element that is in its set already is none."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        tool.run(["ipset", *(["-exist"] if exist else []), "restore"], text)


def names() -> list[str]:
    """The names of all sets that there are."""
    return tool.run(["ipset", "list", "-n"]).split()
