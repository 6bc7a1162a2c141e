"""Which other CNIs' policy engines the embedded lab could run here, and which are here."""

from __future__ import annotations

from harness.cnis import catalogue
from harness.cnis.cni import Cni
from harness.doctor.check import Check, State
from harness.engines import choose, make
from harness.labs.base import LabError
from harness.labs.netns import detect


def engines() -> list[Check]:
    """One check for each CNI that has an engine of its own."""
    found = detect.abilities()
    entries = (catalogue.get(name) for name in catalogue.names())
    return [_check(cni, found) for cni in entries if cni.api_engine and cni.api_engine.foreign]


def _check(cni: Cni, found: dict[str, detect.Ability]) -> Check:
    assert cni.api_engine is not None
    planes = list(cni.api_engine.dataplanes) or ["iptables"]
    lacks: dict[str, LabError] = {}
    for plane in planes:
        for lack in make.lacking(cni, plane, found, own_tools=False)[:1]:
            lacks[plane] = lack
    if len(lacks) == len(planes):
        lack = lacks[planes[0]]
        return Check("engines", cni.name, State.NO, lack.message, lack.hint)
    able = ", ".join(plane for plane in planes if plane not in lacks)
    here = choose.here(cni)
    if here:
        try:
            choose.choose(choose.Wanted(cni.name))
        except LabError as error:
            return Check("engines", cni.name, State.NO, error.message, error.hint)
        return Check("engines", cni.name, State.YES, f"on {able}; in {here[0]}")
    get = f"netpol engine fetch {cni.name}" if cni.version else "--lab-engine PATH"
    return Check("engines", cni.name, State.LIMITED, f"could run on {able}; none is here", get)
