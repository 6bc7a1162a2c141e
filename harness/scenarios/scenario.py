"""A scenario: a world to begin with, steps that change it, and what is asked after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.model.actions import Action
from harness.model.flow import Cell, Endpoint, Verdict, Via
from harness.model.policy import Protocol, Source
from harness.model.world import World


@dataclass(frozen=True, slots=True)
class Probes:
    """Which cells are asked after a step.

    ``ports``: what clients dial. ``vias``: how targets are addressed. ``families``: 4 and/or 6.
    ``sources``/``targets``: None is all pods (and Services, where ``vias`` ask for them) of the
    world that can be client or server; names may hold ``*``, as in ``x/*`` or ``node:*``.
    ``extra`` cells are asked besides.
    """

    ports: tuple[tuple[int, Protocol], ...] = ((80, Protocol.TCP),)
    vias: tuple[Via, ...] = (Via.POD_IP,)
    families: tuple[int, ...] = (4,)
    sources: tuple[Endpoint, ...] | None = None
    targets: tuple[Endpoint, ...] | None = None
    extra: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """A verdict written by hand. It is held against the oracle before any lab is started.

    The cell's endpoints may hold ``*``: then it is expected of every asked cell that they match.
    """

    cell: Cell
    verdict: Verdict
    why: str = ""
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a look at something other than cells. ``outcome``: passed, failed, error or
    skipped (then ``text`` gives the reason)."""

    name: str
    outcome: str
    text: str = ""


#: Called after the cells of a step, with a :class:`harness.run.runner.Looked`.
Check = Callable[[Any], Iterable[Checked]]


@dataclass(frozen=True, slots=True)
class Step:
    """Actions, then a look at all cells. ``why`` is the reason in the author's words.

    ``checks`` look at what is no cell: the command of the demo, the rules of the data plane.
    """

    title: str
    actions: tuple[Action, ...] = ()
    why: str = ""
    expect: tuple[Expectation, ...] = ()
    probes: Probes | None = None  # None: the scenario's
    source: Source | None = field(default=None, compare=False)
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """``id`` is stable and unique. ``requires`` names lab features without which it is skipped.

    ``features`` are the labels that become pytest marks and imply lab features of their own (see
    :func:`harness.scenarios.features.needs`).
    """

    id: str
    title: str
    why: str
    world: World
    steps: tuple[Step, ...]
    features: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    probes: Probes = field(default_factory=Probes)
    source: Source | None = None
