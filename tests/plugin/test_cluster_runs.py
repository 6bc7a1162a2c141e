"""Whole runs through the API of a Kubernetes cluster: --lab-api, and --lab kubeconfig on one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import __main__ as cli
from harness.cnis import catalogue
from harness.labs.cluster import leftovers, rbac
from harness.labs.cluster.connect import connect
from harness.labs.cluster.objects import RUN_LABEL
from harness.labs.controlplane import binaries
from harness.labs.controlplane.engines import account_token
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.report.record import ScenarioRecord
from harness.run import existing, place
from tests.netns.clusters import eventually
from tests.plugin.conftest import RunSuite

pytestmark = pytest.mark.timeout(600)

SUITES = Path(__file__).parents[2] / "suites"
MORE = """\
---
id: by-name
title: Names lead where they should, in a namespace of whatever name
why: a namespaceSelector on the name follows it
features: [ingress, target-pod-selector, namespaces-by-default-label, service-name, tcp]
world: two-by-two
probe: {via: [pod-ip, service-name], targets: [x/a, "svc:x/s-x-a"]}
steps:
  - title: x/a takes from namespace y
    apply:
      metadata: {namespace: x, name: from-y}
      spec:
        podSelector: {matchLabels: {pod: a}}
        ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}]}]
    expect: {"y/a -> x/a:80": allow, "x/b -> x/a:80": deny}
---
id: everybody
title: A ClusterNetworkPolicy
why: it reaches into every namespace
features: [cluster-network-policy, ingress, tcp]
world: two-by-two
steps:
  - title: all is denied
    apply:
      apiVersion: policy.networking.k8s.io/v1alpha2
      kind: ClusterNetworkPolicy
      metadata: {name: shut}
      spec:
        tier: Admin
        priority: 10
        subject: {namespaces: {}}
        ingress: [{action: Deny, from: [{namespaces: {}}]}]
"""

KILLS = """\
import signal
from pathlib import Path
from harness.scenarios.load import load_file

[SCENARIO] = load_file(Path(__file__).with_name("manifests") / "deny.yaml")

def test_before(run_scenario):
    run_scenario(SCENARIO)

def test_killed(run_scenario, lab):
    lab.plane.process("kube-apiserver").signal(signal.SIGKILL)
    run_scenario(SCENARIO)
