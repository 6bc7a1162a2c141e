"""Fan-out by an Indexed Job, for real: its controller, its pods, their account, their streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cnis import catalogue
from harness.labs.base import LabError
from harness.labs.cluster import stream
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.fanout import Workers
from harness.labs.cluster.line import WorkerShell
from harness.labs.cluster.spread import FanOut
from harness.labs.controlplane.engines import ACCOUNT_DIRECTORY
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.model.actions import Apply, Delete
from harness.model.flow import Cell, Endpoint, Outcome
from harness.model.policy import NetworkPolicy
from harness.model.world import Namespace, Pod, Workload, World
from harness.probes.prober import Prober
from harness.report.record import ScenarioRecord
from harness.run import place
from harness.run.runner import Runner
from harness.scenarios import worlds
from harness.scenarios.scenario import Scenario, Step
from tests.netns.clusters import cluster_up, eventually

pytestmark = pytest.mark.timeout(300)

SCENARIO = Scenario(
    "shut-and-open",
    "x is shut, and opened again",
    "what was open is denied, and open again",
    worlds.world("two-by-two"),
    (
        Step("shut", (Apply(NetworkPolicy("x", "shut")),)),
        Step("open", (Delete("NetworkPolicy", "x", "shut"),)),
    ),
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: Any) -> Iterator[EmbeddedClusterLab]:
    """With no proxy for the Service of the API server: workers reach it all the same."""
    asked = FanOut("job", share=3)
    with cluster_up(
        tmp_path_factory.mktemp("lab"), direct=False, proxy="lab", fan_out=asked, run="f1"
    ) as lab:
        yield lab


@pytest.fixture
def streams(cluster: EmbeddedClusterLab) -> Iterator[EmbeddedClusterLab]:
    """The same cluster, probed by exec streams from this process."""
    workers, cluster.workers = cluster.workers, Workers(cluster, FanOut("exec"))
    yield cluster
    cluster.workers = workers


def verdicts(record: ScenarioRecord) -> list[Any]:
    """What a record says of every cell: all but times and addresses."""
    return [
        (
            step.title,
            sorted((c.source, c.target, c.port, c.via, c.expected, c.finding) for c in step.cells),
        )
        for step in record.steps
    ]


def run(lab: EmbeddedClusterLab) -> ScenarioRecord:
    """Nobody enforces anything; the time that is given all the same is for a busy machine."""
    runner = Runner(lab, deadline=3.0)
    try:
        return runner.run(SCENARIO)
    finally:
        runner.reduce(lambda world: World(externals=world.externals))
        runner.close()


def jobs_pods(lab: EmbeddedClusterLab) -> dict[int, dict[str, Any]]:
    """The workers' pods that are not being deleted, by their index."""
    chosen = {"labelSelector": f"batch.kubernetes.io/job-name={lab.fan_out_name}"}
    pods = lab.api.list("Pod", lab.node_namespace, **chosen)["items"]
    index = "batch.kubernetes.io/job-completion-index"
    return {
        int(pod["metadata"]["annotations"][index]): pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") in ("Pending", "Running")
    }


# -- the same record -------------------------------------------------------------------------------


def test_where_nothing_is_enforced_leaks_are_seen(cluster: EmbeddedClusterLab) -> None:
    record = run(cluster)
    assert record.outcome == "failed"
    shut, opened = record.steps
    assert {c.finding for c in shut.cells} == {"agrees", "leak"}, [
        c for c in shut.cells if c.finding == "unknown"
    ]
    assert all(c.finding == "leak" for c in shut.cells if c.expected == "deny")
    assert {c.finding for c in opened.cells} == {"agrees"}
    assert str(cluster.facts()["fan_out"]).startswith("2 workers of an Indexed Job")


def test_streams_from_this_process_make_the_same_record(
    cluster: EmbeddedClusterLab, streams: EmbeddedClusterLab
) -> None:
    by_streams = verdicts(run(streams))
    assert streams.facts()["fan_out"] == "exec streams from this machine"
    streams.workers = Workers(streams, FanOut("job", share=3))
    assert verdicts(run(streams)) == by_streams
    streams.workers.close()


# -- pods, workers and their loss ------------------------------------------------------------------

PODS = [Pod("fan", f"p{n}", workload=Workload.BOTH) for n in range(7)]
CELLS = [
    Cell(Endpoint.parse(f"fan/{a.name}"), Endpoint.parse(f"fan/{b.name}"), 80)
    for a in PODS
    for b in PODS
    if a is not b
]


@pytest.fixture
def prober(cluster: EmbeddedClusterLab) -> Iterator[Prober]:
    cluster.apply([Apply(Namespace("fan")), *(Apply(pod) for pod in PODS)])
    prober = Prober(cluster)
    prober.begin(cluster.resolve(World({"fan": Namespace("fan")}, {p.key: p for p in PODS})))
    yield prober
    prober.close()
    cluster.apply([Delete("Namespace", "", "fan")])


def test_the_job_grows_with_the_clients(cluster: EmbeddedClusterLab, prober: Prober) -> None:
    before = cluster.workers.count
    assert {o.outcome for o in prober.look(CELLS, 5.0)} == {Outcome.ALLOWED}
    assert (before, cluster.workers.count) == (2, 3)
    loads = [line.load for line in cluster.workers._lines.values()]
    assert sorted(loads) == [2, 2, 3]
    pods = jobs_pods(cluster)
    assert set(pods) == {0, 1, 2}
    for index, pod in pods.items():
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        assert f"worker {index}: https://" in cluster.api.text(path)


