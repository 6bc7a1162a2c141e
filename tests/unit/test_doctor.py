"""``netpol doctor`` on machines made of stand-in programs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from harness import __main__ as cli
from harness.doctor import check, clusters, embedded, engines, show, tools
from harness.doctor.check import Check, State
from harness.labs.netns import detect


class Programs:
    """A folder of stand-in programs that is all of PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(check, "SBIN", ())
    return Programs(tmp_path)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {item.name: item for item in checks}


def test_tools_with_versions(programs: Programs) -> None:
    programs.has("kind", "echo kind v0.33.0 go1.26 linux/amd64")
    found = by_name(tools.tools())
    assert found["kind"].found == "0.33.0 (lab kind)"
    assert found["go"].state is State.ABSENT


def test_a_tool_that_cannot_run_is_not_there(programs: Programs) -> None:
    programs.has("docker", "echo 'error while loading shared libraries: libx' >&2; exit 127")
    found = by_name(tools.tools())["docker"]
    assert found.state is State.ABSENT
    assert "error while loading shared libraries" in found.found


ABILITIES = (
    *("namespaces", "veth", "bridge", "bridge-netfilter", "vxlan", "services", "ipv6", "sctp"),
    *("iptables", "iptables-legacy", "ipset", "conntrack", "dummy", "nft-queue"),
)


def machine(monkeypatch: pytest.MonkeyPatch, **lacking: str) -> dict[str, Check]:
    """The embedded lab's checks on a machine that can all but what is named (with its mend)."""
    names = [*ABILITIES, *(f"tool:{tool}" for tool in detect.TOOLS)]
    found = {
        name: detect.Ability(name, name, ok=False, reason=f"no {name}", hint=lacking[key])
        if (key := name.replace("-", "_").replace(":", "_")) in lacking
        else detect.Ability(name, name, ok=True)
        for name in names
    }
    monkeypatch.setattr(embedded, "abilities", lambda: found)
    return by_name(embedded.embedded_lab())


def test_a_machine_that_can_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {check.state for check in machine(monkeypatch).values()} == {State.YES}


def test_without_namespaces_there_is_no_embedded_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, namespaces="sysctl -w user.max_user_namespaces=10000")
    for name in ("netns", "routed", "overlay", "bridged"):
        assert found[name].state is State.NO
        assert found[name].step == "sysctl -w user.max_user_namespaces=10000"


def test_without_vxlan_two_fabrics_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, vxlan="modprobe vxlan")
    assert (found["overlay"].state, found["overlay"].step) == (State.NO, "modprobe vxlan")
    assert found["routed"].state is found["bridged"].state is State.YES
    assert (found["netns"].state, found["netns"].found) == (State.LIMITED, "without overlay")


def test_without_ipset_one_data_plane_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, tool_ipset="apt-get install ipset")
    assert found["iptables"].step == "apt-get install ipset"
    assert found["nftables"].state is State.YES


def test_an_engine_that_would_enforce_nothing_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine(monkeypatch, nft_queue="modprobe nft_queue")["nft-queue"]
    assert found.state is State.NO
    assert "kindnet" in found.found
    assert "enforce nothing" in found.found


def test_a_program_that_hangs_is_given_up(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.has("slow", "exec 1>&- 2>&-; while :; do :; done")
    monkeypatch.setattr(check, "ANSWER_SECONDS", 0.2)
    answer = check.ask(["slow"])
    assert answer.code is None
    assert "did not answer within" in answer.text


@pytest.mark.parametrize(
    ("docker", "kind", "state", "found", "step"),
    [
        ("", "", State.NO, "no container runtime answers", "install Docker, Podman or nerdctl"),
        (
            "echo 'Cannot connect to the Docker daemon'; exit 1",
            "",
            State.NO,
            "no container runtime answers",
            "start docker: Cannot connect to the Docker daemon",
        ),
        (
            "echo 'permission denied while trying to connect'; exit 1",
            "",
            State.NO,
            "no container runtime answers",
            "let this user speak to docker: usermod -aG docker me",
        ),
        ("exit 0", "", State.NO, "kind is not there", "install kind: https://kind.sigs.k8s.io"),
        (
            "exit 0",
            "echo kind v0.20.0 go1.20 linux/amd64",
            State.NO,
            "kind 0.20 with docker",
            "install kind 0.32 or newer",
        ),
        ("exit 0", "echo kind v0.33.0 go1.26 linux/amd64", None, "kind 0.33 with docker", None),
    ],
    ids=["nothing", "no daemon", "no permission", "no kind", "old kind", "all"],
)
def test_kind(
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    docker: str,
    kind: str,
    state: State | None,
    found: str,
    step: str | None,
) -> None:
    monkeypatch.setenv("USER", "me")
    for name, script in (("docker", docker), ("kind", kind)):
        if script:
            programs.has(name, script)
    lab = clusters.kind_lab()
    assert lab.found.partition(";")[0] == found
    if state is None:  # what is left are this machine's own limits
        assert lab.can or "inotify" in lab.found
    else:
        assert (lab.state, lab.step) == (state, step)


def test_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert clusters.kubeconfig_lab().state is State.NO
    (tmp_path / "config").touch()
    assert clusters.kubeconfig_lab().state is State.YES


CHECKS = [
    Check("labs", "netns", State.YES, "3 fabrics"),
    Check("labs", "kind", State.NO, "no container runtime answers", "start docker: [no] daemon"),
]


def test_the_table_shows_each_step_under_what_it_mends() -> None:
    out = io.StringIO()
    show.as_table(CHECKS, Console(file=out, width=80))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert lines[1:] == [
        "labs",
        "netns yes 3 fabrics",
        "kind no no container runtime answers",
        "-> start docker: [no] daemon",
    ]


def test_json() -> None:
    value = json.loads(show.as_json(CHECKS))
    assert value["schema"] == "netpol-doctor/1"
    assert value["checks"][1] == {
        "group": "labs",
        "name": "kind",
        "state": "no",
        "found": "no container runtime answers",
        "step": "start docker: [no] daemon",
    }


@pytest.mark.parametrize(("lab", "code"), [("netns", 0), ("kind", 1), ("kubeconfig", 1)])
def test_a_lab_that_cannot_be_used_is_a_finding(
    lab: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.doctor.examine.everything", lambda: CHECKS)
    assert cli.main(["doctor", "--json", "--lab", lab]) == code


def test_a_folder_that_is_no_engine_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = {name: detect.Ability(name, name, ok=True) for name in ABILITIES}
    monkeypatch.setattr(detect, "abilities", lambda: able)
    monkeypatch.setenv("NETPOL_ENGINES", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = tmp_path / "kube-router/bin/kube-router"
    program.parent.mkdir(parents=True)
    assert by_name(engines.engines())["kube-router"].state is State.NO
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    assert by_name(engines.engines())["kube-router"].state is State.YES
    assert by_name(engines.engines())["calico"].state is State.LIMITED