"""


# -- --lab-api -------------------------------------------------------------------------------------


def test_a_run_through_the_api_whose_server_dies(run_clean: RunSuite, suite: Path) -> None:
    """Before, it is judged as everywhere; from then on all is unknown, with its last words."""
    (suite / "manifests").mkdir()
    (suite / "deny.yaml").rename(suite / "manifests" / "deny.yaml")
    (suite / "test_kills.py").write_text(KILLS)
    ended = run_clean("--lab-api", "--lab-proxy", "lab")
    assert (
        "netpol: In-house enforcer on lab netns+api: 3 nodes, fabric routed, proxy lab" in ended.out
    )
    assert "netpol: API: Kubernetes 1.36" in ended.out
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    before, killed = ended.record.scenarios
    assert before.outcome == "passed", ended.out
    assert {cell.finding for step in before.steps for cell in step.cells} == {"agrees"}
    assert killed.outcome == "error"
    assert not any(cell.finding == "agrees" for step in killed.steps for cell in step.cells)
    assert "kube-apiserver on control-plane was ended by signal 9" in ended.out
    assert "  kube-apiserver: " in ended.out  # its last lines
    assert "--lab-proxy lab" in ended.out  # how to run it again
    assert ended.record.run["lab"] == "netns+api"
    assert ended.record.run["environment"]["proxy"] == "lab"


def test_programs_that_lack_or_are_others(run_clean: RunSuite, tmp_path: Path) -> None:
    ended = run_clean("--lab-api", "--lab-api-binaries", str(tmp_path / "nowhere"))
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "nowhere is no folder that can be read" in ended.out
    found = binaries.find()
    for name in binaries.NAMES:
        (tmp_path / name).symlink_to(found[name])
    (tmp_path / "etcd").unlink()
    other = tmp_path / "etcd"
    other.write_bytes(b"\x7fELF" + bytes(60))
    other.chmod(other.stat().st_mode | stat.S_IXUSR)
    ended = run_clean("--lab-api", "--lab-api-binaries", str(tmp_path))
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "etcd" in ended.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lab-proxy", "lab"], "--lab-proxy is for --lab-api, which is not asked for"),
        (
            ["--lab-fanout", "job"],
            "--lab-fanout is for --lab-api, --lab kubeconfig or kind, which is not asked for",
        ),
        (["--lab-context", "x"], "--lab-context is for --lab kubeconfig, which is not asked for"),
        (
            ["--lab-cluster-wide"],
            "--lab-cluster-wide is for --lab kubeconfig or kind, which",
        ),
        (["--lab-api", "--lab-api-version", "new"], "'new' is no version of Kubernetes"),
    ],
    ids=["proxy", "fanout", "context", "wide", "version"],
)
def test_options_that_do_not_fit(run_clean: RunSuite, arguments: list[str], says: str) -> None:
    ended = run_clean(*arguments)
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert says in ended.out


# -- --lab kubeconfig ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    """A cluster with an engine, and an account with the least rights."""
    where = place.Place(api=True, dataplane="nftables")
    lab = place.make(catalogue.get("enforcer"), where, tmp_path_factory.mktemp("lab"))
    assert isinstance(lab, EmbeddedClusterLab)
    lab.up()
    for manifest in rbac.manifests("default"):
        lab.api.apply(manifest)
    # The nodes' own servers make room for those of the cluster lab.
    lab.holder.request("drop", boxes=[f"server@node:{name}" for name in lab.node_names])
    yield lab
    lab.down()


@pytest.fixture
def kubeconfig(cluster: EmbeddedClusterLab, tmp_path: Path) -> Path:
    token = account_token(cluster.api, "default", rbac.NAME)
    path = tmp_path / "kubeconfig"
    path.write_text(cluster.plane.kubeconfig(cluster.forward().server, token))
    return path


def _namespaces(cluster: EmbeddedClusterLab) -> set[str]:
    return {one["metadata"]["name"] for one in cluster.api.list("Namespace")["items"]}


def test_workers_share_a_cluster_that_exists(
    cluster: EmbeddedClusterLab, kubeconfig: Path, run_clean: RunSuite, suite: Path
) -> None:
    """With the least rights, each in namespaces of its own, of which nothing is left. The demo
    among them."""
    shutil.copy(SUITES / "test_demo.py", suite)
    shutil.copytree(SUITES / "manifests" / "demo", suite / "manifests" / "demo")
    (suite / "deny.yaml").write_text((suite / "deny.yaml").read_text() + MORE)
    ended = run_clean(
        "--lab", "kubeconfig", "--cni", "enforcer", "-n", "2", KUBECONFIG=str(kubeconfig)
    )
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "netpol: context netpol-lab: https://127.0.0.1:" in ended.out
    scenarios = {one.id: one for one in ended.record.scenarios}
    demo = {name: one.outcome for name, one in scenarios.items() if name.startswith("demo/")}
    assert len(demo) == 5
    assert set(demo.values()) == {"passed"}
    assert {name: one.outcome for name, one in scenarios.items() if name not in demo} == {
        "deny": "passed",
        "by-name": "passed",
        "everybody": "skipped",
    }
    assert "selects among the namespaces of the whole cluster" in scenarios["everybody"].message
    told = {c.expected for c in scenarios["by-name"].steps[0].cells if c.finding == "agrees"}
    assert told == {"allow", "deny"}
    facts = ended.record.run["environment"]
    assert facts["kubernetes"].startswith("1.36")
    made = facts["namespaces"].removesuffix("*")
    eventually(lambda: not any(name.startswith(made) for name in _namespaces(cluster)))
    chosen = {"labelSelector": f"{RUN_LABEL}={ended.record.run['id']}"}
    for kind in ("Namespace", "Pod", "Service", "NetworkPolicy"):
        eventually(lambda kind=kind: not cluster.api.list(kind, **chosen)["items"])


def test_a_fan_out_by_a_job_makes_the_same_record(
    cluster: EmbeddedClusterLab, kubeconfig: Path, run_clean: RunSuite, suite: Path
) -> None:
    """The demo and a systematic file with the documented rights: what streams from this machine
    see, the workers of a Job see, and nothing is left of them either."""
    shutil.copy(SUITES / "test_demo.py", suite)
    shutil.copytree(SUITES / "manifests" / "demo", suite / "manifests" / "demo")
    shutil.copy(SUITES / "targets" / "targets.yaml", suite)
    asked = ["--lab", "kubeconfig", "--cni", "enforcer"]
    image = "registry.example.org/me/netpol-enforcer:1"
    ways = {
        "job": ["--lab-fanout", "job", "--lab-fanout-image", image],
        "exec": ["--lab-fanout", "exec"],
    }
    verdicts = {}
    for way, more in ways.items():
        ended = run_clean(*asked, *more, KUBECONFIG=str(kubeconfig))
        assert ended.code == pytest.ExitCode.OK, ended.out
        record = ended.record
        verdicts[way] = {
            one.id: (one.outcome, _verdicts(one)) for one in record.scenarios if one.steps
        }
        told = record.run["environment"]["fan_out"]
        if way == "job":
            assert told == f"2 workers of an Indexed Job ({image})"
            assert (
                f"netpol: fan-out: an Indexed Job of workers ({image}); it makes a Job" in ended.out
            )
        else:
            assert told == "exec streams from this machine"
        _nothing_is_left(cluster, record.run["id"])
    assert verdicts["job"] == verdicts["exec"]
    assert len(verdicts["job"]) >= 15
    told = {one[3] for _, cells in verdicts["job"].values() for _, step in cells for one in step}
    assert told == {"allow", "deny"}


def _nothing_is_left(cluster: EmbeddedClusterLab, run: str) -> None:
    chosen = {"labelSelector": f"{RUN_LABEL}={run}"}
    for kind in ("Namespace", "Pod", "Job", "ServiceAccount", "Role", "RoleBinding"):
        eventually(lambda kind=kind: not cluster.api.list(kind, **chosen)["items"])


def _verdicts(scenario: ScenarioRecord) -> list[Any]:
    """All that a record says of cells but for times, addresses and words."""
    return [
        (
            step.title,
            sorted((c.source, c.target, c.via, c.expected, c.finding) for c in step.cells),
        )
        for step in scenario.steps
    ]


def test_a_job_that_may_not_be_made(
    cluster: EmbeddedClusterLab, kubeconfig: Path, run_clean: RunSuite
) -> None:
    """It is refused before anything is made; without a word for it, exec streams do."""
    role = cluster.api.get("ClusterRole", "", rbac.NAME)
    rules = [rule for rule in role["rules"] if rule["resources"] != ["jobs"]]
    cluster.api.merge("ClusterRole", "", rbac.NAME, {"rules": rules})
    asked = ["--lab", "kubeconfig", "--cni", "enforcer"]
    try:
        connected = connect(kubeconfig)
        eventually(lambda: rbac.fan_out_lacks(rbac.missing(connected)))
        ended = run_clean(*asked, "--lab-fanout", "job", KUBECONFIG=str(kubeconfig))
        assert ended.code == pytest.ExitCode.USAGE_ERROR
        assert (
            "--lab-fanout job: the user has not the rights to make the fan-out's Job" in ended.out
        )
        assert "create jobs.batch: the Job of the fan-out" in ended.out
        ended = run_clean(*asked, "--lab-dry-run", KUBECONFIG=str(kubeconfig))
        assert ended.code == pytest.ExitCode.OK, ended.out
        assert "fan-out: exec streams from this machine; a Job for more than" in ended.out
        assert "not allowed: create jobs, for the Job of the fan-out" in ended.out
    finally:
        cluster.api.merge("ClusterRole", "", rbac.NAME, {"rules": role["rules"]})
        eventually(lambda: not rbac.missing(connected))


def test_what_reaches_into_all_namespaces_runs_if_it_is_told_to(
    kubeconfig: Path, run_clean: RunSuite, suite: Path
) -> None:
    (suite / "deny.yaml").write_text(MORE.removeprefix("---\n"))
    ended = run_clean(
        *("--lab", "kubeconfig", "--cni", "enforcer", "--lab-cluster-wide"),
        KUBECONFIG=str(kubeconfig),
    )
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert {one.outcome for one in ended.record.scenarios} == {"passed"}


def test_a_dry_run_makes_nothing(
    cluster: EmbeddedClusterLab, kubeconfig: Path, run_clean: RunSuite
) -> None:
    before = _namespaces(cluster)
    ended = run_clean(
        *("--lab", "kubeconfig", "--cni", "enforcer", "--lab-dry-run", "-n", "2"),
        KUBECONFIG=str(kubeconfig),
    )
    assert ended.code == pytest.ExitCode.OK, ended.out
    assert "netpol: nodes: control-plane, worker, worker2" in ended.out
    assert (
        "would run 1 tests, 1 of them scenarios of files; each worker has up to 2 namespaces and "
        "4 pods of theirs at once" in ended.out
    )
    assert "fan-out: exec streams from this machine, for more than 250 pods an Indexed" in ended.out
    assert "it makes a Job fan-out-… in netpol-" in ended.out
    assert "nothing was made and nothing was run" in ended.out
    assert not (ended.reports / "latest").exists()
    assert _namespaces(cluster) <= before


def test_clusters_that_are_left_alone(
    cluster: EmbeddedClusterLab, kubeconfig: Path, run_clean: RunSuite, tmp_path: Path
) -> None:
    """Production, by its name; users without rights; no such context; CNIs that nobody knows."""
    before = _namespaces(cluster)
    data = yaml.safe_load(kubeconfig.read_text())
    data["contexts"].append({**data["contexts"][0], "name": "shop-prod"})
    kubeconfig.write_text(yaml.safe_dump(data))

    def refused(*arguments: str) -> str:
        ended = run_clean("--lab", "kubeconfig", *arguments, KUBECONFIG=str(kubeconfig))
        assert ended.code == pytest.ExitCode.USAGE_ERROR, ended.out
        return ended.out

    out = refused("--cni", "enforcer", "--lab-context", "shop-prod")
    assert "looks like production: its context is called shop-prod" in out
    assert "--lab-yes" in out
    assert "--cni NAME" in refused()
    assert "elsewhere" in refused("--cni", "enforcer", "--lab-context", "elsewhere")
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "nobody", "namespace": "default"},
        }
    )
    token = account_token(cluster.api, "default", "nobody")
    kubeconfig.write_text(cluster.plane.kubeconfig(cluster.forward().server, token))
    out = refused("--cni", "enforcer")
    assert "has not the rights that a run needs" in out
    assert "create pods/exec: a shell in each client" in out
    assert "python -m harness.labs.cluster.rbac" in out
    assert _namespaces(cluster) <= before


# -- what a run leaves that is killed --------------------------------------------------------------

HANGS = """\
import time
from pathlib import Path
from harness.scenarios.load import load_file

