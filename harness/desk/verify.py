"""Assertions held against the model, group by group, with a counter-example for what fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.desk.assertions import Assertion, End, Port
from harness.desk.groups import Group, pod_groups
from harness.desk.outside import outside_groups
from harness.desk.reach import Reach
from harness.model.flow import Decision, Endpoint, EndpointKind
from harness.model.policy import IPBlock
from harness.model.world import External, World

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
    groups = pod_groups(world)
    return [_verify(world, assertion, groups) for assertion in assertions]


def _verify(world: World, assertion: Assertion, groups: Sequence[Group]) -> Result:
    sources, hosts = _matching(world, assertion.source, groups)
    targets, more = _matching(world, assertion.target, groups)
    if not sources or not targets:
        return Result(assertion, 0, nobody="from" if not sources else "to")
    reach = Reach(world, outside=[*hosts, *more])
    pairs = looks = 0
    for source in sources:
        for target in targets:
            count = len(source.members) * len(target.members)
            count -= len(set(source.members) & set(target.members))
            if not count:
                continue  # a pod and itself, which nothing can keep apart
            pairs += count
            a, b = next((a, b) for a in source.members for b in target.members if a != b)
            for port, decision in _decisions(reach, assertion.ports, a, b):
                looks += 1
                if decision.verdict is not assertion.expect:
                    return Result(assertion, pairs, Counter(a, b, port, decision))
    return Result(assertion, pairs, nobody="" if looks else "ports" if pairs else "to")


def _matching(
    world: World, end: End, groups: Sequence[Group]
) -> tuple[list[Group], list[External]]:
    """The parts of groups that an end speaks of, and the outside hosts among them."""
    if end.outside:
        return outside_groups(world, within=IPBlock(end.outside))
    found = []
    for group in groups:
        members = tuple(
            member
            for member in group.members
            if end.matches(world, world.pods[member.namespace, member.name])
        )
        if members:
            found.append(replace(group, members=members))
    return found, []


def _decisions(
    reach: Reach, ports: Iterable[Port], a: Endpoint, b: Endpoint
) -> Iterator[tuple[str, Decision]]:
    ports = tuple(ports)
    if not ports:
        connection = reach.connection(Group("", (a,)), Group("", (b,)))
        assert connection is not None
        yield from ((stretch.words, decision) for stretch, decision in connection.why.items())
        return
    for port in ports:
        for number in _numbers(reach.world, port, b):
            yield f"{number}/{port.protocol}", reach.decide(a, b, number, port.protocol)


def _numbers(world: World, port: Port, target: Endpoint) -> list[int]:
    """A name is the target's own; a target that lacks it is not spoken of."""
    if isinstance(port.port, int):
        return [port.port]
    if target.kind is not EndpointKind.POD:
        return []
    return [
        own.port
        for own in world.pods[target.namespace, target.name].ports
        if own.name == port.port and own.protocol is port.protocol
    ]


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
