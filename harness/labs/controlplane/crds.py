"""The CustomResourceDefinition of ClusterNetworkPolicy, out of its own Go module.

``python -m harness.labs.controlplane.crds``

The experimental one, which has ``nodes`` and ``domainNames``. It is taken at set-up and kept in the
user's cache; the module's checksum is pinned here.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from harness.labs.controlplane.binaries import BinariesError, cache_home
from harness.labs.controlplane.build import go_command, run_go
from harness.labs.controlplane.store import Progress, fill

MODULE = "sigs.k8s.io/network-policy-api"
VERSION = "v0.2.0"
SUM = "h1:W/f0Y9VoeQdOWjX/h2gZyLH6gZ5LLEXmh/9wy9mQWKw="
_FILE = "policy.networking.k8s.io_clusternetworkpolicies.yaml"
_PATH = f"config/crd/experimental/{_FILE}"
#: Any Go that knows modules will do.
_GO = (1, 21)


def folder() -> Path:
    """Where it is kept."""
    return cache_home() / "crds" / f"network-policy-api-{VERSION}"


def find() -> dict[str, Any]:
    """The manifest, out of the cache. Raises BinariesError with what puts it there."""
    return _check(folder())


def fetch(progress: Progress = print) -> dict[str, Any]:
    """The manifest, downloaded if it is not there yet. Raises BinariesError."""
    return fill(folder(), partial(_download, progress), _check, progress)


def _check(directory: Path) -> dict[str, Any]:
    path = directory / _FILE
    hint = "`make api-binaries` in a checkout gets it"
    try:
        data = yaml.load(path.read_text(), yaml.CSafeLoader)
    except OSError as error:
        raise BinariesError(
            f"the CRD of ClusterNetworkPolicy is not there: {path}: {error.strerror}", hint=hint
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        data = None
    if not isinstance(data, dict) or data.get("kind") != "CustomResourceDefinition":
        raise BinariesError(f"{path} is no CustomResourceDefinition", hint=hint)
    return data


def _download(progress: Progress, target: Path) -> None:
    go = go_command(_GO, progress)
    progress(f"{MODULE} {VERSION}: downloading")
    with tempfile.TemporaryDirectory() as empty:
        answer = json.loads(
            run_go(go, ["mod", "download", "-json", f"{MODULE}@{VERSION}"], Path(empty), "-mod=mod")
        )
    if answer.get("Sum") != SUM:
        raise BinariesError(
            f"{MODULE} {VERSION} has the checksum {answer.get('Sum')}, pinned is {SUM}",
            hint="`go clean -modcache`, and see which proxy `go env GOPROXY` names",
        )
    shutil.copyfile(Path(answer["Dir"]) / _PATH, target / _FILE)
    (target / _FILE).chmod(0o644)


def main() -> int:
    try:
        data = fetch(partial(print, flush=True))
    except BinariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{data['metadata']['name']} in {folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
