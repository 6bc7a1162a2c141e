"""Scenario files: what they say, and what is refused before any lab is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.flow import Via
from harness.model.policy import NetworkPolicy, Protocol
from harness.model.world import ContainerPort, Phase, Pod, ServicePort, Workload
from harness.scenarios import worlds
from harness.scenarios.load import load_file
from harness.scenarios.scenario import Scenario
from harness.scenarios.tree import ScenarioError

GOOD = """\
title: Only b's of namespace y
why: both selectors in one item have to match
features: [ingress, pods-by-label, namespaces-by-label, numbered-port, tcp]
probe: {ports: [80, 81]}
steps:
  - title: the policy is created
    apply:
      - metadata: {name: only-b, namespace: x}
        spec:
          podSelector: {matchLabels: {pod: a}}
          ingress:
            - from:
                - namespaceSelector: {matchLabels: {ns: "y"}}
                  podSelector: {matchLabels: {pod: b}}
              ports: [{port: 80}]
    expect:
      "y/b -> x/a:80": allow
      "y/b -> x/a:81": {verdict: deny, why: the rule has port 80 only}
      "z/* -> x/a:80": deny
  - title: gone
    delete: [policy/x/only-b]
    expect: {"*/* -> x/a:80": allow}
"""


def load(tmp_path: Path, text: str, name: str = "only-b.yaml") -> Scenario:
    file = tmp_path / name
    file.write_text(text)
    (scenario,) = load_file(file)
    return scenario


def refused(tmp_path: Path, text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text)
    return caught.value


def test_a_scenario_in_thirty_lines(tmp_path: Path) -> None:
    scenario = load(tmp_path, GOOD)
    assert scenario.id == "only-b"
    assert scenario.world == worlds.world("three-by-three")
    assert scenario.probes.ports == ((80, Protocol.TCP), (81, Protocol.TCP))
    first, second = scenario.steps
    (apply,) = first.actions
    assert isinstance(apply, Apply)
    assert isinstance(apply.object, NetworkPolicy)
    assert apply.object.key == ("x", "only-b")
    assert apply.object.source is not None
    assert apply.object.source.line == 8
    assert first.expect[1].why == "the rule has port 80 only"
    assert second.actions == (Delete("NetworkPolicy", "x", "only-b"),)
    assert str(scenario.source).endswith("only-b.yaml:1")


CASES = {
    "an unknown key": ("probe:", "prob:", 4, "unknown key 'prob'", "probe"),
    "an unknown key of a step": ("delete:", "delte:", 21, "unknown key 'delte'", "delete"),
    "an unknown label": ("numbered-port", "numberd-port", 3, "no feature label", "features"),
    "a field that the API has not": ("podSelector: {matchLabels: {pod: b}}", "podSelectr: {}", 14,
                                     "unknown field 'podSelectr'", "podSelector"),
    "what the API reads otherwise": ('ns: "y"', "ns: y", 13, "truth value", "quotes"),
    "a range that ends early": ("{port: 80}", "{port: 80, endPort: 70}", 15, "endPort", ""),
    "an impossible action": ("x/only-b]", "x/only-c]", 21, "no NetworkPolicy x/only-c", ""),
    "a kind that is none": ("policy/x", "polcy/x", 21, "'polcy' is no kind", "KIND"),
    "another verdict": ("verdict: deny", "verdict: allow", 18, "the specification says deny", ""),
    "a verdict that is none": ("verdict: deny", "verdict: no", 18, "cannot be", "allow, deny"),
    "nothing that is asked": ("x/a:81", "x/a:82", 18, "nothing asks y/b -> x/a:82", "probes"),
    "no cell": ('"z/* -> x/a:80"', '"z -> x/a:80"', 19, "names no endpoint", ""),
    "an unknown world": ("probe:", "world: 3x3\nprobe:", 4, "no world '3x3'", "three-by-three"),
    "a port out of range": ("[80, 81]", "[80, 70000]", 4, "1 to 65535", ""),
    "a protocol that is none": ("[80, 81]", "[80/XTP]", 4, "no protocol", "TCP"),
    "a key given twice": ("title: gone", "title: gone\n    title: left", 21, "given twice", ""),
    "YAML that is none": ("steps:", "steps: ]", 5, "not YAML", ""),
    "no title": ("title: Only b's of namespace y", "id: b", 1, "needs the key 'title'", ""),
    "a mapping for a list": ("steps:", "steps: {}\nrequires:", 5, "has to be a list", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused_with_file_line_and_hint(tmp_path: Path, case: str) -> None:
    old, new, line, message, hint = CASES[case]
    assert old in GOOD
    error = refused(tmp_path, GOOD.replace(old, new, 1))
    assert error.source is not None
    assert error.source.file.endswith("only-b.yaml")
    assert error.source.line == line
    assert message in error.message
    assert hint in error.hint


def test_a_step_that_asks_nothing_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("[80, 81]", "[90]").partition("    expect:")[0]
    assert "nothing is asked" in refused(tmp_path, text).message


@pytest.mark.parametrize("text", ["", "# nothing\n---\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    assert "no scenario" in refused(tmp_path, text).message


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_file("/nowhere/at/all.yaml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bytes.yaml"
    file.write_bytes(b"title: \xff\xfe")
    with pytest.raises(ScenarioError, match="UTF-8"):
        load_file(file)


def test_several_scenarios_in_one_file_need_ids_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"id: one\n{GOOD}---\nid: two\n{GOOD}")
    assert [s.id for s in load_file(file)] == ["one", "two"]
    file.write_text(f"{GOOD}---\n{GOOD}")
    with pytest.raises(ScenarioError, match="taken by another"):
        load_file(file)


POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec:
  podSelector:
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: z}
spec: {podSelector: {}, policyTypes: [Egress]}
"""
BESIDE = """\
title: t
why: w
features: [ingress]
steps:
  - {title: both, policies: deny.yaml, expect: {"x/a -> x/b:80": deny, "z/a -> y/b:80": deny}}
"""


