"""Images for tests, made of programs of this machine; a registry on loopback to have them from."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TOOLS = ("skopeo", "umoci", "docker-registry")
_NOT_NEEDED = (
    *("test", "idlelib", "tkinter", "lib2to3", "ensurepip", "site-packages", "turtledemo"),
    *("distutils", "sqlite3", "asyncio", "pydoc_data", "_tkinter*", "_test*", "_sqlite3*", "nis*"),
    *("_decimal*", "pyexpat*", "xx*"),
)
_PYTHON = "/opt/python"
_SECONDS = 60.0


def missing() -> str:
    """What is not installed, or ""."""
    return ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)


def make(layout: Path, tag: str, files: dict[str, Path]) -> None:
    """An OCI image ``layout:tag`` with Python, busybox, nft and ``files`` (path -> file here)."""
    root = layout.parent / f"{layout.name}-root"
    if not layout.exists():
        _base(root)
        _run("umoci", "init", "--layout", str(layout))
        _run("umoci", "new", "--image", f"{layout}:base")
        _run("umoci", "insert", "--rootless", "--image", f"{layout}:base", str(root), "/")
        path = f"{_PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for setting in (f"PATH={path}", f"PYTHONHOME={_PYTHON}"):
            _run("umoci", "config", "--image", f"{layout}:base", "--config.env", setting)
    _run("umoci", "tag", "--image", f"{layout}:base", tag)
    for where, file in files.items():
        _run("umoci", "insert", "--rootless", "--image", f"{layout}:{tag}", str(file), where)


def push(layout: Path, tag: str, reference: str) -> None:
    """Into a registry on loopback."""
    copy = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
    _run(*copy, f"oci:{layout}:{tag}", f"docker://{reference}")


def save(layout: Path, tag: str, archive: Path, name: str) -> None:
    """Into an archive as `docker save` makes it, or an OCI one (``*.oci.tar``)."""
    kind = "oci-archive" if archive.name.endswith(".oci.tar") else "docker-archive"
    _run("skopeo", "--insecure-policy", "copy", f"oci:{layout}:{tag}", f"{kind}:{archive}:{name}")


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Debian's registry on a port of loopback: ``127.0.0.1:PORT``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    config = directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
        f"{directory / 'registry'}}}}}\nhttp: {{addr: {address}}}\n"
    )
    with (
        (directory / "registry.log").open("wb") as log,
        subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log
        ) as process,
    ):
        try:
            _answers(f"http://{address}/v2/", process)
            yield address
        finally:
            process.terminate()


def _answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, "the registry has ended"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)


def _base(root: Path) -> None:
    """Python's standard library and interpreter, a shell, nft, and the libraries of these."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    home = root / _PYTHON.lstrip("/")
    shutil.copytree(
        stdlib,
        home / "lib" / stdlib.name,
        ignore=shutil.ignore_patterns(*_NOT_NEEDED, "__pycache__", "config-*", "*.a"),
    )
    python = Path(os.path.realpath(sys.executable))
    (home / "bin").mkdir()
    shutil.copy2(python, home / "bin" / "python3")
    tools = {"nft": "usr/sbin/nft", "busybox": "bin/busybox"}
    for tool, where in tools.items():
        target = root / where
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_which(tool), target)
    (root / "bin" / "sh").symlink_to("busybox")
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/bin/env").symlink_to("/bin/busybox")
    dynload = [str(p) for p in (home / "lib" / stdlib.name / "lib-dynload").glob("*.so")]
    _copy_libraries(root, [str(python), *map(_which, tools), *dynload])
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")


def _copy_libraries(root: Path, programs: Sequence[str]) -> None:
    """What the loader would load, at the same places."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True)
    for path in set(re.findall(r"(/\S+\.so\S*) \(0x", done.stdout)):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _which(tool: str) -> str:
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    assert found, f"{tool} is not installed"
    return found


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
