"""The controller's loop against a plane and a source that are made up."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.enforcer import controller as module
from harness.enforcer.cli import main, planes_but
from harness.enforcer.compiled import Compiled
from harness.enforcer.controller import Controller
from harness.enforcer.events import EventStream, NotAnEventError
from harness.enforcer.tool import ToolError


class Plane:
    """Applies nothing; refuses as often as it is told to. ``script``: what happens at each
    attempt, from the first on."""

    unsure = False

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.applied: list[Compiled] = []
        self.refuse = 0
        self.broken: list[str] = []
        self.verified = 0
        self.script: list[Callable[[], object]] = []
        self.left: list[str] = []
        self.looked = 0
        self.ear, self.mouth = os.pipe()

    def apply(self, compiled: Compiled) -> None:
        if self.script:
            self.script.pop(0)()
        if self.refuse:
            self.refuse -= 1
            raise ToolError("refused")
        self.applied.append(compiled)

    def live(self) -> list[str]:
        self.looked += 1
        if "broken" in self.left:
            raise ToolError("no answer")
        return self.left

    def clean(self) -> None:
        self.left = []

    def fileno(self) -> int:
        return self.ear

    def noticed(self) -> str:
        return self.broken.pop() if self.broken else ""

    def glance(self) -> str:
        return ""

    def verify(self) -> str:
        self.verified += 1
        self.unsure = False
        return ""

    def size(self) -> tuple[int, int]:
        return 1, 2


class Stage:
    """A controller, the lines that it reads and the answers that it gives."""

    def __init__(self) -> None:
        self.plane = Plane()
        self.others = [Plane("other"), Plane("third")]
        self.end, self.entry = os.pipe()
        self.answers = io.StringIO()
        self.log: list[tuple[str, Any]] = []
        stream = EventStream(self.end, self.answers)
        self.controller = Controller(
            "n", self.plane, stream, lambda *a: self.log.append(a), self.others
        )
        self.sent = 0

    def say(self, type_: str, thing: dict[str, Any] | None = None) -> None:
        self.sent += 1
        event = {"seq": self.sent, "type": type_, "object": thing}
        os.write(self.entry, json.dumps(event).encode() + b"\n")

    def close(self) -> None:
        os.close(self.entry)

    def run(self) -> list[dict[str, Any]]:
        """Until the input, which ends now, is worked off; the answers."""
        self.close()
        return self.run_on()

    def run_on(self) -> list[dict[str, Any]]:
        """Until somebody closes the input; the answers."""
        self.controller.run()
        return [json.loads(line) for line in self.answers.getvalue().splitlines()]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    pipes = [fd for plane in (stage.plane, *stage.others) for fd in (plane.ear, plane.mouth)]
    for fd in (stage.end, *pipes):
        os.close(fd)


def nothing() -> None: ...


def pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "x", "name": name},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
    }


def test_nothing_is_touched_before_the_list_is_complete(stage: Stage) -> None:
    stage.say("ADDED", pod("a"))
    assert stage.run() == []
    assert stage.plane.applied == []
    assert not stage.controller.ready


def test_what_waits_is_one_change_and_one_answer(stage: Stage) -> None:
    for name in "abc":
        stage.say("ADDED", pod(name))
    stage.say("SYNCED")
    (answer,) = stage.run()
    assert (answer["seq"], answer["ok"], answer["errors"]) == (4, True, [])
    (compiled,) = stage.plane.applied
    assert len(compiled.pods) == 3 - 2  # one address: the last that claimed it has it
    assert stage.controller.ready
    assert stage.controller.tally.size == (1, 2)


def test_a_refused_change_is_answered_and_tried_again_with_what_came_since(stage: Stage) -> None:
    stage.plane.refuse = 2
    stage.plane.script = [lambda: stage.say("ADDED", pod("late")), nothing, stage.close]
    stage.say("ADDED", pod("a"))
    stage.say("SYNCED")
    answers = stage.run_on()
    assert [(a["seq"], a["ok"]) for a in answers] == [(2, False), (3, False), (3, True)]
    assert answers[0]["errors"] == ["refused"]
    (compiled,) = stage.plane.applied
    assert ("x", "late") in compiled.pods
    assert stage.controller.tally.failures == 2


def test_an_object_that_cannot_be_read_does_not_stop_the_others(stage: Stage) -> None:
    broken = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"ingress": 1}}
    stage.say("ADDED", {**broken, "metadata": {"namespace": "x", "name": "p"}})
    stage.say("ADDED", pod("a"))
    stage.say("SYNCED")
    (answer,) = stage.run()
    assert not answer["ok"]
    assert "NetworkPolicy x/p" in answer["errors"][0]
    assert ("x", "a") in stage.plane.applied[0].pods


def test_what_another_data_plane_left_goes_once_ours_is_in_force(stage: Stage) -> None:
    other, third = stage.others
    other.left = third.left = ["rules"]

    def second_attempt() -> None:
        assert other.left == ["rules"], "before ours were in force"
        stage.say("ADDED", pod("a"))

    stage.plane.refuse = 1
    stage.plane.script = [nothing, second_attempt, stage.close]
    stage.say("SYNCED")
    stage.run_on()
    assert len(stage.plane.applied) == 2
    assert (other.left, third.left) == ([], [])
    assert (other.looked, third.looked) == (1, 1)
    replaced = [details["dataplane"] for what, details in stage.log if what == "replaced"]
    assert replaced == ["other", "third"]


def test_what_cannot_be_taken_away_is_told_and_stops_nothing(stage: Stage) -> None:
    other, third = stage.others
    other.left, third.left = ["broken"], ["rules"]
    stage.say("SYNCED")
    (answer,) = stage.run()
    assert answer["ok"]
    assert stage.controller.ready
    (left,) = [details for what, details in stage.log if what == "left"]
    assert (left["dataplane"], left["error"]) == ("other", "no answer")
    assert "clean --dataplane other" in left["hint"]
    assert third.left == []


def test_before_the_list_is_complete_the_kernel_is_not_listened_to(stage: Stage) -> None:
    """It would wake the loop again and again for what is not read yet."""
    os.write(stage.plane.mouth, b"!")
    waits: list[list[int]] = []
    real = module.select.select

    def select(readers: list[int], *rest: Any) -> Any:
        waits.append(readers)
        return real(readers, *rest)

    stage.say("ADDED", pod("a"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.select, "select", select)
        stage.run()
    assert waits == [[stage.end], [stage.end]]


def test_a_rule_without_meaning_is_told_once(stage: Stage) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "p"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]},
    }
    stage.say("ADDED", policy)
    stage.say("SYNCED")
    stage.plane.script = [lambda: stage.say("ADDED", pod("a")), stage.close]
    first, second = stage.run_on()
    assert not first["ok"]
    assert "NetworkPolicy x/p: ingress[0]" in first["errors"][0]
    assert second["ok"]


def test_what_others_break_is_applied_again_and_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEND", 0.001)
    stage.say("SYNCED")
    stage.plane.script = [lambda: stage.plane.broken.append("somebody"), stage.close]
    stage.run_on()
    assert stage.controller.tally.mended == 1
    assert len(stage.plane.applied) == 2
    assert ("mending", {"problem": "somebody"}) in stage.log


def test_a_plane_that_is_unsure_is_verified_soon(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERIFY_SOON", 0.001)
    monkeypatch.setattr(module, "GLANCE", 0.001)
    stage.plane.unsure = True
    stage.say("SYNCED")

    def verify() -> str:
        stage.close()
        stage.plane.unsure = False
        return ""

    monkeypatch.setattr(stage.plane, "verify", verify)
    stage.run_on()
    assert not stage.plane.unsure


@pytest.mark.parametrize("line", [b"x", b"[]", b"{}", b'{"seq": 1}'])
def test_a_line_that_is_no_event(line: bytes) -> None:
    end, entry = os.pipe()
    try:
        os.write(entry, line + b"\n")
        with pytest.raises(NotAnEventError, match="is no event"):
            EventStream(end, io.StringIO()).read()
    finally:
        os.close(end)
        os.close(entry)


def test_lines_may_come_in_pieces() -> None:
    end, entry = os.pipe()
    try:
        stream = EventStream(end, io.StringIO())
        os.write(entry, b'{"seq": 1, "type": "SYN')
        assert stream.read() == []
        os.write(entry, b'CED"}\n')
        read = stream.read()
        assert read is not None
        assert read[0].type == "SYNCED"
    finally:
        os.close(end)
        os.close(entry)


@pytest.mark.parametrize("argv", [["events"], ["events", "--node", "n", "--dataplane", "ebpf"]])
def test_usage(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [(), ("iptables",), ("ipset",)])
def test_a_data_plane_whose_tools_are_absent_has_left_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: Sequence[str]
) -> None:
    for name in installed:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = argparse.Namespace(iptables="", dataplane="nftables")
    assert list(planes_but(options, "nftables")) == []
