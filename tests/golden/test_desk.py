"""What the tools at the desk print, to the letter: results, errors and exit codes.

Each file of ``tests/golden/desk/*.out`` begins with the command that it is the output of, run in
that folder. ``GOLDEN=write pytest tests/golden`` writes them anew; read the change before you
commit it. The pages of the documentation show these very files.
"""

from __future__ import annotations

import io
import os
import shlex
from pathlib import Path

import pytest

from harness import __main__ as cli

FOLDER = Path(__file__).parent / "desk"
CASES = sorted(FOLDER.glob("*.out"))


def transcript(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    """The command's line, what it prints, what it says on standard error, and its exit code."""
    words, _, stdin = command.partition(" < ")
    monkeypatch.chdir(FOLDER)
    text = (FOLDER / stdin).read_bytes() if stdin else b""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    program, *argv = shlex.split(words)
    assert program == "netpol"
    try:
        code = cli.main(argv)
    except SystemExit as stop:
        code = int(str(stop.code))
    out, err = capfd.readouterr()
    parts = [f"$ {command}\n", out]
    if err:
        parts += ["--- stderr\n", err]
    if code:
        parts.append(f"--- exit code {code}\n")
    return "".join(parts)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_output(
    case: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    expected = case.read_text(encoding="utf-8")
    command = expected.partition("\n")[0].removeprefix("$ ")
    got = transcript(command, monkeypatch, capfd)
    if os.environ.get("GOLDEN") == "write":
        case.write_text(got, encoding="utf-8")
    assert got == expected


def test_there_are_cases() -> None:
    commands = {case.read_text(encoding="utf-8").split()[2] for case in CASES}
    assert commands >= {"explain", "matrix", "check", "diff", "lint"}
