"""Other people's policy engines: as a program, a directory, an archive and an image; good and bad.

The engine is examples/small-engine, which is as foreign to the lab as any: it knows the account
that pods have and nothing else. It can be told to be wrong as engines have been.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import imaging
import pytest

from harness.__main__ import main
from harness.cnis import catalogue
from harness.cnis.cni import Cni
from harness.engines import choose, found, images, make, store
from harness.labs.base import LabError
from harness.labs.controlplane import acts
from harness.labs.controlplane.apply import apply_all
from harness.labs.controlplane.engines import ApiEngine, ApiEngines
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.topology import node_box
from harness.report.record import ScenarioRecord
from harness.run.runner import Runner
from harness.scenarios.load import load_file
from tests.netns.clusters import cluster_up, eventually

pytestmark = pytest.mark.timeout(300)

SMALL = Path(__file__).parents[2] / "examples" / "small-engine"
ENTRY = (SMALL / "small.toml").read_text()
SCENARIO = """\
id: demo
title: shut, then one is let in
why: an engine that does nothing leaks, one that opens too much leaks as well
features: [ingress]
world: two-by-two
probe: {targets: ["x/a"], sources: ["x/b", "y/a"]}
steps:
  - title: default-deny
    apply:
      metadata: {name: deny, namespace: x}
      spec: {podSelector: {}}
    expect: {"y/a -> x/a:80": deny, "x/b -> x/a:80": deny}
  - title: one is let in
    apply:
      metadata: {name: allow, namespace: x}
      spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}
    expect: {"y/a -> x/a:80": deny, "x/b -> x/a:80": allow}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    with cluster_up(tmp_path_factory.mktemp("lab"), nodes=("control-plane", "worker")) as lab:
        yield lab


@contextmanager
def engines_on(lab: EmbeddedClusterLab, engine: ApiEngine) -> Iterator[ApiEngines]:
    """An engine in all nodes of a cluster that is up, ready; none and no rules afterwards."""
    lab.engines = ApiEngines(lab.plane, engine, dataplane="nftables", logs=lab.run_dir)
    try:
        lab.engines.prepare(lab.api)
        for node in lab.node_names:
            lab.engines.log(node).unlink(missing_ok=True)
            lab.engines.start(node)
        lab.engines.wait_ready()
        yield lab.engines
    finally:
        for node in lab.node_names:
            lab.engines.stop(node)
            lab.holder.run(node_box(node), ["nft", "delete", "table", "inet", "small-engine"])
            lab.holder.run(node_box(node), [sys.executable, "-m", "harness.enforcer", "clean"])
        lab.engines.abandon()
        lab.engines = None


def small(fault: str = "none", place: Path = SMALL, **changes: Any) -> ApiEngine:
    cni, here = choose.choose(choose.Wanted("small", ENTRY, place))
    engine = make.engine(cni, here, "nftables")
    assert engine is not None
    return replace(engine, env={**engine.env, "SMALL_FAULT": fault}, **changes)


def judged(lab: EmbeddedClusterLab, tmp_path: Path) -> ScenarioRecord:
    file = tmp_path / "demo.yaml"
    file.write_text(SCENARIO)
    runner = Runner(lab, deadline=3, timeout=0.5)
    try:
        return runner.run(load_file(file)[0])
    finally:
        runner.close()


def findings(record: ScenarioRecord, step: int) -> set[str]:
    return {cell.finding for cell in record.steps[step].cells}


