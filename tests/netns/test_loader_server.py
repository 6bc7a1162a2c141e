"""The loader held against a real API server: same verdict, same defaults, same field named.

``HYPOTHESIS_PROFILE=nightly`` looks at thousands of manifests; `make test` at hundreds.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.enforcer.meaning import directions as enforced_directions
from harness.labs.cluster.api import Api
from harness.model.actions import Apply
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.fields import STRICT_CIDRS_SINCE
from harness.model.manifest import from_manifest, load, load_text, to_manifest
from harness.model.policy import NetworkPolicy
from harness.model.sides import isolated_directions
from harness.scenarios.load import load_file
from harness.scenarios.scenario import Scenario
from tests.netns.broken import broken
from tests.netns.planes import plane_up
from tests.netns.verdicts import by_loader, by_server, unlike
from tests.property.model_strategies import NAMESPACES, cluster_policies, policies

pytestmark = pytest.mark.timeout(900)

SUITES = Path(__file__).parents[2] / "suites"
LAX = "lax-cidrs"
FEWEST = 150  # examples of each test; the nightly profile has more
#: The one difference that is meant. A CRD cannot hold selectors to the syntax of labels and to the
#: four operators; a selector that breaks it matches nothing or is an error in each controller.
SELECTORS = r"\.(matchLabels|matchExpressions)\b"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[tuple[Api, tuple[int, int]]]:
    """An API server as its administrator, and its version."""
    with plane_up(tmp_path_factory.mktemp("plane")) as plane:
        api = plane.api()
        for name in NAMESPACES:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield api, plane.settings.version


def many() -> settings:
    """More examples than elsewhere, for one costs milliseconds."""
    return settings(max_examples=max(FEWEST, settings().max_examples))


def agree(server: tuple[Api, tuple[int, int]], manifest: Json) -> bool:
    """Fails where the two disagree; returns whether both take it."""
    api, version = server
    theirs, ours = by_server(api, manifest), by_loader(manifest, version)
    unseen = SELECTORS if manifest["kind"] == "ClusterNetworkPolicy" else ""
    difference = unlike(theirs, ours, unseen)
    assert not difference, difference
    if theirs.thing is None or ours.thing is None:
        return False
    stored = from_manifest(theirs.thing)
    assert defaulted(ours.thing, stored) == stored
    return True


def defaulted(thing: Any, stored: Any) -> Any:
    """What was read, with what the server has filled in: a name, and policyTypes as the oracle and
    the enforcer, each for itself, take them to be."""
    if thing.name.endswith("xxxxx"):
        thing = replace(thing, name=stored.name)
    if isinstance(thing, ClusterNetworkPolicy):
        return thing
    assert isinstance(thing, NetworkPolicy)
    assert isolated_directions(thing) == enforced_directions(thing)
    return replace(thing, policy_types=isolated_directions(thing))


@many()
@given(manifest=st.one_of(policies(), cluster_policies).map(to_manifest))
def test_what_is_valid_is_taken_with_the_same_defaults(server: Any, manifest: Json) -> None:
    assert agree(server, manifest)


@many()
@given(manifest=broken(policies().map(to_manifest)))
def test_a_broken_policy_is_judged_alike(server: Any, manifest: Json) -> None:
    agree(server, manifest)


@many()
@given(manifest=broken(cluster_policies.map(to_manifest)))
def test_a_broken_cluster_policy_is_judged_alike(server: Any, manifest: Json) -> None:
    agree(server, manifest)


def scenarios() -> Iterator[Scenario]:
    """All scenarios that are files of the suites."""
    for file in sorted(SUITES.rglob("*.yaml")):
        if "manifests" not in file.parts:
            yield from load_file(file)
    for file in sorted(SUITES.rglob("scenarios_*.py")):
        yield from runpy.run_path(str(file))["scenarios"]()


def others() -> Iterator[Any]:
    """What test files of the suites put in: manifests, and a policy that a function makes. Its
    file's marks are unknown to this run, so it is asked in a process of its own. Those of the API
    before Kubernetes 1.7 no server takes: suites/test_old_api.py asks for them."""
    files = (SUITES / "manifests").rglob("*.yaml")
    loaded = load(sorted(file for file in files if file.parent.name != "old"))
    assert not loaded.errors, loaded.problems
    yield from loaded.objects
    argv = [sys.executable, "-W", "ignore", "-c", FENCE]
    done = subprocess.run(argv, cwd=SUITES.parent, capture_output=True, text=True, check=True)
    yield from load_text(done.stdout).objects


FENCE = """
import runpy
from harness.model.fields import STRICT_CIDRS_SINCE
from harness.model.manifest import to_yaml
print(to_yaml([runpy.run_path("suites/test_tenants.py")["fence"]("x")]))
"""


def policies_of(scenario: Scenario) -> Iterator[Any]:
    yield from scenario.world.policies.values()
    yield from scenario.world.cluster_policies.values()
    for step in scenario.steps:
        for action in step.actions:
            if isinstance(action, Apply):
                yield action.object


def manifests(things: Iterable[Any]) -> list[Json]:
    """Policies among things, each once, in a namespace that is there: which one it is does not
    matter to the server."""
    found = {}
    for thing in things:
        if isinstance(thing, NetworkPolicy | ClusterNetworkPolicy):
            manifest = to_manifest(thing)
            if "namespace" in manifest["metadata"]:
                manifest["metadata"]["namespace"] = "x"
            found[json.dumps(manifest, sort_keys=True)] = manifest
    return list(found.values())


def test_every_policy_of_the_suites_is_taken(server: Any) -> None:
    """But for those that say that they want a server which takes ranges with host bits."""
    of_files = list(scenarios())
    things = [one for s in of_files if LAX not in s.requires for one in policies_of(s)]
    strict = manifests([*things, *others()])
    assert Counter(one["kind"] for one in strict)["NetworkPolicy"] > 100
    for manifest in strict:
        assert agree(server, manifest), manifest
    if server[1] < STRICT_CIDRS_SINCE:
        return
    for scenario in (s for s in of_files if LAX in s.requires):
        taken = [agree(server, manifest) for manifest in manifests(policies_of(scenario))]
        assert not all(taken), f"{scenario.id} need not require {LAX}"
