"""``netpol`` itself: its help, how errors are told, exit codes, completion."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from harness import __main__ as cli
from harness.labs.base import LabError


def netpol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command() -> None:
    done = netpol("--help")
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert f"  {name}" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.__main__ import build_parser; build_parser([]).format_help();"
        "print(sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for heavy in ("kubernetes", "jinja2", "pytest", "rich", "yaml", "shtab", "jsonschema"):
        assert f"'{heavy}'" not in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"usage: netpol {name}")


def test_the_table_says_what_the_modules_say() -> None:
    """The help lines in the table are there so that the modules need not be imported."""
    light = cli.build_parser([]).format_help()
    assert cli.build_parser(list(cli.COMMANDS)).format_help() == light


def test_the_control_plane_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["api", "find", "--dir", str(tmp_path / "nowhere")]) == cli.USAGE
    assert "hint:" in capsys.readouterr().err


def test_files_may_come_after_options() -> None:
    """argparse alone would refuse the last one."""
    parser = cli.build_parser(["explain"])
    words = ["explain", "a", "b", "x.yaml", "--json", "y.yaml"]
    assert cli.parse(parser, words).manifests == ["x.yaml", "y.yaml"]
    with pytest.raises(SystemExit):
        cli.parse(parser, [*words, "--no-such-option"])


def test_no_command_is_wrong_usage() -> None:
    done = netpol()
    assert done.returncode == cli.USAGE
    assert "COMMAND" in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LabError("no lab", hint="make one"), "netpol: no lab\n  hint: make one\n"),
        (FileNotFoundError(2, "No such file or directory", "x.yaml"), "netpol: x.yaml: No such"),
    ],
    ids=["ours", "file"],
)
def test_errors_are_told_and_are_no_traceback(
    error: Exception,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("harness.doctor.run", fail)
    assert cli.main(["doctor"]) == cli.USAGE
    assert capsys.readouterr().err.startswith(told)


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("harness.doctor.run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str) -> None:
    done = netpol("completion", shell)
    assert done.returncode == 0
    assert "doctor" in done.stdout
    if shell == "bash":
        assert "_shtab_netpol_lab_up___dataplane_choices=(iptables nftables)" in done.stdout
        assert "_shtab_netpol_explain_pos_2_COMPGEN=_shtab_compgen_files" in done.stdout
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True, timeout=60)


def test_a_reader_that_leaves_is_no_error() -> None:
    shell = f"set -o pipefail; {sys.executable} -m harness completion bash | head -1"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_broken_pipe_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("harness.doctor.run", fail)
    assert cli.main(["doctor"]) == cli.USAGE
    print("still read")
    out, err = capfd.readouterr()
    assert (out, err) == ("still read\n", "netpol: [Errno 32] Broken pipe\n")