def test_a_worker_that_dies(cluster: EmbeddedClusterLab, prober: Prober) -> None:
    """Its clients are unknown in this look; the others take them over, and the Job makes anew."""
    prober.look(CELLS, 5.0)
    pod = jobs_pods(cluster)[0]
    cluster.api.delete("Pod", cluster.node_namespace, pod["metadata"]["name"])

    def lost() -> bool:
        cluster.workers._lines[0].read()
        return bool(cluster.workers._lines[0].over)

    eventually(lost)
    seen = prober.look(CELLS, 5.0)
    wrong = [one for one in seen if one.outcome is not Outcome.ALLOWED]
    assert {one.outcome for one in wrong} == {Outcome.HARNESS_ERROR}
    assert all("worker 0 of the fan-out (pod fan-out-0-" in one.raw for one in wrong)
    assert {o.outcome for o in prober.look(CELLS, 5.0)} == {Outcome.ALLOWED}
    eventually(lambda: 0 in jobs_pods(cluster))


def test_streams_that_are_cut(cluster: EmbeddedClusterLab, prober: Prober) -> None:
    """All at once, and the workers live: they are connected to again."""
    assert {o.outcome for o in prober.look(CELLS, 5.0)} == {Outcome.ALLOWED}
    for line in cluster.workers._lines.values():
        line._stream._socket.close()
    seen = {o.outcome for o in prober.look(CELLS, 5.0)}
    assert seen <= {Outcome.HARNESS_ERROR, Outcome.ALLOWED}
    assert {o.outcome for o in prober.look(CELLS, 5.0)} == {Outcome.ALLOWED}


# -- rights ----------------------------------------------------------------------------------------


def test_workers_may_open_shells_in_the_runs_own_pods_and_no_more(
    cluster: EmbeddedClusterLab, prober: Prober
) -> None:
    assert {o.outcome for o in prober.look(CELLS[:1], 5.0)} == {Outcome.ALLOWED}
    name = jobs_pods(cluster)[1]["metadata"]["name"]
    where = f"{ACCOUNT_DIRECTORY}/token"
    _, token = stream.run(cluster.api, cluster.node_namespace, name, "worker", ["cat", where])
    account: Api = cluster.plane.api(token)
    code, _ = stream.run(account, "fan", "p0", "client", ["true"])
    assert code == 0
    for refused in (
        lambda: account.list("Pod", "fan"),
        lambda: account.list("Secret", cluster.node_namespace),
        lambda: stream.run(account, "kube-system", "coredns-0", "dns", ["true"]),
    ):
        with pytest.raises(ApiError) as caught:
            refused()
        assert caught.value.status == 403


def test_a_client_that_is_not_there(cluster: EmbeddedClusterLab, prober: Prober) -> None:
    with pytest.raises(LabError, match=r"no stream to fan/nobody: pods .nobody. not found"):
        cluster.workers.shell(("fan", "nobody"), "client")
    shell = cluster.shell(Endpoint.parse("fan/p1"))
    assert isinstance(shell, WorkerShell)
    shell.close()


# -- a Job that does not come up -------------------------------------------------------------------


def test_an_image_that_cannot_be_had(
    cluster: EmbeddedClusterLab, streams: EmbeddedClusterLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once with the pods' states; ``auto`` goes on with exec streams and says why."""
    monkeypatch.setattr(EmbeddedClusterLab, "fan_out_name", "stranger")
    streams.apply([Apply(Namespace("fan")), Apply(PODS[0]), Apply(PODS[1])])
    streams.workers = Workers(streams, FanOut("job", image="registry.example.org/thing:1"))
    with pytest.raises(LabError) as caught:
        streams.shell(Endpoint.parse("fan/p0"))
    assert "0 of 2 workers of Job netpol-f1/stranger are ready after" in caught.value.message
    assert "registry.example.org/thing:1" in caught.value.hint
    assert "worker: ErrImagePull" in caught.value.detail
    asked = FanOut("auto", image="registry.example.org/thing:1", many=1)
    streams.workers = Workers(streams, asked)
    shell = streams.shell(Endpoint.parse("fan/p0"))
    assert isinstance(shell, stream.ExecShell)
    shell.close()
    assert str(streams.facts()["fan_out_warning"]).startswith("no fan-out by a Job, but exec str")
    streams.api.delete("Job", "netpol-f1", "stranger", propagationPolicy="Background")
    streams.apply([Delete("Namespace", "", "fan")])


def test_a_program_that_ends_at_once(
    cluster: EmbeddedClusterLab, streams: EmbeddedClusterLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words are in the error."""
    monkeypatch.setattr(EmbeddedClusterLab, "fan_out_name", "broken")
    monkeypatch.setattr("harness.labs.cluster.fanout.PROGRAM", ("python3", "-m", "no.such.module"))
    streams.workers = Workers(streams, FanOut("job"))
    with pytest.raises(LabError) as caught:
        streams.workers.take(0)
    assert "no.such.module" in caught.value.detail or "No module named" in caught.value.detail
    streams.api.delete("Job", "netpol-f1", "broken", propagationPolicy="Background")


# -- by the command line ---------------------------------------------------------------------------


def test_how_a_place_says_it(tmp_path: Path) -> None:
    asked = place.Place(api=True, fan_out=FanOut("job"))
    lab = place.make(catalogue.get("none"), asked, tmp_path)
    assert isinstance(lab, EmbeddedClusterLab)
    assert not lab.direct
    assert lab.workers.asked.mode == "job"
    assert "fan-out: an Indexed Job of workers (netpol-enforcer:dev)" in place.check(
        catalogue.get("none"), asked
    )
