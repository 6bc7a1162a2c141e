"""A live cluster as input: what its API server knows, read and never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.desk.inputs import InputError
from harness.labs.cluster.api import Api, ApiError
from harness.labs.cluster.connect import connect, context_name
from harness.labs.cluster.snapshot import foreign, snapshot
from harness.model.manifest import Loaded, ManifestError, Problem, from_manifest
from harness.model.policy import Source


def read_cluster(kubeconfig: str, context: str, namespaces: Sequence[str] = ()) -> Loaded:
    """All that decides who reaches whom, or what of it is in some namespaces and in none. Policies
    that the model does not read are warnings. Raises InputError, and LabError of the kubeconfig."""
    path = Path(kubeconfig) if kubeconfig else None
    name = f"cluster:{context_name(context or None, path)}"
    api = connect(path, context or None)
    loaded = Loaded()
    try:
        for manifest in snapshot(api, namespaces):
            try:
                loaded.objects.append(from_manifest(manifest, Source(name, 0)))
            except ManifestError as error:
                loaded.problems.append(Problem(name, 0, "", str(error)))
        loaded.problems += _unread(api, name, namespaces)
    except ApiError as error:
        raise InputError(_told(name, error)) from None
    finally:
        api.close()
    return loaded


def _unread(api: Api, name: str, namespaces: Sequence[str]) -> Iterator[Problem]:
    for one in foreign(api, namespaces):
        there = "they may not be listed" if one.number is None else f"{one.number} are there"
        message = f"{one.kind} ({one.version}) is left out: the model does not read it; {there}"
        yield Problem(name, 0, "kind", message, severity="warning")


def _told(name: str, error: ApiError) -> str:
    match error.status:
        case 401:
            return (
                f"{name} does not know who asks: its token or certificate has expired or is wrong"
                "\n  hint: log in again, or name another context"
            )
        case 403:
            return (
                f"{name} refuses to be read: {error}\n  hint: `python -m "
                "harness.labs.cluster.rbac --read` writes an account that may read it"
            )
        case 404:
            return f"{name} has not what was asked for: {error}"
        case 0:
            return f"{name}: {error}"
        case _:
            return f"{name} cannot be read: {error}"
