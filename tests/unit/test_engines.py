"""Engines as data, and where they come from: what is taken, and what is told of what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.cnis import catalogue
from harness.cnis.cni import CniError
from harness.cnis.engine import ApiEngine, Program
from harness.engines import choose, found, make, releases, store
from harness.engines.found import EngineError
from harness.engines.images import ImageError
from harness.labs.base import LabError
from harness.labs.netns.detect import Ability
from harness.run.bisect import BisectError, narrow

ENTRY = """\
title = "Mine"
network = "routed"
labs = ["netns"]
enforces = true
deny = "drop"

[api_engine]
account = "kube-system/mine"
programs = [{ path = "usr/bin/mine", argv = ["{program}", "--node={node}"] }, { path = "bin/old" }]
"""
FOREIGN = ("calico", "canal", "kindnet", "kube-network-policies", "kube-router", "weave")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(choose.VARIABLE, raising=False)


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


# -- the form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("argv = 'x'", "argv is a list, and here it is 'x'"),
        ("argv = [1]", "argv is a list of a text"),
        ("restarts = '3'", "restarts is a number"),
        ("probe = 1", "probe is true or false"),
        ("env = {A = 1}", "env is a table of a text"),
        ("argvs = ['x']", "unknown key 'argvs', meant argv?"),
        ("argv = ['x']", "either argv or programs"),
        ("fabric = 'ring'", "no fabric 'ring'"),
        ("stop = 'HUP'", "stop is one of TERM, INT, QUIT, KILL"),
        ("links = {bridges = 'x'}", "links are some of"),
        ("files = {'etc/x' = ''}", "absolute paths"),
        ("dataplanes = {ebpf = {}}", "dataplanes: iptables or nftables"),
        ("dataplanes = {iptables = {envs = {}}}", "api_engine.dataplanes.iptables: unknown key"),
        ("needs = {kernel = 'x'}", "kernel is a list"),
        ("looks = 3", "looks is no list of tables"),
        ("like = 'nobody'", "like names 'nobody'"),
    ],
)
def test_a_wrong_entry_is_told_with_its_key(change: str, told: str) -> None:
    with pytest.raises(CniError) as caught:
        catalogue.parse("mine", f"{ENTRY}{change}\n")
    assert told in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_an_engines_own_file_is_laid_over_the_entry() -> None:
    changes = 'version = "9.9.9"\n[api_engine]\nready_seconds = 5\n[api_engine.env]\nMORE = "1"\n'
    cni = catalogue.get("calico", changes)
    assert cni.version == "9.9.9"
    assert cni.api_engine is not None
    assert cni.api_engine.ready_seconds == 5
    assert cni.api_engine.env["MORE"] == "1"
    assert cni.api_engine.env["FELIX_DATASTORETYPE"] == "kubernetes"


def test_canal_is_calicos_engine_on_another_network() -> None:
    canal, calico = catalogue.get("canal"), catalogue.get("calico")
    assert canal.api_engine is not None
    assert calico.api_engine is not None
    assert canal.api_engine.programs == calico.api_engine.programs
    assert (canal.fabric, make.fabric_of(canal, "overlay").pods) == ("overlay", "veth")
    with pytest.raises(LabError, match="runs on fabric overlay, not on routed"):
        make.fabric_of(canal, "routed")


def test_weave_names_its_bridge_and_port() -> None:
    fabric = make.fabric_of(catalogue.get("weave"), "bridged")
    assert (fabric.bridge, fabric.uplink) == ("weave", "vethwe-bridge")


@pytest.mark.parametrize("name", FOREIGN)
def test_every_foreign_entry_can_be_made(name: str, tmp_path: Path) -> None:
    """Nothing is left to be filled in that the lab does not know."""
    cni = catalogue.get(name)
    data = cni.api_engine
    assert data is not None
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    for one in data.programs:
        here = found.Found(
            f"/{one.path}", one.argv, "test", "sha256:0", crds=({**crd, "metadata": {}},)
        )
        for plane in data.dataplanes or ("iptables",):
            engine = make.engine(cni, here, plane)
            assert engine is not None
            text = json.dumps([engine.argv, engine.env, engine.files, engine.setup, engine.objects])
            assert f"/{one.path}" in engine.argv or one.path in text
            for word in ("{program}", "{python}", "{version}", "{multiarch}"):
                assert word not in text
            kinds = [one["kind"] for one in engine.objects]
            assert kinds.index("ServiceAccount") < kinds.index("ClusterRoleBinding")


def test_calico_is_told_its_back_end() -> None:
    calico = catalogue.get("calico")
    assert make.plane_of(calico, "iptables").env["FELIX_NFTABLESMODE"] == "Disabled"
    assert make.plane_of(calico, "nftables").env["FELIX_NFTABLESMODE"] == "Enabled"
    with pytest.raises(LabError) as caught:
        make.plane_of(catalogue.get("weave"), "nftables")
    assert "no data plane nftables: it has iptables" in caught.value.message
    assert caught.value.hint == "--lab-dataplane iptables"


def test_what_the_machine_lacks_is_told_before() -> None:
    lack = Ability("nft-queue", "queues", False, "no such thing", "as root: modprobe nft_queue")
    fine = {name: Ability(name, name, True) for name in ("services", "overlay")}
    cni = catalogue.get("kindnet")
    found_ = make.lacking(cni, "iptables", {**fine, "nft-queue": lack}, own_tools=False)
    assert [(e.message, e.hint) for e in found_] == [
        ("the policy engine of kindnet needs queues: no such thing", "as root: modprobe nft_queue")
    ]


# -- where it is from ------------------------------------------------------------------------


def wanted(**values: Any) -> choose.Wanted:
    return choose.Wanted("mine", ENTRY, **values)


def test_a_program_by_its_name(tmp_path: Path) -> None:
    _, here = choose.choose(wanted(engine=program(tmp_path / "old-2.0")))
    assert here is not None
    assert (here.program, here.argv) == (str(tmp_path / "old-2.0"), ("{program}",))
    assert here.digest.startswith("sha256:")
    assert here.version == ""


def test_a_directory_with_its_own_settings(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "mine")
    (tmp_path / "engine.toml").write_text('version = "1.5"\n[api_engine]\nrestarts = 1\n')
    cni, here = choose.choose(wanted(engine=tmp_path))
    assert here is not None
    assert (cni.version, here.version) == ("1.5", "1.5")
    assert cni.api_engine is not None
    assert cni.api_engine.restarts == 1


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda d: d / "nothing", "there is no such file or directory"),
        (lambda d: d, "neither rootfs/ nor an executable bin/mine or old"),
        (lambda d: (program(d / "x").chmod(0o644), d / "x")[1], "no file that may be executed"),
    ],
)
def test_what_is_no_engine(tmp_path: Path, prepare: Any, told: str) -> None:
    with pytest.raises(EngineError, match=told):
        choose.choose(wanted(engine=prepare(tmp_path)))


def test_none_here_is_told_with_the_step_that_gets_one() -> None:
    with pytest.raises(EngineError) as caught:
        choose.choose(choose.Wanted("calico"))
    assert caught.value.message == "there is no policy engine of Calico here"
    assert caught.value.hint.startswith("`netpol engine fetch calico` gets it out of its image")
    assert "--lab-engine PATH" in caught.value.hint
    with pytest.raises(EngineError, match="has no engine that could be brought"):
        choose.choose(choose.Wanted("flannel", engine=Path("/")))


def test_no_archives(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no directory with archives"):
        choose.choose(choose.Wanted("calico", images=tmp_path))
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(ImageError, match=r"a\.tar is no image archive"):
        choose.choose(choose.Wanted("calico", images=tmp_path))


def test_a_directory_of_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "kube-router" / "bin" / "kube-router")
    monkeypatch.setenv(choose.VARIABLE, str(tmp_path))
    cni, here = choose.choose(
        choose.Wanted("kube-router"), environ={choose.VARIABLE: str(tmp_path)}
    )
    assert here is not None
    assert here.program.endswith("bin/kube-router")
    assert cni.version == "", "nobody has said which release this is"


def test_crds_have_to_be_there(tmp_path: Path) -> None:
    felix = program(tmp_path / "bin" / "calico-node")
    cni, here = choose.choose(choose.Wanted("calico", engine=tmp_path))
    with pytest.raises(EngineError, match="there is no crds/ with them beside it"):
        make.engine(cni, here, "iptables")
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "a.yaml").write_text(
        "kind: CustomResourceDefinition\nmetadata: {name: a}\nstatus: {x: 1}\n---\nkind: Other\n"
    )
    for place in (tmp_path, felix):
        _, here = choose.choose(choose.Wanted("calico", engine=place))
        assert here is not None
        assert here.crds == ({"kind": "CustomResourceDefinition", "metadata": {"name": "a"}},)
        assert here.argv == ("{program}", "-felix")
    (tmp_path / "crds" / "b.yaml").write_text("{")
    with pytest.raises(EngineError, match=r"b\.yaml cannot be read as YAML"):
        choose.choose(choose.Wanted("calico", engine=tmp_path))


def test_objects_of_kinds_that_a_release_is_too_old_for_are_left_out() -> None:
    def crd(kind: str) -> dict[str, object]:
        return {"spec": {"group": "crd.projectcalico.org", "names": {"kind": kind}}}

    def made(*kinds: str) -> list[str]:
        felix = found.Found("/felix", (), "test", "sha256:0", crds=tuple(map(crd, kinds)))
        engine = make.engine(catalogue.get("calico"), felix, "iptables")
        assert engine is not None
        return [
            one["kind"] for one in engine.objects if "projectcalico" in one.get("apiVersion", "")
        ]

    assert made("ClusterInformation") == ["ClusterInformation"]
    assert made("ClusterInformation", "Tier") == ["ClusterInformation", "Tier", "Tier", "Tier"]


def test_the_list_says_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = program(tmp_path / "weave" / "bin" / "weave-npc").parents[1]
    monkeypatch.setenv(choose.VARIABLE, str(tmp_path))
    assert main(["engine", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(FOREIGN)
    assert lines[-1].endswith(f"in {place}")
    assert "none here (netpol engine fetch calico)" in lines[0]


def test_no_image_no_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(ENTRY)
    assert main(["engine", "fetch", str(file), "--version", "1.0.0"]) == 2
    assert "the entry of Mine names no image" in capsys.readouterr().err
    assert store.home() == tmp_path / "cache" / "netpol" / "engines"


# -- releases --------------------------------------------------------------------------------

TAGS = ["v3.28.0", "v3.28.5", "v3.9.1", "v3.29.0-rc1", "master", "v3.32.1", "v3.30.0", "3.31.0"]


def test_releases_among_tags() -> None:
    engine = ApiEngine("a/b", programs=(Program("x"),), image="i", tag="v{version}")
    known = releases.versions_among(engine, TAGS)
    assert known == ["3.9.1", "3.28.0", "3.28.5", "3.30.0", "3.32.1"]
    assert releases.exact("3.28", known, "i") == "3.28.5"
    assert releases.exact("v3.28.0", known, "i") == "3.28.0"
    assert releases.between("3.28.5", "3.32.1", known) == ["3.28.5", "3.30.0", "3.32.1"]
    assert releases.between("3.32.1", "3.28.5", known) == ["3.32.1", "3.30.0", "3.28.5"]
    with pytest.raises(ImageError, match=r"i has no release 3\.2"):
        releases.exact("3.2", known, "i")


@pytest.mark.parametrize("first_bad", range(1, 9))
def test_bisecting(first_bad: int) -> None:
    versions = [f"1.0.{n}" for n in range(9)]
    asked: list[str] = []

    def good(version: str) -> bool:
        asked.append(version)
        return versions.index(version) < first_bad

    assert narrow(versions, good) == (versions[first_bad - 1], versions[first_bad])
    assert len(asked) == len(set(asked)) <= 5


def test_bisecting_where_there_is_nothing_to_find() -> None:
    with pytest.raises(BisectError, match="is bad already"):
        narrow(["1", "2"], lambda _: False)
    with pytest.raises(BisectError, match="is good: nothing"):
        narrow(["1", "2"], lambda _: True)
    with pytest.raises(BisectError, match="one and the same"):
        narrow(["1"], lambda _: True)
