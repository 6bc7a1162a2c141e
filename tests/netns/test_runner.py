"""The runner on the real thing: packets, engines and shells of the embedded lab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cnis import catalogue
from harness.model.actions import Apply
from harness.model.flow import Cell, Endpoint, Outcome
from harness.model.policy import NetworkPolicy, Protocol
from harness.report.record import ScenarioRecord
from harness.run import place
from harness.run.runner import Looked, Runner
from harness.scenarios import worlds
from harness.scenarios.load import load_file
from harness.scenarios.scenario import Check, Checked, Scenario, Step

SCENARIOS = """\
id: services
title: UDP, Services and their names, both families
why: the rule has TCP 80 only
features: [udp, service-ip, service-name, dual-stack, ingress]
world: two-by-two
probe: {ports: [80, 80/UDP], via: [pod-ip, service-ip, service-name], families: [4, 6]}
steps:
  - title: only TCP from x
    apply:
      - metadata: {name: p, namespace: "y"}
        spec:
          podSelector: {}
          ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}]}]
    expect:
      "x/a -> y/b:80": allow
      "x/a -> y/b:80 (IPv6)": allow
      "x/a -> y/b:80/UDP": deny
      "x/a -> y/b:80/UDP (IPv6)": deny
      "x/a -> svc:y/s-y-a:80/UDP": deny
---
id: names
title: a name needs the DNS server
why: resolving is a flow of its own
features: [service-name, egress]
world: two-by-two
probe: {via: [pod-ip, service-name]}
steps:
  - title: egress to y only
    apply:
      - metadata: {name: p, namespace: x}
        spec:
          podSelector: {}
          policyTypes: [Egress]
          egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]
    expect: {"x/a -> y/b:80": allow, "x/a -> svc:y/s-y-a:80 by service-name": deny}
  - title: and to the DNS server
    apply:
      - metadata: {name: dns, namespace: x}
        spec:
          podSelector: {}
          policyTypes: [Egress]
          egress:
            - to:
                - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
                  podSelector: {matchLabels: {k8s-app: kube-dns}}
              ports: [{port: 53, protocol: UDP}]
    expect: {"x/a -> svc:y/s-y-a:80 by service-name": allow}
---
id: outside
title: nodes and the outside
why: an ipBlock holds the outside host
features: [node, external, egress, ip-block]
world: pair
probe:
  ports: [80, 9100]
  via: [pod-ip, node-ip, external-ip]
  sources: ["x/*", "node:*", "external:*"]
steps:
  - title: all shut, but for one way out
    apply:
      - metadata: {name: p, namespace: x}
        spec: {podSelector: {}, policyTypes: [Egress, Ingress]}
      - metadata: {name: q, namespace: x}
        spec:
          podSelector: {matchLabels: {pod: a}}
          policyTypes: [Egress]
          egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]
    expect:
      "x/a -> external:outside:80": allow
      "x/b -> external:outside:80": deny
      "external:outside -> x/a:80": deny
---
id: pods
title: pods come and go
why: the verdict follows the labels of the moment
features: [create-pod, delete-pod, finish-pod, set-pod-labels, create-namespace]
world: pair
steps:
  - title: only from a
    apply:
      - metadata: {name: p, namespace: x}
        spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}
    expect: {"x/b -> x/a:80": deny, "x/a -> x/b:80": allow}
  - title: one more
    create: {pods: {x/c: {labels: {pod: c}, ports: [80]}}}
    expect: {"x/c -> x/a:80": deny, "x/a -> x/c:80": allow}
  - title: relabelled
    label: {pod/x/c: {pod: a}}
    expect: {"x/c -> x/b:80": allow}
  - title: one has finished
    finish: [x/b]
  - title: another pod of the same name
    delete: [pod/x/c]
    create: {namespaces: {q: {}}, pods: {x/c: {labels: {pod: c}, ports: [80]}, q/a: {ports: [80]}}}
    expect: {"x/c -> x/a:80": deny, "x/c -> q/a:80": allow}
