"""What ``netpol lab`` and ``try`` print, to the letter but for times: the documentation shows it.

Each file of ``tests/golden/play/*.out`` is a session: lines that begin with ``$`` are commands, run
in ``tests/golden/desk`` with a state folder of their own. ``GOLDEN=write`` writes them anew.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from harness import __main__ as cli

pytestmark = pytest.mark.timeout(180)

GOLDEN = Path(__file__).parents[1] / "golden"
SESSIONS = sorted((GOLDEN / "play").glob("*.out"))
#: What differs from run to run: times, how often was asked, whom a Service leads to, source ports.
VARIES = (
    (re.compile(r"\d+\.\d+ s\b"), "0.00 s"),
    (re.compile(r"\d+ min\b"), "0 min"),
    (re.compile(r"\b\d+ times"), "2 times"),
    (re.compile(r"(timeout|name-failure) 2 times, "), ""),
    (re.compile(r"(answered by|-) np-demo/nginx-\d( 10\.244\.\d\.\d)?"), r"\1 one of them"),
    (re.compile(r"( 10\.244\.\d\.\d) \d{5}\b"), r"\1 40000"),
    (re.compile(r"(by service-\w+ +undefined +)\S+"), r"\1anything"),
)


def masked(text: str) -> str:
    for pattern, instead in VARIES:
        text = pattern.sub(instead, text)
    return text


def test_there_are_sessions() -> None:
    assert {session.stem for session in SESSIONS} >= {"lab", "mistakes", "try"}


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.stem)
def test_session(
    session: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = str(tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.chdir(GOLDEN / "desk")
    expected = session.read_text(encoding="utf-8")
    got = []
    try:
        for line in expected.splitlines():
            if not line.startswith("$ "):
                continue
            _, *words = shlex.split(line.removeprefix("$ "))
            code = cli.main(words)
            out, err = capfd.readouterr()
            got += [f"{line}\n", out, err]
            if code:
                got.append(f"--- exit code {code}\n")
    finally:
        cli.main(["clean", "--all"])
    text = "".join(got).replace(state, "/home/you/.local/state")
    if os.environ.get("GOLDEN") == "write":
        session.write_text(text, encoding="utf-8")
    assert masked(text) == masked(expected)
