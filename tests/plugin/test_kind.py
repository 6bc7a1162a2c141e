"""kind clusters from nothing to ready and back: programs that stand in, a real API behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import __main__ as cli
from harness.cnis import catalogue, patch
from harness.cnis.cni import CniError
from harness.labs.base import LabError
from harness.labs.cluster import leftovers
from harness.labs.cluster.survey import survey
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.kind import clean, cluster, state
from harness.labs.kind.cluster import KindCluster, Wish
from harness.labs.kind.lab import KindLab
from harness.labs.kind.ready import Waiter
from harness.labs.kind.recipe import Look, Recipe, Rollout
from harness.run import kinds, manifests
from harness.run.place import KindOptions, Place
from tests.netns.kinds import AGENT, ENTRY, as_kind, images
from tests.plugin.conftest import RunSuite
from tests.standins import Standins

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "clusters" / "kind-calico.yaml"
KINDNETS = ROOT / "clusters" / "kind-kindnet.yaml"
NUMBERS = count(1)

NAME = "netpol-agent-1"
Made = Callable[..., KindCluster]


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[tuple[EmbeddedClusterLab, Standins]]:
    with as_kind(tmp_path_factory.mktemp("kind")) as found:
        yield found


@pytest.fixture
def standins(
    world: tuple[EmbeddedClusterLab, Standins], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Standins]:
    made = world[1]
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(cluster, "_PAUSE", 0.01)
    kinds._found.cache_clear()
    (made.folder / "log").unlink(missing_ok=True)
    yield made
    made.mend()
    made.store_images()
    for folder in ("clusters", "files"):
        for left in (made.folder / folder).iterdir():
            left.unlink()


@pytest.fixture
def make(world: tuple[EmbeddedClusterLab, Standins], standins: Standins) -> Iterator[Made]:
    """A cluster, not yet up: ``make(manifest, …)``, fields of the recipe and the wish by name."""
    lab = world[0]
    number = next(NUMBERS)
    home = f"agent{number}"
    rollout = Rollout(home, "DaemonSet", "agent")

    def made(manifest: str = AGENT, *, say: Any = lambda _: None, **fields: Any) -> KindCluster:
        of_wish = {key: fields.pop(key) for key in list(fields) if hasattr(Wish(), key)}
        objects = tuple(patch.read(manifest.replace("HOME", home), "agent.yaml"))
        others = tuple(replace(one, namespace=home) for one in fields.pop("others", ()))
        recipe = Recipe("agent", "Agent", CONFIG, objects, (rollout, *others))
        wish = Wish(probes=images(lab), ready_seconds=60, mesh_seconds=60)
        return KindCluster(
            NAME,
            replace(recipe, **fields),
            run=f"20261125-000000-{number}",
            wish=replace(wish, **of_wish),
            say=say,
        )

    yield made
    if lab.api.find("Namespace", "", home):
        lab.api.delete("Namespace", "", home)


def test_from_nothing_to_ready_and_back(
    make: Made, standins: Standins, world: tuple[EmbeddedClusterLab, Standins], tmp_path: Path
) -> None:
    lab = world[0]
    plugin = tmp_path / "plugins" / "bridge"
    plugin.parent.mkdir()
    plugin.write_text("a plugin")
    plugin.chmod(0o755)
    standins.store_images("netpol-enforcer:dev")
    standins.file("worker", "/run/agent.env").write_text("")
    for node in ("control-plane", "worker2"):
        standins.file(node, "/run/agent.env").write_text("")
    (tmp_path / "plugins" / "agent.tar").write_bytes(_archive("busybox:1.37", "nginx", "busybox"))
    (tmp_path / "plugins" / "other.tar").write_bytes(_archive("quay.io/other/cni:v1"))
    said: list[str] = []
    made = make(
        say=said.append,
        routes=True,
        plugins=("bridge",),
        modules=("vxlan",),
        ready_files=("/run/agent.env",),
        images=("docker.io/library/busybox:1.37",),
        local_images=("netpol-enforcer:dev",),
        foreign=frozenset({"quay.io/other/cni"}),
        archives=tmp_path / "plugins",
        tried=lambda _: True,
    )
    made.up()
    try:
        assert list(made.seconds) == [
            *("created", "images loaded", "Agent applied", "nodes Ready", "rolled out"),
            *("DNS rolled out", "every pod reaches every other", "all"),
        ]
        assert any("Joining worker nodes" in line for line in said)
        assert said[-1].startswith(f"cluster {NAME} ready in ")
        # What is known of it, so that it can be found again, and its kubeconfig apart from others.
        known = state.read(NAME)
        assert known is not None
        assert (known.state, known.owner, known.creating) == (state.UP, os.getpid(), 0)
        assert not known.abandoned
        [create] = standins.called("kind", "create")
        assert create[create.index("--kubeconfig") + 1] == str(state.kubeconfig(NAME))
        made_of = yaml.safe_load(Path(create[create.index("--config") + 1]).read_text())
        assert all(node["labels"] == {"netpol-harness/run": made.run} for node in made_of["nodes"])
        assert "@sha256:" in create[create.index("--image") + 1]
        # The nodes: plugin, network, routes to the others by their addresses, no way round them.
        assert standins.file("worker", "/opt/cni/bin/bridge").read_text() == "a plugin"
        conflist = yaml.safe_load(
            standins.file("worker", "/etc/cni/net.d/10-netpol.conflist").read_text()
        )
        ptp = conflist["plugins"][0]
        assert (ptp["type"], ptp["mtu"]) == ("ptp", 1450)
        nodes = {item["metadata"]["name"]: item for item in lab.api.list("Node")["items"]}
        assert ptp["ipam"]["ranges"] == [[{"subnet": nodes["worker"]["spec"]["podCIDR"]}]]
        addresses = {
            nodes[name]["spec"]["podCIDR"]: nodes[name]["status"]["addresses"][0]["address"]
            for name in ("control-plane", "worker2")
        }
        assert {c[6]: c[8] for c in standins.called("docker", "exec", "worker", "ip")} == addresses
        assert "masquerade" in standins.file("worker", "/nft").read_text()
        loaded = [Path(call[3]).name for call in standins.called("kind", "load", "image-archive")]
        assert loaded == ["agent.tar", "image.tar"]
        assert lab.api.request("GET", "/apis/agent.example.org/v1/pools/default")
        # Evidence: from the node, and out of the CNI's own container on that node.
        there = KindLab(
            made.api,
            survey(made.api, "kind"),
            cluster=NAME,
            runtime=made.kind.runtime,
            rollouts=made.recipe.rollouts,
            run=made.run,
        )
        assert len(Waiter(made.api)._pods(made.recipe.rollouts[0])) == 3
        assert list(there._unsteady()) == []  # they are there, and steady
        agent = f"{made.recipe.rollouts[0].namespace}/DaemonSet/agent/agent"
        rules = there._look(Look("rules", ("iptables-nft-save", "-c")), "worker")
        assert (rules.text, rules.node) == ("# rules of worker", "worker")
        assert rules.command == "docker exec worker iptables-nft-save -c"
        assert there._look(Look("sets", ("echo", "a b"), agent), "worker2").text == "a b\n"
        absent = there._look(Look("sets", ("ipset", "save"), agent), "nowhere")
        assert "has no pod on nowhere" in absent.text
        # The pods that proved the network are gone again.
        chosen = f"netpol-harness/run={made.run}-1-ready"
        left = lab.api.list("Namespace", labelSelector=chosen)["items"]
        assert all("deletionTimestamp" in item["metadata"] for item in left)
    finally:
        made.down()
    assert standins.clusters == []
    assert not state.folder(NAME).exists()


def _archive(*names: str) -> bytes:
    import io
    import json
    import tarfile

    content = json.dumps([{"RepoTags": list(names)}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("step", "text", "message"),
    [
        ("kind create", "create-no-pull", "could not be made: failed to .* no such host"),
        ("kind create half-way", "ERROR: failed to init node with kubeadm", "could not be made"),
        ("kind load", "ERROR: failed to load image: ctr: rpc error", "could not be loaded"),
        ("docker exec -i worker tee", "OCI runtime exec failed", "`docker exec .*` failed"),
        ("docker cp", "no such container", "`docker cp .*` failed"),
    ],
)
def test_a_step_that_fails_leaves_nothing(
    make: Made, standins: Standins, tmp_path: Path, step: str, text: str, message: str
) -> None:
    standins.others("somebodys")
    standins.fail(step, text)
    (tmp_path / "bridge").write_text("")
    (tmp_path / "bridge").chmod(0o755)
    (tmp_path / "images.tar").write_bytes(_archive("nginx", "busybox"))
    made = make(plugins=("bridge",), routes=True, archives=tmp_path)
    with pytest.raises(LabError, match=message):
        made.up(logs=tmp_path / "logs")
    assert standins.clusters == ["somebodys"]
    assert state.all_known() == []
    logs = tmp_path / "logs" / f"{NAME}-control-plane" / "kubelet.log"
    assert logs.exists() is (text != "create-no-pull")  # where there were nodes, they told why
    assert all("somebodys" not in call for call in standins.calls)


def test_a_cluster_of_that_name_is_left_alone(make: Made, standins: Standins) -> None:
    standins.others(NAME)
    with pytest.raises(LabError, match=f"a kind cluster called {NAME} is there already"):
        make().up()
    # Somebody is faster between the look and the making:
    made = make()
    made.check = list  # type: ignore[method-assign]
    with pytest.raises(LabError, match="already exist for a cluster"):
        made.up()
    assert standins.clusters == [NAME]
    assert standins.called("kind", "delete") == []
    assert state.all_known() == []


def test_a_cni_that_never_becomes_ready(make: Made, standins: Standins, tmp_path: Path) -> None:
    manifest = AGENT.replace("sleep 3600", "exit 3")
    made = make(manifest, ready_seconds=4)
    with pytest.raises(
        LabError, match=r"agent\d+ DaemonSet/agent is not rolled out after 4 s: 0 of 3"
    ) as caught:
        made.up(logs=tmp_path / "logs")
    assert "on worker: " in caught.value.detail
    assert "agent: the agent begins" in caught.value.detail  # its last words
    assert (tmp_path / "logs" / f"{NAME}-control-plane" / "kubelet.log").exists()
    assert standins.clusters == []


def test_an_image_that_no_archive_brings_is_told_at_once(
    make: Made, standins: Standins, tmp_path: Path
) -> None:
    (tmp_path / "images.tar").write_bytes(_archive("nginx", "busybox"))
    with pytest.raises(LabError, match=r"example/agent:v1 is in none of the archives"):
        make(images=("example/agent:v1",), archives=tmp_path).up()
    assert standins.called("kind", "create") == []
    # One that no manifest names, but a pod asks for:
    made = make(AGENT.replace("busybox:1.37", "unheard:1"), archives=tmp_path, ready_seconds=60)
    with pytest.raises(LabError, match=r"agent\d+ DaemonSet/agent has no image") as caught:
        made.up()
    assert "--lab-images" in caught.value.hint
    assert standins.clusters == []


def test_what_is_not_required_is_told_and_left(make: Made, standins: Standins) -> None:
    helper = Rollout("", "Deployment", "helper", required=False)
    manifest = AGENT + yaml.safe_dump_all(
        [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "helper", "namespace": "HOME"},
                "spec": {
                    "selector": {"matchLabels": {"app": "helper"}},
                    "template": {
                        "metadata": {"labels": {"app": "helper"}},
                        "spec": {"containers": [{"name": "h", "image": "unheard:1"}]},
                    },
                },
            }
        ],
        explicit_start=True,
    )
    made = make(manifest, others=(helper,))
    made._waiter = lambda waiter=made._waiter: _impatient(waiter())  # type: ignore[method-assign]
    made.up()
    [note] = made.notes
    assert " Deployment/helper is not rolled out: 0 of 1 pods" in note
    made.down()


def _impatient(waiter: Any) -> Any:
    waiter.lenient_seconds = 1.0
    return waiter


def test_a_deletion_that_fails_is_tried_again_and_told(make: Made, standins: Standins) -> None:
    made = make()
    made.up()
    standins.fail("kind delete", "ERROR: failed to delete nodes: device or resource busy")
    with pytest.raises(LabError, match=r"busy \(tried 3 times\)") as caught:
        made.down()
    assert "netpol clean" in caught.value.hint
    assert len(standins.called("kind", "delete")) == 3
    assert [one.name for one in state.all_known()] == [NAME]  # it is not forgotten
    standins.mend()
    clean.clean(state.all_known()[0])
    assert standins.clusters == []


_KILLED = """
import signal
import sys
from pathlib import Path
from harness.labs.kind.cluster import KindCluster
from harness.labs.kind.recipe import Recipe
made = KindCluster("netpol-agent-1", Recipe("agent", "Agent", Path(sys.argv[1])), run="r-1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without it
print("begins", flush=True)
made.up()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_interrupted_half_way_through_kind_create(
    standins: Standins, number: signal.Signals
) -> None:
    """Ctrl-C takes all back. After a kill `netpol clean` does, the kind that goes on included."""
    standins.others("somebodys")
    standins.fail("kind create half-way", hang=True)
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(CONFIG)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(3000):
            known = state.read(NAME)
            if known and known.creating and NAME in standins.clusters:
                break
            assert process.poll() is None, process.communicate()[0].decode()
            signal.sigtimedwait([], 0.02)
        assert known is not None
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
    if number == signal.SIGKILL:
        assert state.started(known.creating) == known.creating_started  # kind goes on
        [left] = clean.leftovers()
        clean.clean(left)
    assert state.started(known.creating) != known.creating_started
    assert standins.clusters == ["somebodys"]
    assert clean.leftovers(kept=True) == []


# -- whole runs ----------------------------------------------------------------------------------


@pytest.fixture
def asked(suite: Path) -> list[str]:
    """The options that make a cluster with a CNI of one's own; two scenarios wait for it."""
    (suite.parent / "agent.toml").write_text(ENTRY)
    (suite.parent / "agent.yaml").write_text(AGENT.replace("HOME", "agent"))
    (suite / "other.yaml").write_text(
        (suite / "deny.yaml").read_text().replace("id: deny", "id: d2")
    )
    return ["--lab-engine-file", "agent.toml", "--lab", "kind", "--lab-cni-manifest", "agent.yaml"]


def test_a_run_makes_its_cluster_and_another_takes_it_again(
    run_clean: RunSuite,
    asked: list[str],
    standins: Standins,
    world: tuple[EmbeddedClusterLab, Standins],
) -> None:
    """Two workers share it, each in namespaces of its own; kept, taken again, ended."""
    ended = run_clean(*asked, "-n", "2", "--lab-keep", "always")
    assert ended.code == 0, ended.out
    assert "kind 0.33 on docker, node image docker.io/kindest/node:v1.36.4@sha256:" in ended.out
    assert "every pod reaches every other (" in ended.out  # phases, with seconds
    [name] = standins.clusters
    assert f"--lab-reuse {name}" in ended.out
    assert len(standins.called("kind", "create")) == 1
    # Else the host ports of its pods on the nodes' network would be taken for the next run.
    assert [one.run for one in leftovers.leftovers(world[0].api)] == []
    workers = {scenario.worker for scenario in ended.record.scenarios}
    assert len(ended.record.scenarios) == 2
    assert workers <= {"gw0", "gw1"}
    facts = ended.record.run["environment"]
    assert facts["lab"] == "kind"
    assert facts["cluster"] == name
    assert facts["start_seconds"]["all"] > 0

    again = run_clean(*asked, "--lab-reuse", name)
    assert again.code == 0, again.out
    assert f"kind cluster {name}, which is left as it is at the end" in again.out
    assert all(f"--lab-reuse {name}" in one.rerun for one in again.record.scenarios)
    assert standins.clusters == [name]
    assert cli.main(["clean"]) == 0
    assert standins.clusters == [name]
    assert cli.main(["clean", "--kept"]) == 0
    assert standins.clusters == []
    assert state.all_known() == []


def test_a_cluster_that_fails_makes_every_test_an_error(
    run_clean: RunSuite, asked: list[str], standins: Standins, suite: Path
) -> None:
    """Told once in full; exit code 1, and no test is a failure. Nothing is left."""
    standins.fail("kind create", "create-no-pull")
    ended = run_clean(*asked, "-n", "2")
    assert ended.code == pytest.ExitCode.TESTS_FAILED
    assert "2 errors in" in ended.out
    assert "failed to pull image" in ended.out
    assert "--lab-images" in ended.out
    assert standins.clusters == []
    assert state.all_known() == []


def test_an_option_that_cannot_be_meant_is_refused(
    run_clean: RunSuite, asked: list[str], standins: Standins
) -> None:
    """With exit code 4, before anything is made; what else is refused is in the next test."""
    ended = run_clean(*asked, "--lab-reuse", "nowhere")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "there is no kind cluster nowhere; there are: none" in ended.out
    assert standins.called("kind", "create") == []


@pytest.mark.parametrize(
    ("cni", "options", "more", "says"),
    [
        ("agent", KindOptions(archives=Path("/nowhere")), {}, "/nowhere is no directory"),
        ("agent", KindOptions(files=(Path("none.yaml"),)), {}, "none.yaml: No such file"),
        ("agent", KindOptions(), {"families": (4, 6)}, "is installed for ipv4 here, and not for"),
        ("agent", KindOptions(network="flannel"), {}, "brings its own network"),
        ("agent", KindOptions(config=Path("my.yaml")), {}, "my.yaml: No such file"),
        ("agent", KindOptions(config=KINDNETS), {}, "its own network beside that of Agent"),
        ("cilium", KindOptions(), {}, "pins no manifest of Cilium"),
        ("enforcer", KindOptions(network="kindnet"), {}, "two policy engines at once"),
        ("enforcer", KindOptions(network="kinnet"), {}, "no CNI named 'kinnet'"),
        ("enforcer", KindOptions(), {}, "image netpol-enforcer:dev is not in docker's store"),
        ("calico", KindOptions(offline=True), {}, "nothing is to be downloaded"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_made(
    standins: Standins,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cni: str,
    options: KindOptions,
    more: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = catalogue.parse("agent", ENTRY) if cni == "agent" else catalogue.get(cni)
    with pytest.raises(LabError, match=says):
        kinds.check(entry, Place(lab="kind", run="r-1", kind=options, **more))
    assert standins.called("kind", "create") == []
    assert state.all_known() == []


def test_a_version_that_is_not_pinned() -> None:
    with pytest.raises(CniError, match=r"no such version of Calico; it has v3.32.1, v3.31.7"):
        manifests.at_version(catalogue.get("calico"), "3.30.0")
    older = manifests.at_version(catalogue.get("calico"), "v3.31.7")
    assert older.version == "3.31.7"
    assert older.manifests[0].sha256.startswith("d6d8a489")
    assert "quay.io/calico/node:v3.31.7" in older.images


def test_workers_share_the_clusters_out() -> None:
    place = Place(lab="kind", run="20261125-000000-abc123", kind=KindOptions(clusters=2))
    cni = catalogue.get("calico")
    assert kinds.names(cni, place) == ["netpol-calico-abc123-1", "netpol-calico-abc123-2"]
    used = [kinds.name_for(cni, replace(place, worker=f"gw{n}"))[-1] for n in range(4)]
    assert used == ["1", "2", "1", "2"]
    assert kinds.name_for(cni, place)[-1] == "1"  # without workers
    alone = replace(place, kind=KindOptions())
    assert kinds.names(cni, alone) == ["netpol-calico-abc123"]


def test_several_clusters_are_made_and_ended(
    world: tuple[EmbeddedClusterLab, Standins], standins: Standins, tmp_path: Path
) -> None:
    """Behind both is one API here; what counts is that each is made, remembered and deleted."""
    entry = catalogue.parse("agent", ENTRY)
    manifest = tmp_path / "agent.yaml"
    manifest.write_text(AGENT.replace("HOME", "agent"))
    options = KindOptions(clusters=2, files=(manifest,))
    place = Place(lab="kind", run="20261125-000000-two", kind=options)
    said: list[str] = []
    kinds.prepare(entry, place, tmp_path, said.append)
    assert standins.clusters == kinds.names(entry, place)
    assert [one.state for one in state.all_known()] == [state.UP, state.UP]
    lines = list(kinds.finish(entry, place, tmp_path, failed=False, keep=False))
    assert all("deleted" in line for line in lines)
    assert standins.clusters == []
    assert state.all_known() == []


@pytest.mark.parametrize("keep", [False, True])
def test_a_cluster_whose_sibling_fails_goes_as_well(
    standins: Standins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keep: bool
) -> None:
    place = Place(lab="kind", run="20261125-000000-x", kind=KindOptions(clusters=2))
    entry = catalogue.parse("agent", ENTRY)

    def up(made: list[KindCluster], *_: object) -> None:
        for one in made:
            standins.others(one.name)
            state.write(state.Known(one.name, place.run, "agent", "docker", state=state.UP))
        raise LabError("the second cluster does not come up")

    monkeypatch.setattr(kinds, "_up", up)
    with pytest.raises(LabError, match="the second cluster"):
        kinds.prepare(entry, place, tmp_path, lambda _: None, keep_failed=keep)
    assert len(standins.clusters) == (2 if keep else 0)
    with pytest.raises(LabError, match="the second cluster"):  # which every test tells
        kinds.make(entry, place)
    lines = list(kinds.finish(entry, place, tmp_path, failed=True, keep=keep))
    assert len(lines) == (2 if keep else 0)
    assert len(state.all_known()) == (2 if keep else 0)


def test_a_machine_without_docker_is_told_what_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kinds._found.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LabError, match=r"Calico runs on a kind cluster: there is no kind"
    ) as caught:
        kinds.check(catalogue.get("calico"), Place(lab="kind"))
    assert "--cni enforcer" in caught.value.hint
