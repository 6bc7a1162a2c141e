"""Policy engines in the nodes: what they are told, when pods come up, what becomes of faults."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.labs.base import LabError
from harness.labs.netns import engine as engines
from harness.labs.netns.lab import NetnsLab
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply, Delete, Finish, Relabel
from harness.model.policy import NetworkPolicy
from harness.model.world import Namespace, Phase, Pod, Service, ServicePort
from tests.netns.asking import address, ask

PROGRAM = str(Path(__file__).with_name("engines.py"))
StartLab = Callable[..., NetnsLab]


@pytest.fixture
def start(make_lab: Any, tmp_path: Path) -> StartLab:
    def start(fault: str = "none", **options: Any) -> NetnsLab:
        argv = [sys.executable, "-S", PROGRAM, f"{tmp_path}/{{node}}.jsonl", fault]
        lab: NetnsLab = make_lab(engine=argv, **options)
        lab.apply([Apply(Namespace("e"))])
        return lab

    return start


def told(directory: Path, node: str = "worker") -> list[tuple[str, str, str]]:
    """(type, kind, name) of the events that a node's engine has read."""
    lines = (directory / f"{node}.jsonl").read_text().splitlines()
    found = []
    for event in map(json.loads, lines):
        thing = event.get("object", {})
        found.append(
            (event["type"], thing.get("kind", ""), thing.get("metadata", {}).get("name", ""))
        )
    return found


def test_every_node_gets_the_initial_list_and_then_each_change(
    start: StartLab, tmp_path: Path
) -> None:
    lab = start()
    lab.apply([Apply(Pod("e", "p", {"a": "b"})), Apply(NetworkPolicy("e", "deny"))])
    lab.apply([Relabel("Pod", "e", "p", {"a": None}), Relabel("Namespace", "", "e", {"t": "1"})])
    lab.apply(
        [Apply(Service("e", "s", {}, (ServicePort(80, 80),))), Finish("e", "p", Phase.FAILED)]
    )
    lab.apply([Delete("Namespace", "", "e")])
    lab.wait_for_engines(lab.node_names)
    for node in lab.node_names:
        events = told(tmp_path, node)
        synced = events.index(("SYNCED", "", ""))
        assert {kind for _, kind, _ in events[:synced]} == {"Namespace", "Node"}
        assert events[-11:] == [
            ("ADDED", "Namespace", "e"),
            ("ADDED", "Pod", "p"),
            ("ADDED", "NetworkPolicy", "deny"),
            ("MODIFIED", "Pod", "p"),
            ("MODIFIED", "Namespace", "e"),
            ("ADDED", "Service", "s"),
            ("MODIFIED", "Pod", "p"),
            ("DELETED", "Pod", "p"),
            ("DELETED", "Service", "s"),
            ("DELETED", "NetworkPolicy", "deny"),
            ("DELETED", "Namespace", "e"),
        ]


def test_events_are_kubernetes_objects(start: StartLab, tmp_path: Path) -> None:
    lab = start()
    lab.apply([Apply(Pod("e", "p", {"a": "b"}))])
    ips = lab.world.pods["e", "p"].ips
    lab.apply([Finish("e", "p")])
    lab.wait_for_engines(lab.node_names)
    pods = [
        event["object"]
        for event in map(json.loads, (tmp_path / "worker.jsonl").read_text().splitlines())
        if event.get("object", {}).get("metadata", {}).get("name") == "p"
    ]
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Succeeded"]
    for pod in pods:  # the API goes on showing the address that a finished pod had
        assert pod["status"]["podIPs"] == [{"ip": ip} for ip in ips]
        assert pod["spec"]["nodeName"] == lab.world.pods["e", "p"].node
        assert pod["metadata"]["uid"]


def test_no_packet_reaches_a_pod_before_its_nodes_engine_has_it(
    start: StartLab, tmp_path: Path
) -> None:
    lab = start("slow")
    stop = threading.Event()
    seen: list[float] = []
    ip = str(lab.world.nodes["worker2"].pod_cidrs[0]).replace(".0/24", ".77")

    def knock() -> None:
        while not stop.is_set():
            sent = time.monotonic()
            if ask(lab, "node:control-plane", ip, seconds=0.2).ok:
                seen.append(sent)
                return

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        lab.apply([Apply(Pod("e", "late", node="worker2", ips=(ip,)))])
        up = time.monotonic()
        thread.join(10)
    finally:
        stop.set()
        thread.join()
    lines = (tmp_path / "worker2.jsonl").read_text().splitlines()
    read = next(e["at"] for e in map(json.loads, lines) if "late" in json.dumps(e))
    assert up - read >= 0.5
    assert seen, "the pod was never reached"
    # wget waits 0.2 s at most, so a probe that came through was sent no earlier than that before.
    assert seen[0] >= read + 0.5 - 0.2


