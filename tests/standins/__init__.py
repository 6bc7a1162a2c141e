"""Programs that stand in for ``kind`` and ``docker``, and the folder that is their whole world."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NODES = ("control-plane", "worker", "worker2")


class Standins:
    """A folder with the stand-ins in ``bin`` and what they know beside it.

    ``nodes`` are the names of the containers of every cluster. ``fail(step, …)`` makes a step end
    with an error, or hang; a step is the beginning of a command line: ``kind create``.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...] = NODES) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "clusters").mkdir()
        (folder / "files").mkdir()
        (folder / "kubeconfig").write_text("apiVersion: v1\nkind: Config\n")
        (folder / "root").mkdir()
        (folder / "transcripts").symlink_to(HERE / "transcripts")
        self._set("nodes", list(nodes))
        self._set("images", [])
        self._set("fail", {})
        for name in ("kind", "docker"):
            self.has(name)

    def has(self, name: str) -> None:
        """Put a stand-in on the path. Podman and nerdctl are Docker's, by another name."""
        source = HERE / ("kind.py" if name == "kind" else "docker.py")
        path = self.bin / name
        path.write_text(f"#!{sys.executable} -ISE\n{source.read_text(encoding='utf-8')}")
        path.chmod(0o755)

    def lacks(self, name: str) -> None:
        (self.bin / name).unlink()

    def fail(self, step: str, text: str = "", code: int = 1, hang: bool = False) -> None:
        """``text``: a transcript's name, or words. ``hang``: it never ends by itself."""
        known = json.loads((self.folder / "fail.json").read_text())
        known[step] = {"text": text, "code": code, "hang": hang}
        self._set("fail", known)

    def mend(self) -> None:
        self._set("fail", {})

    def store_images(self, *names: str) -> None:
        """Images in the runtime's own store."""
        self._set("images", list(names))

    def others(self, name: str) -> None:
        """A cluster that somebody else has made."""
        (self.folder / "clusters" / name).write_text("")

    @property
    def clusters(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "clusters").iterdir())

    @property
    def calls(self) -> list[list[str]]:
        """Every command line so far, the program's name first."""
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def called(self, *begin: str) -> list[list[str]]:
        """The command lines that begin so."""
        return [call for call in self.calls if call[: len(begin)] == list(begin)]

    def wait_for(self, *begin: str, seconds: float = 30) -> None:
        """Until a command line that begins so has been seen."""
        deadline = time.monotonic() + seconds
        while not self.called(*begin):
            assert time.monotonic() < deadline, f"{begin} was not called: {self.calls}"
            time.sleep(0.02)

    def file(self, node: str, path: str) -> Path:
        """A file of a node."""
        return self.folder / "files" / f"{node}{path.replace('/', '_')}"

    def _set(self, name: str, value: Any) -> None:
        part = self.folder / f".{name}.json"
        part.write_text(json.dumps(value))
        part.replace(self.folder / f"{name}.json")


def without_programs(folder: Path) -> str:
    """A PATH on which there are neither kind nor container runtimes."""
    folder.mkdir(exist_ok=True)
    for name in ("sh", "env"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return str(folder)