[SCENARIO] = load_file(Path(__file__).with_name("manifests") / "deny.yaml")

def test_hangs(run_scenario):
    run_scenario(SCENARIO)
    Path("hangs").touch()
    time.sleep(600)
"""


@pytest.fixture
def killed(
    cluster: EmbeddedClusterLab, kubeconfig: Path, suite: Path, tmp_path: Path
) -> Iterator[str]:
    """The id of a run whose only process was ended by SIGKILL in the middle of its test."""
    (suite / "manifests").mkdir()
    (suite / "deny.yaml").rename(suite / "manifests" / "deny.yaml")
    (suite / "test_hangs.py").write_text(HANGS)
    here = suite.parent
    outer = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    with (tmp_path / "out").open("w") as out:
        program = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider"),
                *("--lab", "kubeconfig", "--cni", "enforcer"),
            ],
            cwd=here,
            env={**outer, "KUBECONFIG": str(kubeconfig)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(lambda: (here / "hangs").exists() or program.poll() is not None, 240)
        finally:
            program.kill()
            program.wait()
    assert (here / "hangs").exists(), (tmp_path / "out").read_text()
    (suite / "test_hangs.py").unlink()
    (suite / "manifests" / "deny.yaml").rename(suite / "deny.yaml")
    run = (here / "reports" / "latest").resolve().name
    yield run
    leftovers.remove(cluster.api, run)


def test_what_a_run_leaves_that_is_killed_is_told_and_removed(
    cluster: EmbeddedClusterLab,
    kubeconfig: Path,
    run_clean: RunSuite,
    killed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the label, and nothing else; the next run deletes nothing by itself, and nobody what may
    be of a run that is under way."""
    theirs = {"apiVersion": "v1", "kind": "Namespace"}
    cluster.api.apply({**theirs, "metadata": {"name": "np-theirs", "labels": {"a": "b"}}})
    short = killed.rpartition("-")[2]
    mine = {f"np-{short}-x", f"np-{short}-y", f"netpol-{killed}"}
    assert mine <= _namespaces(cluster)
    clean = ["clean", "--kubeconfig", str(kubeconfig), "--context", "netpol-lab"]

    dry = ("--lab", "kubeconfig", "--cni", "enforcer", "--lab-dry-run")
    out = run_clean(*dry, KUBECONFIG=str(kubeconfig)).out
    [told] = [line for line in out.splitlines() if f"of run {killed} since" in line]
    assert f"np-{short}-x, np-{short}-y" in told
    assert "under way, or was killed less than 15 minutes ago" in told
    assert f"`netpol clean --context netpol-lab --run {killed}` removes it" in told

    assert cli.main(clean) == 0
    out = capsys.readouterr().out
    assert f"run {killed}: namespaces netpol-{killed}, np-{short}-x, np-{short}-y (3)" in out
    assert "may be under way" in out
    assert mine <= _namespaces(cluster)

    monkeypatch.setattr(leftovers, "QUIET", timedelta(0))
    monkeypatch.setattr(existing, "_api", lambda _: cluster.api)
    [told] = existing.left(place.Place(lab="kubeconfig", context="netpol-lab"))
    assert told.startswith(f"left behind by run {killed} since 2")
    assert told.endswith("`netpol clean --context netpol-lab` removes it")
    assert cli.main(clean[:3]) == 0
    assert capsys.readouterr().out.endswith(": deleted\n")
    assert not mine & _namespaces(cluster)
    assert "np-theirs" in _namespaces(cluster)
    assert cli.main(clean) == 0
    assert capsys.readouterr().out == "nothing of a run is left on netpol-lab\n"
    assert cli.main([*clean, "--run", killed]) == 2
    assert f"there is nothing of run {killed}" in capsys.readouterr().err


def test_what_is_kept_on_purpose_stays_until_it_is_named(
    cluster: EmbeddedClusterLab,
    kubeconfig: Path,
    run_clean: RunSuite,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("--lab", "kubeconfig", "--cni", "enforcer", "--lab-keep", "always")
    ended = run_clean(*arguments, KUBECONFIG=str(kubeconfig))
    assert ended.code == pytest.ExitCode.OK, ended.out
    run = ended.record.run["id"]
    command = f"netpol clean --context netpol-lab --run {run}"
    assert f"netpol: kept; `{command}` removes it" in ended.out
    assert f"netpol-{run}" in _namespaces(cluster)
    monkeypatch.setattr(leftovers, "QUIET", timedelta(0))
    named = ["--kubeconfig", str(kubeconfig)]
    assert cli.main(["clean", *named]) == 0
    assert "kept on purpose, and stays (--kept deletes it)" in capsys.readouterr().out
    assert cli.main([*command.split()[1:], *named]) == 0
    assert f"netpol-{run}" not in _namespaces(cluster)
