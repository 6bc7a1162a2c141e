"""kind and the container runtime as programs: found, called, and what is said where they fail."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from harness.labs.base import LabError
from harness.labs.kind import command, limits, versions
from harness.labs.kind.command import CommandError
from harness.labs.kind.program import Kind
from harness.labs.kind.runtime import CHOICE, Runtime
from tests.standins import Standins


@pytest.fixture
def standins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standins:
    made = Standins(tmp_path / "world")
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv(CHOICE, raising=False)
    return made


def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"`sh .*` has not ended within 2 s") as caught:
        command.run(
            ["/bin/sh", "-c", f"echo so far; (sleep 4; touch {mark}) & sleep 60"], seconds=2
        )
    assert "so far" in caught.value.detail
    assert time.monotonic() - began < 30
    time.sleep(max(0.0, 4.5 - (time.monotonic() - began)))
    assert not mark.exists()


def test_a_child_that_outlives_it_is_not_waited_for() -> None:
    began = time.monotonic()
    done = command.run(["/bin/sh", "-c", "echo done; sleep 60 &"], seconds=30)
    assert done.out == "done"
    assert time.monotonic() - began < 20


def test_ctrl_c_ends_the_program_and_goes_on(tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    pids: list[int] = []

    def started(pid: int) -> None:
        pids.append(pid)
        timer.start()

    # Who starts the tests in the background of a script has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            command.run(["/bin/sh", "-c", "sleep 60"], seconds=50, on_start=started)
    finally:
        signal.signal(signal.SIGINT, before)
    timer.join()
    assert not Path(f"/proc/{pids[0]}").exists()


def test_lines_are_heard_as_they_come_and_input_is_given() -> None:
    heard: list[str] = []
    done = command.run(
        ["/bin/sh", "-c", "cat; echo one >&2; echo two >&2; exit 3"],
        seconds=30,
        stdin="given",
        on_line=heard.append,
        check=False,
    )
    assert (done.code, done.out, heard) == (3, "given", ["one", "two"])


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="nowhere cannot be run: No such file"):
        command.run(["/nowhere"], seconds=1)


# -- the runtime ---------------------------------------------------------------------------------


def test_the_first_runtime_that_answers_is_taken(standins: Standins) -> None:
    standins.has("podman")
    assert Runtime.find().name == "docker"
    standins.fail("docker info", "docker-no-daemon")
    assert Runtime.find().name == "podman"


def test_kinds_own_choice_is_obeyed(standins: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    standins.has("podman")
    monkeypatch.setenv(CHOICE, "podman")
    assert Runtime.find().name == "podman"
    standins.lacks("podman")
    with pytest.raises(LabError, match="there is no podman on PATH"):
        Runtime.find()


@pytest.mark.parametrize(
    ("transcript", "message", "hint"),
    [
        ("docker-no-permission", "this user may not speak to docker", "usermod -aG docker me"),
        ("docker-no-daemon", "Cannot connect to the Docker daemon", "systemctl start docker"),
    ],
)
def test_a_runtime_that_does_not_answer(
    standins: Standins,
    monkeypatch: pytest.MonkeyPatch,
    transcript: str,
    message: str,
    hint: str,
) -> None:
    monkeypatch.setenv("USER", "me")
    standins.fail("docker info", transcript)
    with pytest.raises(LabError, match=message) as caught:
        Runtime.find()
    assert hint in caught.value.hint


def test_no_runtime_at_all(standins: Standins) -> None:
    standins.lacks("docker")
    with pytest.raises(LabError, match="neither docker nor nerdctl nor podman"):
        Runtime.find()


def test_commands_on_nodes_are_passed_as_they_are(standins: Standins) -> None:
    runtime = Runtime.find()
    standins.others("c")
    assert runtime.nodes("c") == ["control-plane", "worker", "worker2"]
    assert runtime.nodes("d") == []
    odd = "$(touch /tmp/x); 'a' \"b\""
    runtime.exec("worker", ["tee", "/etc/x y"], stdin=odd)
    assert standins.file("worker", "/etc/x y").read_text() == odd
    assert standins.calls[-1] == ["docker", "exec", "-i", "worker", "tee", "/etc/x y"]
    with pytest.raises(CommandError, match="No such container: nowhere"):
        runtime.exec("nowhere", ["true"])


# -- kind ----------------------------------------------------------------------------------------


def test_kind_is_found_with_its_version(standins: Standins) -> None:
    kind = Kind.find()
    assert kind.version == (0, 33)
    assert kind.clusters() == []
    standins.others("b")
    standins.others("a")
    assert kind.clusters() == ["a", "b"]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("kind v0.20.0 go1.20 linux/amd64", "kind 0.20, which is too old"),
        ("what do you mean?", r"tells no version of kind, it says: 'what do you mean\?'"),
    ],
)
def test_a_kind_that_will_not_do(standins: Standins, says: str, message: str) -> None:
    standins.fail("kind version", says, code=0)
    with pytest.raises(LabError, match=message) as caught:
        Kind.find()
    assert "install kind 0.32 or newer" in caught.value.hint


def test_no_kind(standins: Standins) -> None:
    standins.lacks("kind")
    with pytest.raises(LabError, match="there is no kind on PATH"):
        Kind.find()


@pytest.mark.parametrize(
    ("transcript", "message", "hint"),
    [
        (
            "create-no-pull",
            "failed to pull image .*: Error response .* no such host",
            "--lab-images",
        ),
        ("create-exists", "node.s. already exist for a cluster", "--lab-reuse"),
        ("create-no-config", "unable to decode config", ""),
        ("ERROR: failed to create cluster: write /x: no space left on device", "", "make room"),
        ("ERROR: failed: inotify: too many open files", "", "fs.inotify.max_user_instances=512"),
    ],
)
def test_a_cluster_that_cannot_be_made(
    standins: Standins, tmp_path: Path, transcript: str, message: str, hint: str
) -> None:
    standins.fail("kind create", transcript)
    with pytest.raises(CommandError, match=f"cluster c could not be made.*{message}") as caught:
        Kind.find().create("c", tmp_path / "config", tmp_path / "kubeconfig")
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_the_words_of_each_command(standins: Standins, tmp_path: Path) -> None:
    kind = Kind.find()
    config, kubeconfig = tmp_path / "my config", tmp_path / "kubeconfig"
    config.write_text("")
    heard: list[str] = []
    kind.create("c", config, kubeconfig, "image@sha256:0", on_line=heard.append)
    assert standins.calls[-1] == [
        *("kind", "create", "cluster", "--name", "c", "--config", str(config)),
        *("--kubeconfig", str(kubeconfig), "--retain", "--image", "image@sha256:0"),
    ]
    assert " • Joining worker nodes 🚜  ..." in heard
    assert kubeconfig.exists()
    kind.load_archive("c", tmp_path / "a.tar")
    assert standins.calls[-1][1:] == [
        *("load", "image-archive", str(tmp_path / "a.tar"), "--name", "c")
    ]
    assert kind.export_logs("c", tmp_path / "logs") == ""
    assert (tmp_path / "logs/c-control-plane/kubelet.log").exists()
    assert "unknown cluster" in kind.export_logs("d", tmp_path / "logs")
    kind.delete("c", kubeconfig)
    kind.delete("c", kubeconfig)  # deleting what is not there is no error
    assert standins.clusters == []


def test_a_kind_that_hangs_is_ended(standins: Standins) -> None:
    standins.fail("kind get", hang=True)
    kind = Kind.find()
    with pytest.raises(CommandError, match=r"cannot be listed: .* has not ended within 2 s"):
        kind._run("get", "clusters", what="kind's clusters cannot be listed", seconds=2)


# -- images and limits ---------------------------------------------------------------------------


def test_the_node_image_is_pinned_by_digest() -> None:
    for images in versions.NODE_IMAGES.values():
        for minor, image in images.items():
            assert len(image.partition("@sha256:")[2]) == 64
            assert ".".join(map(str, versions.of_image(image) or ())) == minor
    assert versions.node_image((0, 33)).startswith("docker.io/kindest/node:v1.36.4@sha256:099e")
    assert versions.node_image((0, 33), "1.35").startswith("docker.io/kindest/node:v1.35.8@")
    assert versions.node_image((0, 33), "my/node:v1.30.0") == "my/node:v1.30.0"
    assert versions.node_image((0, 40)) == ""  # kind's own default is pinned, too
    assert versions.of_image("my/node") is None


def machine(tmp_path: Path, *, cgroup2: bool = True, instances: int = 512) -> Path:
    """The part of a file system that limits are read from."""
    for folder in ("proc/sys/fs/inotify", "sys/fs/cgroup", "sys/module/vxlan"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/sys/fs/inotify/max_user_watches").write_text("524288\n")
    (tmp_path / "proc/sys/fs/inotify/max_user_instances").write_text(f"{instances}\n")
    if cgroup2:
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpu\n")
    return tmp_path


def test_limits_that_are_good(tmp_path: Path) -> None:
    system = machine(tmp_path)
    found = limits.look(kubernetes=(1, 36), modules=["vxlan"], system=system)
    assert all(limit.ok for limit in found)
    assert limits.refuse(found) == []


def test_cgroup_v1_is_refused_where_kubelets_refuse_it(tmp_path: Path) -> None:
    system = machine(tmp_path, cgroup2=False)
    (system / "sys/fs/cgroup/memory").mkdir()
    # What the runtime says counts more: it may run elsewhere.
    assert limits.refuse(limits.look(kubernetes=(1, 36), system=system, cgroups="2")) == []
    with pytest.raises(LabError, match="version 1") as caught:
        limits.refuse(limits.look(kubernetes=(1, 36), system=system))
    assert "an older --lab-kind-image" in caught.value.hint
    assert len(limits.refuse(limits.look(kubernetes=(1, 34), system=system))) == 1
    borne = limits.look(kubernetes=(1, 36), bears_cgroup1=True, system=system)
    assert borne[0].ok
    assert limits.refuse(borne) == []


@pytest.mark.parametrize(("instances", "fails"), [(128, False), (16, True)])
def test_few_inotify_instances_warn_and_too_few_refuse(
    tmp_path: Path, instances: int, fails: bool
) -> None:
    found = limits.look(system=machine(tmp_path, instances=instances))
    if fails:
        with pytest.raises(LabError) as caught:
            limits.refuse(found)
        assert caught.value.hint == "sysctl -w fs.inotify.max_user_instances=512"
    else:
        assert "sysctl -w" in limits.refuse(found)[0]


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = machine(tmp_path)
    monkeypatch.setattr(limits, "DISK_LEAST", 1 << 62)
    monkeypatch.setattr(limits, "DISK_GOOD", 1 << 62)
    with pytest.raises(LabError, match=r"disk: .* GiB free"):
        limits.refuse(limits.look(system=system, disk=tmp_path))


def test_modules_are_foretold(tmp_path: Path) -> None:
    import platform

    system = machine(tmp_path)
    folder = system / "lib/modules" / platform.release()

    def of(name: str, tried: bool | None = None) -> limits.Limit:
        found = limits.look(modules=[name], system=system, tried=lambda _: tried)
        return found[-1]

    assert of("vxlan").found == "loaded"
    assert of("dummy").ok is None
    assert "not known" in of("dummy").found
    assert of("dummy", tried=True).ok
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("kernel/net/netfilter/nft-queue.ko.zst: x.ko\n")
    assert of("nft_queue").found == "there, to be loaded"
    assert of("dummy").step == "modprobe dummy, or another kernel"
    assert "modprobe" in limits.refuse([of("dummy")])[0]  # told, and no reason not to try