"""


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    file = tmp_path_factory.mktemp("suite") / "all.yaml"
    file.write_text(SCENARIOS)
    return {scenario.id: scenario for scenario in load_file(file)}


def runners(cni: str, directory: Path) -> Iterator[Runner]:
    entry = catalogue.get(cni)
    lab = place.make(entry, place.Place(families=(4, 6)), directory)
    lab.up()
    runner = Runner(lab, entry)
    yield runner
    runner.close()
    lab.down()


@pytest.fixture(scope="module")
def enforcer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    yield from runners("enforcer", tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def none(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    yield from runners("none", tmp_path_factory.mktemp("lab"))


def findings(record: ScenarioRecord) -> Counter[tuple[str, str]]:
    return Counter((c.expected, c.finding) for step in record.steps for c in step.cells)


@pytest.mark.parametrize("name", ["services", "names", "outside", "pods"])
def test_with_enforcement(enforcer: Runner, scenarios: dict[str, Scenario], name: str) -> None:
    record = enforcer.run(scenarios[name])
    assert record.outcome == "passed", record.message
    assert findings(record)["deny", "agrees"] > 0
    assert {c.observed for s in record.steps for c in s.cells if c.expected == "deny"} <= {
        "timeout",
        "name-failure",
    }


def test_without_enforcement_every_denial_leaks(
    none: Runner, scenarios: dict[str, Scenario]
) -> None:
    record = none.run(scenarios["services"])
    assert record.outcome == "failed"
    assert {pair[1] for pair in findings(record) if pair[0] == "deny"} == {"leak"}
    assert {pair[1] for pair in findings(record) if pair[0] == "allow"} == {"agrees"}
    assert record.steps[0].evidence


def test_what_the_server_saw_is_in_the_record(none: Runner, scenarios: dict[str, Scenario]) -> None:
    """The pod network's rules: the client's own address arrives, and the right pod answers."""
    record = none.run(scenarios["services"])
    ips = {pod["name"]: pod["ips"] for pod in record.steps[0].pods}
    direct = [c for c in record.steps[0].cells if c.via == "pod-ip" and c.observed == "allowed"]
    assert direct
    for cell in direct:
        assert cell.backend == cell.target
        assert cell.seen_source in ips[cell.source]


def test_a_killed_client_is_opened_again_and_no_denial(
    enforcer: Runner, scenarios: dict[str, Scenario]
) -> None:
    enforcer.run(scenarios["pods"])
    scenario = scenarios["pods"]
    shells = list(enforcer.prober._clients.values())
    assert shells
    for client in shells:
        client.shell.send(b"kill -9 $$\n")
    record = enforcer.run(scenario)
    assert record.outcome == "passed", record.message


def test_datagrams_of_flows_from_before_are_no_leaks(enforcer: Runner) -> None:
    """250 flows are let in; of 1,500 datagrams after that, about 13 leave from one of their ports,
    and as datagrams of established flows they pass the policy."""
    cell = Cell(Endpoint.parse("x/b"), Endpoint.parse("x/a"), 80, Protocol.UDP)
    seen: list[Counter[Outcome]] = []

    def ask(rounds: int, timeout: float) -> Check:
        def check(looked: Looked) -> Iterator[Checked]:
            looks = (looked.prober.look([cell] * 250, timeout) for _ in range(rounds))
            seen.append(Counter(one.outcome for look in looks for one in look))
            yield Checked("asked", "passed", str(seen[-1]))

        return check

    record = enforcer.run(
        Scenario(
            id="many-flows",
            title="Many datagrams",
            why="nobody is let in",
            world=worlds.world("pair"),
            steps=(
                Step("all are let in", checks=(ask(1, 5.0),)),
                Step("nobody is", (Apply(NetworkPolicy("x", "deny")),), checks=(ask(6, 0.2),)),
            ),
            features=frozenset({"udp", "ingress"}),
        )
    )
    assert record.outcome == "passed", record.message
    let_in, kept_out = seen
    assert let_in == {Outcome.ALLOWED: 250}
    assert kept_out[Outcome.ALLOWED] == 0
    assert kept_out[Outcome.TIMEOUT] > 1000  # on a busy machine some are cut before they are out


def test_a_lab_that_dies_is_unknown_and_made_anew(
    tmp_path: Path, scenarios: dict[str, Scenario]
) -> None:
    for runner in runners("none", tmp_path):
        holder = runner.lab.holder  # type: ignore[attr-defined]
        holder._process.kill()
        holder._process.wait()
        record = runner.run(scenarios["pods"])
        assert record.outcome == "error"
        assert all(c.finding == "unknown" for s in record.steps for c in s.cells)
        assert "gone" in record.message
        record = runner.run(scenarios["outside"])
        assert findings(record)["allow", "agrees"] > 0