def test_a_directory_is_judged_and_told_of(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    with engines_on(cluster, small()) as engines:
        seen = acts.see(cluster)
        assert not seen.wrong, seen
        record = judged(cluster, tmp_path)
        assert record.outcome == "passed", record.message
        facts = cluster.facts()
        assert facts["engine_scope"] == "policy engine only, on the lab's network"
        assert facts["engine_digest"].startswith("sha256:")
        assert facts["engine"].endswith("bin/small-engine --node=control-plane")
        assert "small-engine" in engines.evidence("worker")[0].text


def test_one_that_dies_is_started_again_a_few_times(
    cluster: EmbeddedClusterLab, tmp_path: Path
) -> None:
    with engines_on(cluster, small(restarts=2)) as engines:
        for times in (1, 2):
            before = engines.running["worker"]
            before.signal(signal.SIGKILL)
            eventually(lambda n=times: engines.starts["worker"] == n + 1)  # type: ignore[misc]
        engines.wait_ready()
        assert judged(cluster, tmp_path).outcome == "passed"
        assert [death.again for death in engines.deaths] == [True, True]
        assert "on worker it ended by signal 9" in cluster.facts()["engine_deaths"][0]
        engines.running["worker"].signal(signal.SIGKILL)
        eventually(lambda: engines.ended() == ["worker"])
        with pytest.raises(LabError, match=r"of node worker has ended .*started again 2 times"):
            cluster.check()


@pytest.mark.parametrize(
    ("fault", "outcome", "step", "finding"),
    [
        ("idle", "failed", 0, "leak"),
        ("half", "failed", 1, "leak"),
        ("leave", "failed", 2, "outage"),
    ],
)
def test_one_that_is_wrong_is_found(
    cluster: EmbeddedClusterLab, tmp_path: Path, fault: str, outcome: str, step: int, finding: str
) -> None:
    with engines_on(cluster, small(fault)):
        record = judged(cluster, tmp_path)
        assert record.outcome == outcome, record.message
        assert finding in findings(record, step), record.message
        assert record.steps[-1].evidence


def test_one_that_does_nothing_is_told_of_before_the_run(
    cluster: EmbeddedClusterLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "SECONDS", 1.0)
    with engines_on(cluster, small("idle")):
        seen = acts.see(cluster)
        assert "a policy that denies all did not act on control-plane, worker" in str(seen)


def test_one_that_exits_or_hangs_is_no_lab(cluster: EmbeddedClusterLab) -> None:
    with pytest.raises(LabError) as caught, engines_on(cluster, small("exit", restarts=1)):
        pass
    assert "has ended with exit code 3 (it was started again 1 times)" in str(caught.value)
    assert "no, I will not" in caught.value.detail
    with pytest.raises(LabError) as caught, engines_on(cluster, small("hang", ready_seconds=1.0)):
        pass
    assert "is not ready after 1 s: http://127.0.0.1:9555/" in caught.value.message


def test_definitions_and_objects_of_its_own(cluster: EmbeddedClusterLab) -> None:
    """Whatever their order, of kinds that the harness never speaks of."""
    group, name = "engines.example.org", "settings.engines.example.org"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"kind": "Setting", "plural": "settings"},
            "versions": [version],
        },
    }
    thing = {
        "apiVersion": f"{group}/v1",
        "kind": "Setting",
        "metadata": {"name": "default"},
        "spec": {"datastoreReady": True},
    }
    other = {**crd, "spec": {**crd["spec"], "versions": [{**version, "name": "v2"}]}}  # type: ignore[dict-item]
    apply_all(cluster.api, [thing, crd])
    apply_all(cluster.api, [other, thing])  # the one that is there stays
    found = cluster.api.request("GET", f"/apis/{group}/v1/settings/default")
    assert found["spec"] == {"datastoreReady": True}


def test_cleaning_takes_away_what_it_leaves(cluster: EmbeddedClusterLab) -> None:
    with engines_on(cluster, small()) as engines:
        table = ["nft", "list", "table", "inet", "small-engine"]
        eventually(lambda: engines.run("worker", table).code == 0)
        engines.stop("worker")
        assert engines.run("worker", table).code == 0
        engines.clean("worker")
        assert engines.run("worker", table).code != 0


