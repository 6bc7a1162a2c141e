"""tools/setup looks before it changes anything, and says what it would need.

The script runs for real in a copied skeleton of a checkout, with a PATH on which all that
would change a machine (tools/debian-install, sudo) only writes down how it was called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["bash", "cat", "cut", "dirname", "env", "flock", "mkdir", "rm", "sed", "sha256sum"]


class Machine:
    """A machine with few commands: what is not put on it is not there."""

    def __init__(self, home: Path) -> None:
        self.bin = home / "bin"
        self.checkout = home / "checkout"
        self.log = home / "calls"
        self.bin.mkdir(parents=True)
        (self.checkout / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/setup", self.checkout / "tools/setup")
        installer = self.checkout / "tools/debian-install"
        installer.write_text(f'#!/bin/bash\necho "debian-install $*" >>{self.log}; exit 9\n')
        installer.chmod(0o755)
        for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
            (self.checkout / name).write_text("", encoding="utf-8")
        self.wants("packages.debian", "")
        self.wants("packages-test.debian", "")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.user(0)

    def wants(self, listing: str, text: str) -> None:
        (self.checkout / listing).write_text(text, encoding="utf-8")

    def has(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def user(self, uid: int) -> None:
        self.has("id", f'[ "$1" = -u ] && echo {uid} || echo somebody')

    def debian(self, *packages: str) -> None:
        known = "|".join(packages) or "-"
        self.has("dpkg-query", f"case ${{!#}} in {known}) echo -n installed;; *) exit 1;; esac")

    def python(self, version: str = "3.11", *, venv: bool = True) -> None:
        """A Python that can say who it is; its venv module does nothing but be called."""
        lacks = "" if venv else '[[ "$2" == *ensurepip* ]] && exit 1'
        self.has(
            f"python{version}",
            f'if [ "$1" = -c ]; then {lacks or ":"}; exec {sys.executable} "$@"; fi\n'
            f'echo "python{version} $*" >>{self.log}; exit 8',
        )

    def setup(self, kind: str = "run", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "tools/setup", kind],
            env={"PATH": str(self.bin), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_ordinary_user_is_told_the_one_command_and_nothing_is_done(machine: Machine) -> None:
    machine.wants("packages.debian", "# why\nnginx-light # servers\nbusybox|toybox\nipset\n")
    machine.debian("ipset")
    machine.python()
    machine.user(1000)
    done = machine.setup()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "setup: Debian packages are missing: nginx-light busybox",
        "setup: nothing was changed; run this once as root:",
        "setup:   apt-get update && apt-get install -y --no-install-recommends nginx-light busybox",
    ]
    assert machine.calls == ""
    assert not (machine.checkout / ".venv").exists()


def test_an_alternative_that_is_there_will_do(machine: Machine) -> None:
    machine.wants("packages.debian", "busybox|toybox\n")
    machine.debian("toybox")
    machine.user(1000)
    done = machine.setup()
    assert "no Python >= 3.11 works here" in done.stderr
    assert "missing" not in done.stderr


def test_packages_of_the_tests_are_asked_for_by_dev_alone(machine: Machine) -> None:
    machine.wants("packages-test.debian", "chromium\n")
    machine.debian()
    machine.python()
    machine.user(1000)
    assert "chromium" in machine.setup("dev").stderr
    assert "chromium" not in machine.setup("run").stderr


@pytest.mark.parametrize("uid", [0, 1000], ids=["root", "sudo"])
def test_what_is_missing_is_installed_where_that_is_possible(machine: Machine, uid: int) -> None:
    machine.wants("packages.debian", "busybox\n")
    machine.debian()
    machine.python()
    machine.user(uid)
    machine.has("sudo", f'echo "sudo $*" >>{machine.log}; [ "$1" = -n ] || exit 1; shift; "$@"')
    done = machine.setup()
    assert done.returncode == 9, "the installer's own failure ends the set-up"
    assert "debian-install busybox" in machine.calls
    assert ("sudo" in machine.calls) == (uid != 0)
    assert not (machine.checkout / ".venv").exists()


def test_the_newest_python_that_can_make_environments_is_taken(machine: Machine) -> None:
    machine.debian()
    machine.python("3.13", venv=False)
    machine.python("3.12")
    machine.python("3.11")
    done = machine.setup()
    assert "Python packages from requirements.lock into .venv" in done.stdout
    assert machine.calls.splitlines()[-1] == "python3.12 -m venv --clear .venv"


def test_a_debian_python_without_venv_needs_a_package(machine: Machine) -> None:
    machine.debian()
    machine.python(venv=False)
    machine.user(1000)
    package = f"python3.{sys.version_info[1]}-venv"
    assert f"Debian packages are missing: {package}" in machine.setup().stderr


def test_no_python_says_what_was_tried(machine: Machine) -> None:
    machine.debian()
    done = machine.setup(PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert "no Python >= 3.11 works here (tried: /nowhere/python)" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_checkout_of_somebody_else_is_left_alone(machine: Machine) -> None:
    machine.checkout.chmod(0o555)
    assert "is not yours to write to" in machine.setup().stderr


def test_usage(machine: Machine) -> None:
    assert machine.setup("sideways").stderr == "setup: usage: tools/setup run|dev\n"
