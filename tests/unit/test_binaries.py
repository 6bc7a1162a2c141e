"""The programs of a control plane: where they are found, and which are refused and why."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
from fake_elf import AARCH64, KUBERNETES, control_plane, elf, program, put

from harness.labs.controlplane import binaries
from harness.labs.controlplane.binaries import NAMES, BinariesError, find, go_processor

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the stand-ins for real programs are x86-64 code"
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is to be found."""
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": str(tmp_path / "bin"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }


def refusal(folder: Path, version: str = "1.36") -> BinariesError:
    with pytest.raises(BinariesError) as caught:
        find(version, folder)
    return caught.value


@pytest.mark.parametrize("version", ["1.36", "v1.36", "1.36.5"])
def test_the_named_folder(tmp_path: Path, version: str) -> None:
    folder = control_plane(tmp_path / "here")
    found = find(version, folder)
    assert found.version == "1.36.5"
    assert found.found["etcd"].version == "3.6.8"
    assert {name: found[name] for name in NAMES} == {name: folder / name for name in NAMES}
    assert str(found) == f"Kubernetes 1.36.5, etcd 3.6.8 in {folder}"


def test_a_patch_release_is_of_its_minor_version_and_no_other(tmp_path: Path) -> None:
    folder = control_plane(tmp_path / "here", "1.3.61")
    assert find("1.3", folder).version == "1.3.61"
    for other in ("1.36", "1.3.6"):
        assert f"is 1.3.61, wanted is {other} " in str(refusal(folder, other))


def test_versions_with_a_suffix(tmp_path: Path) -> None:
    folder = control_plane(tmp_path / "here", "1.36.2+k3s1")
    assert find("1.36", folder).version == "1.36.2+k3s1"


@pytest.mark.parametrize(
    ("name", "content", "mode", "words", "hint"),
    [
        ("etcd", program("etcd", "3.4.23"), 0o755, "is 3.4.23, wanted is 3.5 or newer", "etcd 3.5"),
        (
            "kube-proxy",
            program("kube-proxy", "1.30.1"),
            0o755,
            "is 1.30.1, wanted is 1.36",
            "ask for version 1.30",
        ),
        (
            "kube-proxy",
            program("etcd", "3.6.8"),
            0o755,
            "does not tell the version of kube-proxy: it answered 'etcd Version: 3.6.8'",
            "put the program kube-proxy in its place",
        ),
        ("etcd", program("etcd", "3.6.8"), 0o644, "may not be run", "chmod +x "),
        ("etcd", b"#!/bin/sh\necho etcd Version: 3.6.8\n", 0o755, "no ELF header", "Linux build"),
        ("etcd", b"", 0o755, "no ELF header", "Linux build"),
        (
            "kube-scheduler",
            elf("Kubernetes v1.36.5\n", machine=AARCH64),
            0o755,
            "is for another processor: arm64, this one is amd64",
            "Linux build for this machine's processor",
        ),
        (
            "kube-scheduler",
            elf("Kubernetes v1.36.5\n", machine=8),
            0o755,
            "is for another processor: ELF machine 8,",
            "Linux build",
        ),
        # The header is whole, the rest is not: a download that broke off.
        ("kube-scheduler", elf("Kubernetes v1.36.5\n")[:40], 0o755, "cannot be run", "get it anew"),
        ("etcd", elf("no such flag\n", exits=2), 0o755, "ended with exit code 2", "get it anew"),
        ("etcd", elf("oh\n", then="crash"), 0o755, "was ended by signal 4", "get it anew"),
    ],
)
def test_a_faulty_program_is_named_with_what_mends_it(
    tmp_path: Path, name: str, content: bytes, mode: int, words: str, hint: str
) -> None:
    folder = control_plane(tmp_path / "here")
    path = put(folder, name, content, mode)
    error = refusal(folder)
    assert error.message == f"no usable {name} of Kubernetes 1.36"
    assert str(path) in error.detail
    assert words in error.detail
    assert hint in error.hint


def test_a_program_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "ANSWER_SECONDS", 0.5)
    path = put(tmp_path, "etcd", elf(then="hang"))
    with pytest.raises(BinariesError, match=r"has not answered within 0\.5 s"):
        binaries.check(path, "etcd", (1, 36))