def test_the_enforcer_as_a_foreign_engine(cluster: EmbeddedClusterLab, tmp_path: Path) -> None:
    """As one file, with the account of its own manifest."""
    program = tmp_path / "my-enforcer"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness.enforcer run "$@"\n')
    program.chmod(0o755)
    own = catalogue.get("enforcer").api_engine
    assert own is not None
    argv = ", ".join(f'"{word}"' for word in ("{program}", *own.argv[4:]))
    entry = ENTRY.partition("[api_engine]")[0] + (
        f'[api_engine]\naccount = "{own.account}"\nmanifests = ["deploy/enforcer.yaml"]\n'
        f'ready = "{own.ready}"\nprograms = [{{ path = "my-enforcer", argv = [{argv}] }}]\n'
    )
    cni, here = choose.choose(choose.Wanted("mine", entry, program))
    engine = make.engine(cni, here, "nftables")
    assert engine is not None
    with engines_on(cluster, engine):
        assert judged(cluster, tmp_path).outcome == "passed"


@pytest.fixture(scope="module")
def image(tmp_path_factory: Any) -> tuple[Path, str]:
    if lack := imaging.missing():
        pytest.skip(f"not installed: {lack}")
    layout = tmp_path_factory.mktemp("image") / "layout"
    imaging.make(layout, "v1.2.0", {"/usr/bin/small-engine": SMALL / "bin" / "small-engine"})
    return layout, "v1.2.0"


def in_images(repository: str) -> Cni:
    changes = f'[api_engine]\nimage = "{repository}"\ntag = "v{{version}}"\nneeds = {{}}\n'
    return catalogue.parse("small", ENTRY, changes)


def test_an_image_from_a_registry_by_digest(
    cluster: EmbeddedClusterLab,
    image: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fetched once, run on its own root file system, which no run changes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with imaging.registry(tmp_path) as address:
        repository = f"{address}/netpol/small"
        imaging.push(*image, f"{repository}:v1.2.0")
        file = tmp_path / "small.toml"
        changed = ENTRY.replace("[api_engine]", f'[api_engine]\nimage = "{repository}"', 1)
        file.write_text(changed.replace("[api_engine]", '[api_engine]\ntag = "v{version}"', 1))
        assert main(["engine", "fetch", str(file), "--version", "1.2"]) == 0
        assert f"{repository}:v1.2.0@sha256:" in capsys.readouterr().out
        digest = images.digest_of(f"{repository}:v1.2.0")
        assert main(["engine", "fetch", str(file), "--version", "3"]) == 2
        assert "has no release 3" in capsys.readouterr().err
    cni = in_images(repository)
    home = store.fetch(cni, "1.2.0", lambda _: None)  # the registry is gone: out of the cache
    here = found.in_directory(cni, home)
    assert (here.version, here.digest, here.program) == ("1.2.0", digest, "/usr/bin/small-engine")
    engine = make.engine(cni, here, "nftables")
    assert engine is not None
    before = sorted(str(path) for path in home.rglob("*"))
    with engines_on(cluster, engine) as engines:
        assert not acts.see(cluster).wrong
        assert judged(cluster, tmp_path).outcome == "passed"
        look = "busybox ls / /opt/python && busybox touch /etc/mine /opt/python/mine"
        inside = engines.run("worker", ["sh", "-c", look])
        assert inside.code == 0, inside
        assert {"opt", "run", "lib", "bin"} <= set(inside.out.split())
        assert "home" not in inside.out.split(), "that is this machine's file system"
    assert sorted(str(path) for path in home.rglob("*")) == before


@pytest.mark.parametrize("name", ["small.tar", "small.oci.tar"])
def test_an_archive(
    image: tuple[Path, str], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    imaging.save(*image, tmp_path / name, "example.org/netpol/small:v1.2.0")
    text = ENTRY.replace("[api_engine]", '[api_engine]\nimage = "example.org/netpol/small"', 1)
    text = text.replace("[api_engine]", '[api_engine]\ntag = "v{version}"', 1)
    for wanted in (
        choose.Wanted("small", text, engine=tmp_path / name),
        choose.Wanted("small", text, images=tmp_path),
    ):
        cni, here = choose.choose(wanted)
        assert here is not None
        assert here.root is not None
        assert (cni.version, here.program) == ("1.2.0", "/usr/bin/small-engine")
        assert (here.root / "usr/bin/small-engine").is_file()
        assert f"archive {tmp_path / name}" in here.source
