"""A cluster that exists as a place for runs: ``--lab kubeconfig``. Looked at before it is used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from harness.cnis.cni import Cni
from harness.cnis.recognise import engines
from harness.cnis.recognise import recognise as recognised
from harness.labs.base import Lab, LabError
from harness.labs.cluster import leftovers, rbac
from harness.labs.cluster.api import Api
from harness.labs.cluster.connect import connect, context_name
from harness.labs.cluster.existing import ExistingLab, sweep
from harness.labs.cluster.objects import Images
from harness.labs.cluster.spread import FanOut
from harness.labs.cluster.survey import Survey, survey

if TYPE_CHECKING:
    from harness.run.place import Place


def check(cni: Cni, place: Place) -> list[str]:
    """The plan and what others have left, a line each. Raises LabError where the user lacks rights,
    the cluster is not fit, or looks like production and nobody has said that it may be used. Makes
    nothing."""
    found = _survey(place.context)
    if found.alarms and not (place.yes or place.dry_run):
        raise LabError(
            f"{found.server} looks like production: {'; '.join(found.alarms)}",
            hint="--lab-yes runs on it all the same; --lab-dry-run says what would be made",
        )
    check_fan_out(place, found)
    return [*plan(cni, place, found), *left(place)]


def left(place: Place) -> Iterator[str]:
    """What other runs have left there, and what removes it. Nothing is deleted here: another run
    may be under way. Raises LabError."""
    for one in leftovers.leftovers(_api(place.context)):
        since = f"{one.since:%Y-%m-%d %H:%M:%S} UTC"
        if one.kept:
            yield f"kept of run {one.run} since {since}: {one}; {_remedy(place, one.run)}"
        elif one.gone:
            yield f"left behind by run {one.run} since {since}: {one}; {_remedy(place)}"
        else:
            yield (
                f"of run {one.run} since {since}: {one}; it is under way, or was killed less than "
                f"{leftovers.QUIET.seconds // 60} minutes ago: then {_remedy(place, one.run)}"
            )


def _remedy(place: Place, run: str = "") -> str:
    words = ["netpol", "clean", "--context", context_name(place.context)]
    return f"`{shlex.join([*words, *(['--run', run] if run else [])])}` removes it"


def check_fan_out(place: Place, found: Survey) -> None:
    """Raises LabError where a Job is asked for and the user may not make it."""
    lacks = rbac.fan_out_lacks(found.lacks)
    if place.fan_out.mode == "job" and lacks:
        raise LabError(
            f"--lab-fanout job: the user has not the rights to make the fan-out's Job on "
            f"{found.server}",
            hint="`python -m harness.labs.cluster.rbac` writes an account that has them; "
            "--lab-fanout exec needs none of them",
            detail=rbac.told(lacks),
        )


def fan_out_plan(place: Place, found: Survey) -> str:
    """Where clients' exec streams come from, for the header."""
    asked = place.fan_out
    if asked.mode == "auto" and rbac.fan_out_lacks(found.lacks):
        return f"fan-out: {FanOut('exec')}; a Job for more than {asked.many} pods is not allowed"
    made = (
        f"; it makes a Job fan-out-… in netpol-{place.run} and a service account for it, with a "
        "Role and a RoleBinding in each namespace of the run"
    )
    return f"fan-out: {asked}" + (made if asked.mode != "exec" else "")


def plan(cni: Cni, place: Place, found: Survey) -> Iterator[str]:
    """What is there, and what a run makes of it."""
    names = found.aliases(place.nodes)
    yield f"context {context_name(place.context)}: {found.server}, Kubernetes {found.version}"
    yield "nodes: " + ", ".join(
        name if name == alias else f"{name} as {alias}" for alias, name in names.items()
    )
    if found.alarms:
        told = "told that it may be used" if place.yes else "refused without --lab-yes"
        yield f"it looks like production: {'; '.join(found.alarms)}; {told}"
    seen = [one.name for one in _engines(found)]
    yield (
        f"what enforces policies there: {seen[0]}, by its workloads"
        if seen
        else "what enforces policies there could not be seen"
    ) + ("" if not seen or cni.name in seen else f"; the run takes it for {cni.name}")
    images = _images(place)
    yield (
        f"makes namespaces np-{place.run.rpartition('-')[2]}-… and a pod on each node's own "
        f"network in netpol-{place.run}; images {images.server}, {images.client}; all of it is "
        "deleted at the end"
    )
    if place.wide:
        yield "also scenarios that reach into all namespaces, one at a time (--lab-cluster-wide)"
    yield fan_out_plan(place, found)
    for right, verb in found.lacks:
        yield f"not allowed: {verb} {right.resource}, for {right.why}"


def make(cni: Cni, place: Place) -> Lab:
    """The lab, not yet up. Raises LabError."""
    del cni  # it is there already
    found = _survey(place.context)
    return ExistingLab(
        _api(place.context),
        found,
        run=place.run,
        worker=place.worker,
        images=_images(place),
        most=place.nodes,
        fan_out=_fan_out(place, found),
    )


def _fan_out(place: Place, found: Survey) -> FanOut:
    """As asked for; without the rights to a Job, none of it is tried."""
    if place.fan_out.mode == "auto" and rbac.fan_out_lacks(found.lacks):
        return replace(place.fan_out, mode="exec")
    return place.fan_out


def recognise(context: str) -> str:
    """The CNI of a cluster, where no name was given. Raises LabError where it cannot be seen."""
    found = _survey(context)
    names = [cni.name for cni in (_engines(found) or recognised(found.workloads))]
    if not names:
        raise LabError(
            "which CNI the cluster has could not be seen",
            hint="name it: --cni NAME (`netpol cni list` has the names)",
        )
    return names[0]


def _engines(found: Survey) -> list[Cni]:
    """What enforces policies there, by its workloads. Raises LabError for more than one."""
    seen = engines(found.workloads)
    if len(seen) > 1:
        names = " and ".join(cni.title for cni in seen)
        raise LabError(f"{names} both enforce policies there: their verdicts cannot be told apart")
    return seen


def clear_away(place: Place) -> None:
    """Delete all that a run has made on the cluster, whichever worker did. Raises LabError."""
    sweep(_api(place.context), place.run)


def keep(place: Place) -> str:
    """Mark what a run leaves on purpose; says so. Raises LabError."""
    leftovers.keep(_api(place.context), place.run)
    return f"kept; {_remedy(place, place.run)}"


@cache
def _api(context: str) -> Api:
    return connect(context=context or None)


@cache
def _survey(context: str) -> Survey:
    return survey(_api(context), context_name(context))


def _images(place: Place) -> Images:
    known = Images()
    return Images(place.server_image or known.server, place.client_image or known.client)
