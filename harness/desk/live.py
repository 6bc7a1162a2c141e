"""A live cluster as input: what its API server knows, read and never changed."""

from __future__ import annotations

from pathlib import Path

from harness.desk.inputs import InputError
from harness.labs.cluster.api import ApiError
from harness.labs.cluster.connect import connect, context_name
from harness.labs.cluster.snapshot import snapshot
from harness.model.manifest import Loaded, ManifestError, Problem, from_manifest
from harness.model.policy import Source


def read_cluster(kubeconfig: str, context: str) -> Loaded:
    """All that decides who reaches whom. Raises InputError, and LabError of the kubeconfig."""
    path = Path(kubeconfig) if kubeconfig else None
    name = f"cluster:{context_name(context or None, path)}"
    api = connect(path, context or None)
    loaded = Loaded()
    try:
        for manifest in snapshot(api):
            try:
                loaded.objects.append(from_manifest(manifest, Source(name, 0)))
            except ManifestError as error:
                loaded.problems.append(Problem(name, 0, "", str(error)))
    except ApiError as error:
        raise InputError(_told(name, error)) from None
    finally:
        api.close()
    return loaded


def _told(name: str, error: ApiError) -> str:
    match error.status:
        case 401:
            return (
                f"{name} does not know who asks: its token or certificate has expired or is wrong"
                "\n  hint: log in again, or name another --context"
            )
        case 403:
            return f"{name} refuses to be read: {error}\n  hint: `netpol` needs get and list"
        case 0:
            return f"{name}: {error}"
        case _:
            return f"{name} cannot be read: {error}"