def test_policies_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "deny.yaml").write_text(POLICY)
    (step,) = load(tmp_path, BESIDE).steps
    keys = [a.object.key for a in step.actions if isinstance(a, Apply)]  # type: ignore[union-attr]
    assert keys == [("x", "deny"), ("z", "deny")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (POLICY.replace("podSelector: {}", "podSelectr: {}"), 10, "podSelectr"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: q}\n", 1, "is no policy"),
        ("", 5, "no policy in it"),
        (None, 5, "cannot be read"),
    ],
)
def test_policies_beside_that_are_refused(
    tmp_path: Path, text: str | None, line: int, message: str
) -> None:
    if text is not None:
        (tmp_path / "deny.yaml").write_text(text)
    error = refused(tmp_path, BESIDE)
    assert message in error.message
    assert error.source is not None
    assert error.source.line == line


WORLD = """\
title: t
why: w
features: [create-pod, set-pod-labels, set-namespace-labels, finish-pod, delete-pod, egress]
requires: [host-network]
world:
  like: pair
  namespaces: {q: {team: red}}
  pods:
    q/web:
      labels: {app: web}
      ports: [http=80, 53/UDP, {port: adm=81, container: sidecar, hostPort: 8081}]
      workload: server
      node: worker
    q/job: {}
  services:
    q/web: {selector: {app: web}, ports: [80, {port: 81, target: adm, name: a, nodePort: 30081}]}
    q/all: {selector: {app: web}, ports: [80], headless: true}
  externals:
    far: {ips: [198.51.100.7], ports: [443]}
  policies:
    - metadata: {name: deny, namespace: q}
      spec: {podSelector: {}}
probe: {ports: [80, 81], via: [pod-ip, service-ip], sources: [x/*], targets: [q/web, "svc:q/web"]}
steps:
  - title: all sorts of changes, in the order in which they are written
    finish: {q/job: Failed}
    label: {pod/q/web: {app: null, tier: back}, namespace/q: {team: blue}}
    create: {pods: {q/new: {labels: {app: web}, ports: [http=80]}}}
    delete: [pod/x/b, policy/q/deny]
    probe: {ports: [80], also: ["x/a -> q/new:80"], targets: [q/web]}
    expect: {"x/a -> q/new:80": allow}
"""


def test_worlds_and_actions_in_the_order_in_which_they_are_written(tmp_path: Path) -> None:
    scenario = load(tmp_path, WORLD)
    world = scenario.world
    web = world.pods["q", "web"]
    assert web.ports == (
        ContainerPort(80, Protocol.TCP, "http"),
        ContainerPort(53, Protocol.UDP),
        ContainerPort(81, Protocol.TCP, "adm", "sidecar", 8081),
    )
    assert (web.workload, web.node) == (Workload.SERVER, "worker")
    assert world.services["q", "web"].ports[1] == ServicePort(81, "adm", Protocol.TCP, "a", 30081)
    assert world.services["q", "all"].headless
    assert world.externals["far"].ips == ("198.51.100.7",)
    assert ("q", "deny") in world.policies
    assert {"x/a", "x/b"} <= {str(p) for p in world.pods.values()}
    assert scenario.probes.vias == (Via.POD_IP, Via.SERVICE_IP)
    assert scenario.requires == {"host-network"}
    assert [type(a) for a in scenario.steps[0].actions] == [
        Finish, Relabel, Relabel, Apply, Delete, Delete,
    ]  # fmt: skip
    finish, relabel, _, create, *_ = scenario.steps[0].actions
    assert finish == Finish("q", "job", Phase.FAILED)
    assert relabel == Relabel("Pod", "q", "web", {"app": None, "tier": "back"})
    assert isinstance(create, Apply)
    assert isinstance(create.object, Pod)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("like: pair", "like: pear", 6, "no world 'pear'"),
        ("http=80", "http=web", 11, "needs a number"),
        ("workload: server", "workload: sever", 12, "cannot be 'sever'"),
        ("headless: true", "headless: 1", 17, "true or false"),
        ("{q/job: Failed}", "{q/job: Failing}", 26, "Failing"),
        ("{q/job: Failed}", "{job: Failed}", 26, "NAMESPACE/NAME"),
        ("pod/q/web: {app", "pod/q/wob: {app", 27, "no Pod q/wob"),
        ("namespace/q: {team: blue}", "namespace/q/r: {team: blue}", 27, "namespace/NAME"),
        ("sources: [x/*]", "sources: []", 23, "nothing would be asked"),
        ("via: [pod-ip,", "via: [pod,", 23, "via cannot be 'pod'"),
        ("q/new: {labels", "new: {labels", 28, "NAMESPACE/NAME"),
    ],
)
def test_worlds_that_are_refused(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in WORLD
    error = refused(tmp_path, WORLD.replace(old, new, 1))
    assert message in error.message
    assert error.source is not None
    assert error.source.line == line
