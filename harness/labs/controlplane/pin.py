"""Pins a release of Kubernetes for ``build.py``: writes ``gobuild/vMINOR/go.mod`` and ``go.sum``.

``python -m harness.labs.controlplane.pin 1.37.2``

Kubernetes' own ``go.mod`` asks for its staging modules as v0.0.0 and replaces them by folders of
its repository, which its published module lacks. Each is replaced by its published twin here:
Kubernetes 1.37.2 has k8s.io/api and the others as v0.37.2. etcd is the version asked for there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.labs.controlplane.binaries import BinariesError, parse_version
from harness.labs.controlplane.build import GOBUILD, go_command, run_go

_TEMPLATE = """\
// The control plane of Kubernetes {minor}, built by harness/labs/controlplane/build.py.
// Kubernetes' own go.mod names its staging modules v0.0.0 and replaces them by folders that a
// published module lacks; here each is replaced by its published twin of the same release.
// etcd is the version that Kubernetes' own go.mod asks for. Made by pin.py.
module netpol.invalid/controlplane

go {go}

godebug {godebug}

require (
	go.etcd.io/etcd/server/v3 {etcd}
	k8s.io/component-base {staging_version}
	k8s.io/kubernetes v{version}
)

replace (
{replaces}
)
"""


def pin(version: str) -> Path:
    """Writes the two files for Kubernetes ``version`` (exact) and returns their folder."""
    numbers = parse_version(version)
    if len(numbers) != 3:
        raise BinariesError(
            f"{version} is a minor version", hint="name the patch to pin, such as 1.36.5"
        )
    go = go_command(())
    version = ".".join(map(str, numbers))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        query = ["mod", "download", "-json", f"k8s.io/kubernetes@v{version}"]
        upstream = Path(json.loads(run_go(go, query, work))["GoMod"]).read_text()
        (work / "go.mod").write_text(go_mod(version, upstream))
        shutil.copytree(GOBUILD / "cmd", work / "cmd")
        run_go(go, ["mod", "tidy"], work, flags="-mod=mod")
        pinned = GOBUILD / f"v{numbers[0]}.{numbers[1]}"
        pinned.mkdir(exist_ok=True)
        for name in ("go.mod", "go.sum"):
            shutil.copy(work / name, pinned / name)
    return pinned


def go_mod(version: str, upstream: str) -> str:
    """The ``go.mod`` for Kubernetes ``version``, out of the text of Kubernetes' own."""
    major, minor, patch = parse_version(version)
    staging = f"v0.{minor}.{patch}"
    modules = re.findall(r"^\s*(\S+) => \./staging/", upstream, re.MULTILINE)
    found = {
        key: re.search(pattern, upstream, re.MULTILINE)
        for key, pattern in {
            "go": r"^go (\S+)",
            "godebug": r"^godebug (\S+)",
            "etcd": r"^\s*go\.etcd\.io/etcd/client/v3 (\S+)",
        }.items()
    }
    values = {key: match[1] for key, match in found.items() if match is not None}
    if not modules or len(values) < len(found):
        raise BinariesError(
            f"the go.mod of Kubernetes {version} is not laid out as expected",
            hint="compare it with those of the versions that are pinned already",
        )
    return _TEMPLATE.format(
        minor=f"{major}.{minor}",
        version=version,
        staging_version=staging,
        replaces="\n".join(f"\t{module} => {module} {staging}" for module in modules),
        **values,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.labs.controlplane.pin",
        description="Pins a release of Kubernetes, so that it can be built from its modules.",
    )
    parser.add_argument("version", help="an exact version, such as 1.36.5")
    try:
        print(pin(parser.parse_args(argv).version))
    except BinariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
