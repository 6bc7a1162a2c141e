"""What ``netpol try`` does: a scenario out of manifests, run on a lab, in words."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.cnis.cni import Cni
from harness.desk.inputs import InputError
from harness.model.flow import Cell, Endpoint, EndpointKind, Via
from harness.model.world import World
from harness.play import furnish
from harness.play.cast import cast
from harness.report.failure import WRONG, name
from harness.report.shape import CellRecord, ScenarioRecord, StepRecord
from harness.run import place as place_
from harness.run.runner import Runner
from harness.scenarios.scenario import Probes, Scenario, Step

SCHEMA = "netpol-try/1"
#: More pods than this are more than a few seconds' work.
MOST_PODS = 60
#: Connections that are shown one by one; of more only those that are wrong.
SHOWN = 100
_FINDINGS = {"agrees": "as expected", "undefined": "left to the implementation"}
_PODS = Endpoint(EndpointKind.POD, "*", "*")
_OUTSIDE = Endpoint(EndpointKind.EXTERNAL, "", "*")


@dataclass(frozen=True, slots=True)
class Plan:
    """The scenario, and what people should know of it."""

    scenario: Scenario
    notes: tuple[str, ...]


def plan(world: World, place: place_.Place, *, namespaces: frozenset[str], every: bool) -> Plan:
    """What is to be tried. Raises InputError."""
    notes = []
    if not world.policies and not world.cluster_policies:
        notes.append("there is no policy in it: everything should be open")
    if not world.pods:
        world = cast(world)
        pods = ", ".join(sorted(map(str, world.pods.values())))
        notes.append(f"there is no pod in it, so these stand for what the policies select: {pods}")
    world = furnish.portable(furnish.fit(world, place.node_names))
    world = furnish.running(world)
    if namespaces:
        kept = {key: pod for key, pod in world.pods.items() if key[0] in namespaces}
        world = world.with_(pods=kept)
    if not every:
        fewer = furnish.few(world)
        gone = len(world.pods) - len(fewer.pods)
        if gone:
            notes.append(
                f"{gone} {'pod is' if gone == 1 else 'pods are'} left out that no policy and no "
                "Service can tell from two others (--all makes all)"
            )
        world = fewer
    if not world.pods:
        raise InputError("no pod that runs is left to try")
    if len(world.pods) > MOST_PODS:
        raise InputError(
            f"{len(world.pods)} pods that policies tell apart are more than a few seconds' work "
            f"({MOST_PODS})\n  hint: -n NAMESPACE takes a part of them"
        )
    world = furnish.with_outside(world, place.families)
    features = {"cluster-network-policy"} if world.cluster_policies else set()
    scenario = Scenario(
        id="try",
        title="the manifests",
        why="",
        world=world,
        steps=(Step("with the policies"),),
        features=frozenset(features),
        probes=_probes(world, place.families),
    )
    return Plan(scenario, tuple(notes))


def _probes(world: World, families: tuple[int, ...]) -> Probes:
    """Every port that anybody offers, by address and by name, and to and from outside."""
    offered = [port for pod in world.pods.values() for port in pod.ports]
    ports = {(port.port, port.protocol): None for port in offered}
    ports |= {(port.port, port.protocol): None for s in world.services.values() for port in s.ports}
    outside = {port for host in world.externals.values() for port in host.ports}
    extra = [
        cell
        for family in families
        for cell in (
            *(Cell(_OUTSIDE, _PODS, *port, Via.POD_IP, family) for port in ports),
            *(
                Cell(_PODS, _OUTSIDE, port.port, port.protocol, Via.EXTERNAL_IP, family)
                for port in sorted(outside, key=str)
            ),
        )
    ]
    vias = (Via.POD_IP, Via.SERVICE_IP, Via.SERVICE_NAME)
    return Probes(tuple(ports), vias, families, extra=tuple(extra) if outside else ())


def carry_out(
    plan: Plan, cni: Cni, place: place_.Place, deadline: float | None = None
) -> ScenarioRecord:
    """Make the lab, run it, take the lab away. ``deadline``: seconds that the policies may take
    to be enforced. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="netpol-try-") as directory:
        lab = place_.make(cni, place, Path(directory))
        lab.up()
        try:
            runner = Runner(lab, cni, deadline=deadline, evidence="never")
            try:
                return runner.run(plan.scenario)
            finally:
                runner.close()
        finally:
            lab.down()


# -- forms -----------------------------------------------------------------------------------------


def _cells(record: ScenarioRecord) -> list[CellRecord]:
    return [cell for step in record.steps for cell in step.cells]


def as_text(record: ScenarioRecord, what: str, seconds: float, *, every: bool) -> str:
    """A line for each connection, wrong ones with the reason for what was expected."""
    return "\n".join(_lines(record, what, seconds, every))


def _lines(record: ScenarioRecord, what: str, seconds: float, every: bool) -> Iterator[str]:
    cells = _cells(record)
    wrong = [cell for cell in cells if cell.finding in WRONG]
    shown = cells if every or len(cells) <= SHOWN else wrong
    width = max((len(name(cell)) for cell in shown), default=0)
    if shown:
        yield f"{'connection':<{width}}  expected   observed"
    for cell in shown:
        line = f"{name(cell):<{width}}  {cell.expected:<9}  {cell.observed or '-'}"
        yield f"{line:<{width + 27}}{WRONG.get(cell.finding, '')}".rstrip()
    if shown:
        yield ""
    if len(shown) < len(cells):
        yield f"{len(cells) - len(shown)} connections as expected are not shown (--all shows them)"
    for step in record.steps:
        for cell in step.cells:
            if cell in wrong[:6]:
                yield f"{WRONG[cell.finding]} {name(cell)}"
                yield f"  expected {cell.expected}: {_why(step, cell)}"
                if cell.note:
                    yield f"  {cell.note}"
    if record.message and not wrong:
        yield record.message
    if wrong:
        yield ""
    counts = Counter(cell.finding for cell in cells)
    told = [f"{count} {_FINDINGS.get(finding, finding)}" for finding, count in counts.most_common()]
    yield f"{len(cells)} connections: {', '.join(told) or 'none'}"
    yield f"{what}; {seconds:.1f} s"


def _why(step: StepRecord, cell: CellRecord) -> str:
    """Why it is expected, in words."""
    if cell.because is None:
        return cell.reason
    because = step.reasons[cell.because]["because"]
    texts = [one["text"] for one in because if one["verdict"] == cell.expected]
    return "; ".join(texts) or cell.reason


def as_json(record: ScenarioRecord, what: str, seconds: float) -> str:
    return json.dumps(
        {
            "schema": SCHEMA,
            "outcome": record.outcome,
            "message": record.message,
            "on": what,
            "seconds": round(seconds, 2),
            "cells": [
                {
                    "source": cell.source,
                    "target": cell.target,
                    "port": cell.port,
                    "protocol": cell.protocol,
                    "via": cell.via,
                    "family": cell.family,
                    "expected": cell.expected,
                    "because": _why(step, cell),
                    "observed": cell.observed,
                    "finding": cell.finding,
                    "note": cell.note,
                }
                for step in record.steps
                for cell in step.cells
            ],
        },
        indent=1,
    )
