"""The first process of the harness's pods, as shells run it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.labs.cluster import objects

SHELLS = [shell for shell in (["busybox", "sh"], ["dash"]) if shutil.which(shell[0])]


@contextmanager
def first(shell: list[str], text: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The shell runs the text, with a folder for the container's /tmp; it waits at its FIFO."""
    (folder / "bin").mkdir()
    nginx = folder / "bin" / "nginx"
    nginx.write_text(f"#!/bin/sh\necho $$ > {folder}/pid.part\nmv {folder}/pid.part {folder}/pid\n")
    nginx.write_text(nginx.read_text() + "exec sleep 60\n")
    nginx.chmod(0o755)
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin", "NETPOL_CONFIG": "", "NETPOL_PAGE": ""}
    words = [shutil.which(shell[0]) or "", *shell[1:], "-c", text.replace("/tmp", str(folder))]
    process = subprocess.Popen(words, env=env)
    try:
        until((folder / ("pid" if "nginx" in text else "end")).exists)
        until(lambda: state(process.pid) == "S")
        yield process
    finally:
        if (folder / "pid").exists():
            subprocess.run(["kill", (folder / "pid").read_text().strip()], check=False)
        process.kill()
        process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("text", [objects._IDLE, objects._serve(objects.Images(), ())])
def test_a_process_that_ends_does_not_end_the_pod(
    shell: list[str], text: str, tmp_path: Path
) -> None:
    """What is left behind in a container is the first process's: it hears of its end."""
    with first(shell, text, tmp_path) as process:
        for _ in range(3):
            process.send_signal(signal.SIGCHLD)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
        (tmp_path / "end").write_text("3\n")
        assert process.wait(20) == 3


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_end_of_the_server_ends_the_pod(shell: list[str], tmp_path: Path) -> None:
    with first(shell, objects._serve(objects.Images(), ()), tmp_path) as process:
        subprocess.run(["kill", "-9", (tmp_path / "pid").read_text().strip()], check=True)
        assert process.wait(20) == 1


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("text", [objects._IDLE, objects._serve(objects.Images(), ())])
def test_a_pod_ends_at_once_when_it_is_asked_to(
    shell: list[str], text: str, tmp_path: Path
) -> None:
    with first(shell, text, tmp_path) as process:
        process.terminate()
        assert process.wait(20) == 0
