"""Assertions held against the model, group by group, with a counter-example for what fails."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from harness.desk.assertions import Assertion, End, Port
from harness.desk.groups import Group, a_pair, main_family
from harness.desk.outside import hosts_within
from harness.desk.reach import Asker, example, with_hosts
from harness.model import cidr
from harness.model.fast import Connection, Reach
from harness.model.flow import Decision, Endpoint, Verdict
from harness.model.policy import IPBlock
from harness.model.portsets import (
    ALL_PORTS,
    FIRST_PORT,
    LAST_PORT,
    Ports,
    difference,
    intersection,
    ports,
    union,
)
from harness.model.table import groups_of
from harness.model.world import World

SCHEMA = "netpol-check/1"


@dataclass(frozen=True, slots=True)
class Counter:
    """One pair of ends for which an assertion does not hold, and the oracle's decision there."""

    source: Endpoint
    target: Endpoint
    port: str
    decision: Decision

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} at {self.port}"


@dataclass(frozen=True, slots=True)
class Result:
    """``pairs`` is how many pairs of ends an assertion speaks of, up to the counter-example;
    ``nobody`` names the key (``from``, ``to``, ``ports``) that nothing matches, if so."""

    assertion: Assertion
    pairs: int
    counter: Counter | None = None
    nobody: str = ""

    @property
    def holds(self) -> bool:
        return self.counter is None and not self.nobody


def verify(world: World, assertions: Sequence[Assertion]) -> list[Result]:
    """Every assertion's result, in order."""
    return [_verify(world, assertion) for assertion in assertions]


def _verify(world: World, assertion: Assertion) -> Result:
    blocks = [IPBlock(e.outside) for e in (assertion.source, assertion.target) if e.outside]
    hosts = [host for block in blocks for host in hosts_within(world, block)]
    family = cidr.family(blocks[0].cidr) if blocks else main_family(world)
    full = with_hosts(world, hosts)
    reach, asker = Reach(full, family), Asker(full, family)
    groups = [Group.of(members) for members in groups_of(reach)]
    names = {host.name for host in hosts}
    sources = _matching(world, assertion.source, groups, names)
    targets = _matching(world, assertion.target, groups, names)
    if not sources or not targets:
        return Result(assertion, 0, nobody="from" if not sources else "to")
    pairs = looks = 0
    for source in sources:
        for target in targets:
            pair = a_pair(source, target)
            if pair is None:
                continue  # a pod and itself, which nothing can keep apart
            pairs += len(source.members) * len(target.members)
            pairs -= len(set(source.members) & set(target.members))
            asserted = _ports(world, assertion.ports, pair[1])
            looks += bool(asserted)
            wrong = _wrong(reach.connection(*pair), asserted, assertion.expect)
            if wrong:
                protocol, port, last = example(wrong)
                decision = asker.decide(*pair, port, protocol)
                whole = (port, last) == (FIRST_PORT, LAST_PORT)
                where = f"every {protocol} port" if whole else f"{port}/{protocol}"
                return Result(assertion, pairs, Counter(*pair, where, decision))
    return Result(assertion, pairs, nobody="" if looks else "ports" if pairs else "to")


def _matching(
    world: World, end: End, groups: Sequence[Group], hosts: Collection[str]
) -> list[Group]:
    """The parts of groups that an end speaks of."""
    found = []
    for group in groups:
        members = tuple(
            member
            for member in group.members
            if (
                end.outside and member.name in hosts
                if group.outside
                else end.matches(world, world.pods[member.namespace, member.name])
            )
        )
        if members:
            found.append(replace(group, members=members))
    return found


def _wrong(connection: Connection, asserted: Ports, expect: Verdict) -> Ports:
    """The ports at which an assertion does not hold."""
    if expect is Verdict.ALLOW:
        return difference(asserted, connection.allow)
    return intersection(asserted, union(connection.allow, connection.undefined))


def _ports(world: World, asserted: Sequence[Port], target: Endpoint) -> Ports:
    """All ports that are asserted of a target; names are its own, and one that it lacks is not
    spoken of."""
    if not asserted:
        return ALL_PORTS
    pod = world.pods.get((target.namespace, target.name))
    own = pod.ports if pod is not None else ()
    return ports(
        (port.protocol, number, number)
        for port in asserted
        for number in (
            [port.port]
            if isinstance(port.port, int)
            else [o.port for o in own if o.name == port.port and o.protocol is port.protocol]
        )
    )


def as_text(results: Sequence[Result]) -> str:
    """A line for each assertion, and why for each that does not hold."""
    lines = []
    for result in results:
        assertion = result.assertion
        if result.holds:
            lines.append(f"ok    {assertion.name} ({_count(result.pairs, 'pair')} of ends)")
            continue
        lines.append(f"FAIL  {assertion.name} ({assertion.where})")
        if result.nobody:
            lines.append(f"      nothing matches `{result.nobody}`, so nothing was verified")
        if result.counter is not None:
            said = result.counter.decision.verdict
            lines.append(f"      {result.counter}: {said}, but {assertion.expect} is asserted")
            lines.append(f"      because {result.counter.decision.text}")
        if assertion.why:
            lines.append(f"      asserted because {assertion.why}")
    bad = sum(not result.holds for result in results)
    lines.append(f"{_count(len(results), 'assertion')}: {len(results) - bad} ok, {bad} failed")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def as_json(results: Sequence[Result]) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "assertions": [
                {
                    "name": result.assertion.name,
                    "file": result.assertion.where.file,
                    "line": result.assertion.where.line,
                    "expect": result.assertion.expect,
                    "holds": result.holds,
                    "pairs": result.pairs,
                    "nobody": result.nobody,
                    "counter": _counter_json(result.counter),
                }
                for result in results
            ],
        },
        indent=1,
    )


def _counter_json(counter: Counter | None) -> dict[str, str] | None:
    if counter is None:
        return None
    return {
        "from": str(counter.source),
        "to": str(counter.target),
        "port": counter.port,
        "verdict": counter.decision.verdict,
        "reason": counter.decision.text,
    }
