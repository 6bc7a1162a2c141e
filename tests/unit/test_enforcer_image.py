"""The enforcer's image: what is put into it is enough, and what builds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text()
TOOL = ROOT / "tools" / "enforcer-image"
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)

#: Everything that the program imports at any time, in a process that finds nothing but the standard
#: library, the packages of the lock file and the rooms that the image holds.
IMPORTS = """
import importlib, importlib.metadata, sys
from importlib.abc import MetaPathFinder
allowed, copied = (set(one.split(",")) for one in sys.argv[1:3])
homes = importlib.metadata.packages_distributions()

class Image(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top == "harness":
            file = name.replace(".", "/")
            names = (f"{file}.py", f"{file}/__init__.py")
            if not any(c in names or (file + "/").startswith(c + "/") for c in copied):
                raise ImportError(f"{name} is not in the image")
            return None
        of = {one.lower().replace("_", "-") for one in homes.get(top, ())}
        if of and not of & allowed:
            raise ImportError(f"{name} of {of} is not in the image")
        return None

sys.meta_path.insert(0, Image())
import harness.labs.cluster.worker
if sys.argv[3] == "worker":
    sys.exit(harness.labs.cluster.worker.main(["wait"]))
import harness.enforcer.cli
from pathlib import Path
home = Path(harness.enforcer.cli.__file__).parent
for file in sorted(home.rglob("*.py")):
    if file.name != "__main__.py":
        name = ".".join(file.relative_to(home).with_suffix("").parts)
        importlib.import_module(f"harness.enforcer.{name}")
import harness.model.manifest, harness.model.read_cluster_policy
sys.exit(harness.enforcer.cli.main(["run", "--node", "n"]))
"""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("enforcer", "no way to the API server"),
        ("worker", "this is no pod with a service account"),
    ],
)
def test_the_image_holds_all_that_a_program_imports(program: str, says: str) -> None:
    names = {pin[1].lower().replace("_", "-") for pin in PIN.finditer(LOCK)}
    argv = [sys.executable, "-c", IMPORTS, ",".join(names), ",".join(copied()), program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert says in done.stderr, done.stderr


def test_its_packages_are_those_of_the_project() -> None:
    ours = dict(PIN.findall((ROOT / "requirements.lock").read_text()))
    its = dict(PIN.findall(LOCK))
    assert its
    assert {name: ours.get(name) for name in its} == its
    assert LOCK.count("--hash=sha256:") >= len(its)


def test_what_is_copied_is_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text()
    assert ignored == (ROOT / ".dockerignore").read_text()  # each tool reads its own
    assert len(copied()) >= 4
    for one in copied():
        assert (ROOT / one).exists(), one
        assert f"!{one}\n" in ignored, one


def copied() -> list[str]:
    """What the image takes of the checkout."""
    whole = CONTAINERFILE.replace("\\\n", "")
    lines = re.findall(r"^COPY (?!--from)(.*)$", whole, re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def test_the_daemon_set_wants_the_image_that_is_built() -> None:
    objects = list(yaml.safe_load_all((ROOT / "deploy" / "enforcer.yaml").read_text()))
    daemon = next(one for one in objects if one["kind"] == "DaemonSet")
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    assert container["image"] in TOOL.read_text()
    assert f'"{container["args"][0]}"' in CONTAINERFILE


def image(directory: Path, **tools: str) -> subprocess.CompletedProcess[str]:
    """Run the tool where PATH holds only what it needs, and these programs."""
    for name in ("bash", "dirname", "env", "sh"):
        (directory / name).symlink_to(str(shutil.which(name)))
    for name, text in tools.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return subprocess.run(
        [TOOL], env={"PATH": str(directory)}, capture_output=True, text=True, check=False
    )


def test_without_a_builder_it_is_told_which_to_install(tmp_path: Path) -> None:
    done = image(tmp_path)
    assert done.returncode == 1
    assert "install docker, podman, nerdctl or buildah" in done.stderr


def test_a_builder_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = image(tmp_path, docker="exit 1")
    assert done.returncode == 1
    assert 'docker is here, but "docker info" fails' in done.stderr


def test_the_first_builder_that_answers_builds(tmp_path: Path) -> None:
    done = image(tmp_path, docker="exit 1", buildah='[ "$1" = info ] || echo "$@"')
    assert done.returncode == 0, done.stderr
    assert "build -t netpol-enforcer:dev -f deploy/Containerfile ." in done.stdout