def test_what_the_named_folder_lacks_is_not_taken_from_elsewhere(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    control_plane(Path(environ["PATH"]))
    folder = control_plane(tmp_path / "here")
    (folder / "kube-proxy").unlink()
    with pytest.raises(BinariesError) as caught:
        find("1.36", folder, environ=environ)
    assert caught.value.message == "no usable kube-proxy of Kubernetes 1.36"
    assert f"{folder}: not there (kube-proxy)" in caught.value.detail
    assert "leave --lab-api-binaries out" in caught.value.hint


@pytest.mark.parametrize("make", [Path.touch, lambda path: None], ids=["a file", "nothing"])
def test_the_named_folder_is_none(tmp_path: Path, make: object) -> None:
    folder = tmp_path / "here"
    make(folder)  # type: ignore[operator]
    error = refusal(folder)
    assert f"{folder} is no folder that can be read" in error.message
    assert "kube-apiserver" in error.hint


def test_envtest_has_two_of_them_and_the_cache_the_rest(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    assets = tmp_path / "assets"
    put(assets, "etcd", program("etcd", "3.6.4"))
    put(assets, "kube-apiserver", program("kube-apiserver", "1.36.0"))
    cache = control_plane(tmp_path / "cache" / "netpol" / "api" / "1.36.5")
    found = find(environ=environ | {"KUBEBUILDER_ASSETS": str(assets)})
    assert found["etcd"] == assets / "etcd"
    assert found.version == "1.36.0"
    assert found["kube-scheduler"] == cache / "kube-scheduler"
    assert found.found["kube-scheduler"].place.startswith("the cache")


def test_the_order_of_places(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    store = tmp_path / "data" / "kubebuilder-envtest" / "k8s"
    in_order = [
        tmp_path / "assets",
        store / f"1.36.10-linux-{go_processor()}",
        store / f"1.36.9-linux-{go_processor()}",
        tmp_path / "bin",
        tmp_path / "cache" / "netpol" / "api" / "1.36.10",
        tmp_path / "cache" / "netpol" / "api" / "1.36.9",
    ]
    for folder in in_order:
        control_plane(folder, "1.36.9")
    # Neither of another minor version, nor for another machine, nor half made.
    control_plane(store / f"1.37.0-linux-{go_processor()}")
    control_plane(store / "1.36.99-darwin-arm64")
    control_plane(tmp_path / "cache" / "netpol" / "api" / ".1.36.99.partial")
    for folder in in_order:
        found = find(environ=environ)
        assert {path.parent for path in map(found.__getitem__, NAMES)} == {folder}
        for name in NAMES:
            (folder / name).unlink()
    with pytest.raises(BinariesError):
        find(environ=environ)


def test_on_path_one_of_another_version_is_passed_over(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    put(tmp_path / "first", "etcd", program("etcd", "3.4.0"))
    put(tmp_path / "second", "etcd", program("etcd", "3.5.0"))
    for name in KUBERNETES:
        put(tmp_path / "second", name, program(name, "1.36.0"))
    environ["PATH"] = f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}"
    assert find(environ=environ)["etcd"] == tmp_path / "second" / "etcd"


def test_a_cache_in_the_home_folder(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["XDG_CACHE_HOME"] = "relative/is/ignored"
    folder = control_plane(tmp_path / "home" / ".cache" / "netpol" / "api" / "1.36.5")
    assert find(environ=environ)["etcd"] == folder / "etcd"


def test_nothing_anywhere_tells_every_place_and_one_step(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    put(tmp_path / "bin", "kube-proxy", program("kube-proxy", "1.30.1"))
    with pytest.raises(BinariesError) as caught:
        find(environ=environ)
    assert caught.value.message == f"no usable {', '.join(NAMES)} of Kubernetes 1.36"
    assert caught.value.hint == (
        "`netpol api fetch --version 1.36` downloads them; `make api-binaries` in a checkout "
        "builds them"
    )
    assert caught.value.detail.splitlines() == [
        "  looked in:",
        "  KUBEBUILDER_ASSETS: not set (all five)",
        f"  setup-envtest's store ({tmp_path}/data/kubebuilder-envtest/k8s): "
        "no folder for 1.36-linux-amd64 (all five)",
        "  PATH: not there (etcd, kube-apiserver, kube-controller-manager, kube-scheduler)",
        f"  the cache ({tmp_path}/cache/netpol/api): no folder for 1.36 (all five)",
        f"  PATH: {tmp_path}/bin/kube-proxy is 1.30.1, wanted is 1.36 (kube-proxy)",
    ]


def test_folders_that_may_not_be_entered(tmp_path: Path, environ: dict[str, str]) -> None:
    locked = tmp_path / "locked"
    for folder in ("bin", "cache/netpol/api/1.36.5", "assets"):
        control_plane(locked / folder)
    environ |= {
        "PATH": str(locked / "bin"),
        "XDG_CACHE_HOME": str(locked / "cache"),
        "KUBEBUILDER_ASSETS": str(locked / "assets"),
    }
    assert find(environ=environ).version == "1.36.5"
    locked.chmod(0)
    try:
        if os.getuid() == 0:
            os.seteuid(65534)  # permissions do not stop root
        with pytest.raises(BinariesError, match="no usable etcd"):
            find(environ=environ)
        with pytest.raises(BinariesError, match="is no folder that can be read"):
            find("1.36", locked / "bin")
    finally:
        os.seteuid(os.getuid())
        locked.chmod(0o755)


@pytest.mark.parametrize("text", ["", "1", "latest", "1.36.x", "1.36.5.1", "../1.36", "1.36\n"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(BinariesError, match="is no version of Kubernetes"):
        find(text)
