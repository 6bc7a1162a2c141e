"""Two worlds compared: what opens and what closes, cell group by cell group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.desk.groups import Group, pod_groups
from harness.desk.outside import outside_groups
from harness.desk.reach import LAST_PORT, Connection, Reach, Stretch, ports_text
from harness.model.flow import Decision, Verdict
from harness.model.policy import Protocol
from harness.model.world import World

SCHEMA = "netpol-diff/1"


@dataclass(frozen=True, slots=True)
class Change:
    """One pair of groups and the ports whose verdict is another now.

    ``why``: the decision after the change at the first of the ports.
    """

    source: Group
    target: Group
    stretches: tuple[Stretch, ...]
    why: Decision

    @property
    def ports(self) -> str:
        return ports_text(self.stretches)


@dataclass(slots=True)
class Changes:
    """``opened``: denied or undefined before, allowed now. ``closed``: denied now and not before.
    ``blurred``: left to the implementation now and not before. ``added`` and ``removed`` are pods
    that are on one side alone; their cells are not compared."""

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


def compare(old: World, new: World) -> Changes:
    """All changes between two worlds, for the pods that are in both."""
    groups = pod_groups(old, new)
    more, hosts = outside_groups(old, new)
    groups += more
    before, after = (Reach(world, outside=hosts) for world in (old, new))
    changes = Changes(
        added=_names(new, old),
        removed=_names(old, new),
    )
    into = {
        Verdict.ALLOW: changes.opened,
        Verdict.DENY: changes.closed,
        Verdict.UNDEFINED: changes.blurred,
    }
    for source in groups:
        for target in groups:
            was, now = before.connection(source, target), after.connection(source, target)
            if was is None or now is None:
                continue
            for verdict, stretches in _differences(was, now).items():
                why = now.at(stretches[0].protocol, stretches[0].first)
                into[verdict].append(Change(source, target, tuple(stretches), why))
    return changes


def _names(one: World, other: World) -> list[str]:
    return [str(pod) for key, pod in sorted(one.pods.items()) if key not in other.pods]


def _differences(was: Connection, now: Connection) -> dict[Verdict, list[Stretch]]:
    """The verdict now -> the ports that had another before."""
    found: dict[Verdict, list[Stretch]] = {}
    for protocol in Protocol:
        a, b = dict(_runs(was, protocol)), dict(_runs(now, protocol))
        starts = sorted(a.keys() | b.keys())
        before = after = None
        for i, start in enumerate(starts):
            before, after = a.get(start, before), b.get(start, after)
            if before is after or after is None:
                continue
            end = starts[i + 1] - 1 if i + 1 < len(starts) else LAST_PORT
            mine = found.setdefault(after, [])
            if mine and mine[-1].protocol is protocol and mine[-1].last == start - 1:
                start = mine.pop().first
            mine.append(Stretch(protocol, start, end))
    return found


def _runs(connection: Connection, protocol: Protocol) -> Iterator[tuple[int, Verdict]]:
    for verdict, stretches in connection.stretches.items():
        yield from ((s.first, verdict) for s in stretches if s.protocol is protocol)


# -- forms -----------------------------------------------------------------------------------------


def as_text(changes: Changes) -> str:
    lines = []
    for word, found in changes.lists:
        for change in found:
            lines.append(f"{word}: {change.source} -> {change.target}: {change.ports}")
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
                    _cell(text) for text in (str(c.source), str(c.target), c.ports, c.why.text)
                )
                + " |"
                for c in found
            ]
            lines.append("")
    for title, names in (("New", changes.added), ("Gone", changes.removed)):
        if names:
            lines += [f"{title}, and therefore not compared: {_listed(names)}", ""]
    return "\n".join(lines).rstrip() or "Nothing opens and nothing closes."


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


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
        "ports": [
            {"protocol": s.protocol, "first": s.first, "last": s.last} for s in change.stretches
        ],
        "reason": change.why.text,
    }


FORMS: Mapping[str, Callable[[Changes], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "json": as_json,
}