def test_the_engine_of_another_node_is_not_waited_for(start: StartLab) -> None:
    lab = start("slow")
    for node, slow in (("worker", True), ("worker2", True)):
        begun = time.monotonic()
        lab.apply([Apply(Pod("e", f"p-{node}", node=node))])
        assert (time.monotonic() - begun >= 0.5) is slow
    begun = lab.apply([Apply(NetworkPolicy("e", "deny"))])
    assert time.monotonic() - begun < 0.5  # policies are not waited for


def test_an_engine_that_reports_errors(start: StartLab) -> None:
    lab = start("stubborn")
    with pytest.raises(LabError, match="engine on worker reports errors: the kernel said no"):
        lab.apply([Apply(Pod("e", "p", node="worker"))])
    assert not ask(lab, "node:worker2", address(lab, "e/p"), seconds=0.5).ok


def test_an_engine_that_never_answers(start: StartLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = start("mute")
    monkeypatch.setattr(engines, "ACKNOWLEDGE_SECONDS", 0.3)
    with pytest.raises(LabError, match=r"engine on worker has not answered for 0\.3 s"):
        lab.apply([Apply(Pod("e", "p", node="worker"))])
    # Nor does it read: in the end its pipe is full.
    with pytest.raises(LabError, match="does not read its events"):
        lab.apply([Apply(NetworkPolicy("e", f"deny-{n}")) for n in range(2000)])


def test_an_engine_that_ends_is_noticed_and_can_be_started_again(
    start: StartLab, tmp_path: Path
) -> None:
    lab = start("exits")
    lab.apply([Apply(NetworkPolicy("e", "deny"))])
    assert [engine.process.wait(20) for engine in lab.engines.values()] == [5, 5, 5]
    assert lab.facts()["engines_ended"] == ["control-plane", "worker", "worker2"]
    with pytest.raises(LabError, match=r"engine on \S+ has ended") as caught:
        lab.apply([Apply(NetworkPolicy("e", "more"))])
    assert "no more of this" in caught.value.detail
    for log in tmp_path.glob("*.jsonl"):
        log.unlink()
    lab.world = lab.world.with_(policies={})
    lab.start_engine("worker").wait()
    assert ("SYNCED", "", "") in told(tmp_path)
    assert lab.engines["worker"].alive


def test_an_engine_that_babbles(start: StartLab) -> None:
    lab = start("babbles")
    with pytest.raises(LabError, match="says b'ready!"):
        lab.apply([Apply(Pod("e", "p", node="worker"))])


def test_an_engine_that_is_not_there(make_lab: Any) -> None:
    with pytest.raises(LabError, match=r"engine on \S+ has ended") as caught:
        make_lab(engine=["/no/such/engine", "{node}"])
    assert "No such file" in caught.value.detail


def test_a_foreign_engine_is_started_and_not_told(make_lab: Any, tmp_path: Path) -> None:
    script = f"echo {{node}} {{other}} $HOW > {tmp_path}/{{node}}; exec sleep 1000"
    lab = make_lab(
        engine=["sh", "-c", script], engine_env={"HOW": "foreign"}, protocol=False, families=(4,)
    )
    lab.apply([Apply(Namespace("e")), Apply(Pod("e", "p"))])
    assert ask(lab, "node:worker", address(lab, "e/p")).name == "e/p"
    deadline = time.monotonic() + 10
    while not (tmp_path / "worker2").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "worker2").read_text() == "worker2 {other} foreign\n"


def test_an_engine_works_in_its_nodes_namespaces(make_lab: Any) -> None:
    """Rules that it makes are the node's alone, and the machine's own stay as they are."""
    host = _host_rules()
    lab = make_lab(
        engine=["sh", "-c", "nft add table inet of-{node}; exec sleep 1000"], protocol=False
    )
    deadline = time.monotonic() + 10
    tables = ""
    while "of-worker2" not in tables and time.monotonic() < deadline:
        tables = lab.topology.run(node_box("worker2"), ["nft", "list", "tables"]).out
    assert "of-worker2" in tables
    assert "of-worker\n" not in tables
    assert _host_rules() == host


def _host_rules() -> str:
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    return done.stdout
