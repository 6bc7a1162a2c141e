"""What a playground can be asked to do: take manifests in, try connections, show itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.cnis.cni import Cni
from harness.desk.ends import cell_of, find
from harness.labs.base import Shell
from harness.labs.netns.shell import NetnsShell
from harness.model.actions import Action, Delete
from harness.model.flow import CellResult, Endpoint
from harness.model.manifest import Loaded, from_manifest
from harness.model.oracle import decide
from harness.model.transition import ActionError, step
from harness.model.world import World
from harness.play.furnish import fit
from harness.probes.prober import Prober
from harness.probes.settle import Timing, settle
from harness.run.reset import changes
from harness.run.words import action_text

if TYPE_CHECKING:
    from harness.labs.controlplane.lab import EmbeddedClusterLab
    from harness.labs.netns.lab import NetnsLab

Json = dict[str, Any]
_HOMES = ("namespaces", "pods", "services", "policies", "cluster_policies")
#: Seconds that an answer may take to be as expected where nothing is enforced, and elsewhere.
_NOTHING_TO_WAIT_FOR, _DEADLINE = 0.5, 3.0


class Ground:
    """A lab without an API. One call at a time; the lab is up."""

    def __init__(self, lab: NetnsLab | EmbeddedClusterLab, cni: Cni) -> None:
        self.lab = lab
        self.cni = cni
        self.prober = Prober(self)
        self.given = lab.resolve(World()).externals
        self.asked = World(externals=self.given)  # without what the lab fills in

    # -- what is there -----------------------------------------------------------------------

    def world(self) -> World:
        """All that there is, with nodes and addresses."""
        return self.lab.resolve(self.asked)

    def box(self, endpoint: Endpoint) -> str:
        """Where processes of a pod, a node or an outside host run."""
        return self.lab.box(endpoint)

    def shell(self, client: Endpoint) -> Shell:
        """For the prober."""
        return NetnsShell(self.lab.holder, self.box(client), str(client))

    def find(self, name: str) -> Endpoint:
        """Whom a name means, as people type it. Raises InputError."""
        return find(self.world(), name).endpoint

    # -- changes -----------------------------------------------------------------------------

    def apply(self, manifests: Sequence[Json]) -> list[str]:
        """Take these in; what was done, in words. Raises LabError, ActionError, ManifestError."""
        things = [thing for home in _HOMES for thing in getattr(self.asked, home).values()]
        things += [from_manifest(one) for one in manifests]
        wanted = Loaded(things).world().with_(externals=self.asked.externals)
        return self._do(changes(self.asked, fit(wanted, self.lab.node_names)))

    def delete(self, manifests: Sequence[Json]) -> list[str]:
        """Take these away, whatever they look like by now; what is not there is told."""
        actions: list[Action] = []
        told, world = [], self.asked
        for thing in map(from_manifest, reversed(manifests)):
            one = Delete(type(thing).__name__, getattr(thing, "namespace", ""), thing.name)
            try:
                world = step(world, one)
            except ActionError:
                told.append(f"not there: {action_text(one).removeprefix('delete ')}")
            else:
                actions.append(one)
        return self._do(actions) + told

    def _do(self, actions: Sequence[Action]) -> list[str]:
        before, after = self.asked, self.asked
        for action in actions:
            after = step(after, action)
        try:
            self.lab.apply(actions)
        except BaseException:
            self.asked = _done(before, after, self.lab.world)
            raise
        self.asked = after
        return [action_text(action) for action in actions]

    # -- a connection ------------------------------------------------------------------------

    def probe(self, source: str, target: str, *, by_name: bool, family: int) -> Json:
        """Ask one cell until it is as the policies say, or for a few seconds. Raises InputError."""
        asked = cell_of(self.world(), source, target, by_name=by_name, family=family)
        decision = decide(asked.world, asked.cell, self.cni.profile)
        self.prober.begin(asked.world)
        began = self.prober.now()
        wait = _DEADLINE if self.cni.enforces else _NOTHING_TO_WAIT_FOR
        timing = Timing(deadline=wait)
        settled = settle(self.prober, {asked.cell: decision}, began, timing)
        return {**_result(settled.results[0]), "notes": list(asked.notes)}

    def status(self) -> Json:
        """What is there, for people and programs."""
        world = self.world()
        facts = self.lab.facts()
        return {
            "nodes": [{"name": n.name, "ips": list(n.ips)} for n in world.nodes.values()],
            "pods": [
                {"name": str(p), "node": p.node or "", "ips": list(p.ips), "labels": dict(p.labels)}
                for p in world.pods.values()
            ],
            "services": [
                {"name": str(s), "ips": list(s.cluster_ips)} for s in world.services.values()
            ],
            "policies": [*map(str, world.policies.values()), *world.cluster_policies],
            "outside": [{"name": e.name, "ips": list(e.ips)} for e in world.externals.values()],
            "engines_ended": facts["engines_ended"],
        }

    def close(self) -> None:
        """Close the clients' shells."""
        self.prober.close()


def _done(before: World, after: World, there: World) -> World:
    """What has come of a change that failed half-way."""
    homes = {}
    for home in _HOMES:
        known = {**getattr(before, home), **getattr(after, home)}
        homes[home] = {key: known[key] for key in getattr(there, home) if key in known}
    return before.with_(**homes)


def _result(result: CellResult) -> Json:
    """One cell for people and programs."""
    seen = result.observations
    outcomes = Counter(str(one.outcome) for one in seen)
    last = seen[-1] if seen else None
    return {
        "cell": str(result.cell),
        "expected": str(result.decision.verdict),
        "because": result.decision.text,
        "observed": str(last.outcome) if last else "",
        "answered_by": last.backend if last else "",
        "outcomes": dict(outcomes),
        "seconds": round(max((one.answered for one in seen), default=0.0) - seen[0].sent, 3)
        if seen
        else 0.0,
        "finding": str(result.finding),
        "note": result.note,
    }
