"""An ordinary user of this machine: ``nobody``, with a home, the package and the programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.labs.controlplane import binaries

ROOT = Path(__file__).parents[1]
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs")
_PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
_PACKAGES = sysconfig.get_paths()["purelib"]


@dataclass(frozen=True)
class Nobody:
    """``home`` holds copies of harness/ and deploy/, and the control plane's programs in bin/."""

    home: Path

    def python(self, *words: str) -> str:
        """What Python prints, as that user, at home. Fails the test if Python fails."""
        done = subprocess.run(
            [*NOBODY, _PYTHON, *words],
            capture_output=True,
            text=True,
            timeout=200,
            cwd=self.home,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.home),
                "PYTHONPATH": f"{self.home}:{_PACKAGES}",
            },
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def nobody() -> Iterator[Nobody]:
    """The machine's own Python with the packages of this environment; skips where it cannot be."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user; the other tests show it for this one")
    reach = subprocess.run(
        [*NOBODY, _PYTHON, "-c", f"import os; os.listdir({_PACKAGES!r})"], check=False
    )
    if reach.returncode != 0:
        pytest.skip(f"nobody may not read {_PACKAGES}, or there is no {_PYTHON}")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for part in ("harness", "deploy"):
            shutil.copytree(ROOT / part, home / part)
        (home / "bin").mkdir()
        for program, found in binaries.find().found.items():
            try:
                os.link(found.path, home / "bin" / program)
            except OSError:
                shutil.copy(found.path, home / "bin" / program)
        home.chmod(0o777)
        yield Nobody(home)
