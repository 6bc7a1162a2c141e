"""Two worlds compared: what opens and what closes, cell group by cell group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.desk.groups import Group, a_pair, main_family
from harness.desk.outside import outside_hosts
from harness.desk.reach import Asker, example, with_hosts
from harness.model.fast import Connection, Reach
from harness.model.flow import Decision, Endpoint
from harness.model.portsets import ALL_PORTS, Ports, difference, text, union
from harness.model.world import World

SCHEMA = "netpol-diff/1"


@dataclass(frozen=True, slots=True)
class Change:
    """One pair of groups and the ports whose verdict is another now.

    ``why``: the decision after the change at the first of the ports.
    """

    source: Group
    target: Group
    ports: Ports
    why: Decision


@dataclass(slots=True)
class Changes:
    """``opened``: allowed now and not before. ``closed``: denied now and not before. ``blurred``:
    left to the implementation now and not before. ``added`` and ``removed`` are pods that are on
    one side alone; their cells are not compared."""

    opened: list[Change] = field(default_factory=list)
    closed: list[Change] = field(default_factory=list)
    blurred: list[Change] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def lists(self) -> tuple[tuple[str, list[Change]], ...]:
        return (
            ("opens", self.opened),
            ("closes", self.closed),
            ("is left to the implementation", self.blurred),
        )


def compare(old: World, new: World, family: int | None = None) -> Changes:
    """All changes between two worlds, for the pods that are in both. ``family``: 4 or 6, None
    for the one that pods have."""
    family = family or main_family(old, new)
    hosts = outside_hosts(old, new, family=family)
    worlds = [with_hosts(world, hosts) for world in (old, new)]
    tables = [Reach(world, family).table() for world in worlds]
    places = [
        {member: place for place, group in enumerate(table.groups) for member in group}
        for table in tables
    ]
    groups = _alike_in_both(*places)
    asker = Asker(worlds[1], family)
    changes = Changes(added=_names(new, old), removed=_names(old, new))
    for source, from_ in groups:
        for target, to in groups:
            pair = a_pair(source, target)
            if pair is None:
                continue
            was, now = (
                table.connection(a, b) for table, a, b in zip(tables, from_, to, strict=True)
            )
            if was != now:
                for ports, into in _differences(was, now, changes):
                    protocol, port, _ = example(ports)
                    why = asker.decide(*pair, port, protocol)
                    into.append(Change(source, target, ports, why))
    return changes


def _alike_in_both(
    old: Mapping[Endpoint, int], new: Mapping[Endpoint, int]
) -> list[tuple[Group, tuple[int, int]]]:
    """Ends that neither side tells apart, with their group's place on each."""
    found: dict[tuple[int, int], list[Endpoint]] = {}
    for member in sorted(old.keys() & new.keys()):
        found.setdefault((old[member], new[member]), []).append(member)
    groups = [(Group.of(members), place) for place, members in found.items()]
    return sorted(groups, key=lambda item: item[0].outside)


def _differences(
    was: Connection, now: Connection, changes: Changes
) -> Iterable[tuple[Ports, list[Change]]]:
    denied = [difference(ALL_PORTS, union(c.allow, c.undefined)) for c in (was, now)]
    for ports, into in (
        (difference(now.allow, was.allow), changes.opened),
        (difference(denied[1], denied[0]), changes.closed),
        (difference(now.undefined, was.undefined), changes.blurred),
    ):
        if ports:
            yield ports, into


def _names(one: World, other: World) -> list[str]:
    return [str(pod) for key, pod in sorted(one.pods.items()) if key not in other.pods]


# -- forms -----------------------------------------------------------------------------------------


def as_text(changes: Changes) -> str:
    lines = []
    for word, found in changes.lists:
        for change in found:
            lines.append(f"{word}: {change.source} -> {change.target}: {text(change.ports)}")
            lines.append(f"  because {change.why.text}")
    lines += [f"new, not compared: {name}" for name in changes.added]
    lines += [f"gone, not compared: {name}" for name in changes.removed]
    return "\n".join(lines) or "nothing opens and nothing closes"


def as_markdown(changes: Changes) -> str:
    """For a comment on a pull request."""
    lines = []
    for word, found in changes.lists:
        if found:
            lines += [
                f"### What {word}",
                "",
                "| from | to | ports | because |",
                "|---|---|---|---|",
            ]
            lines += [
                "| "
                + " | ".join(
                    _cell(word)
                    for word in (str(c.source), str(c.target), text(c.ports), c.why.text)
                )
                + " |"
                for c in found
            ]
            lines.append("")
    for title, names in (("New", changes.added), ("Gone", changes.removed)):
        if names:
            lines += [f"{title}, and therefore not compared: {_listed(names)}", ""]
    return "\n".join(lines).rstrip() or "Nothing opens and nothing closes."


def _cell(words: str) -> str:
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def _listed(names: Sequence[str], limit: int = 20) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def as_json(changes: Changes) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "opened": [_change(change) for change in changes.opened],
            "closed": [_change(change) for change in changes.closed],
            "undefined": [_change(change) for change in changes.blurred],
            "added": changes.added,
            "removed": changes.removed,
        },
        indent=1,
    )


def _change(change: Change) -> dict[str, object]:
    return {
        "from": [str(member) for member in change.source.members],
        "to": [str(member) for member in change.target.members],
        "ports": [{"protocol": p, "first": a, "last": b} for p, a, b in change.ports],
        "reason": change.why.text,
    }


FORMS: Mapping[str, Callable[[Changes], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "json": as_json,
}
