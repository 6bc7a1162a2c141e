"""From an entry's data and an engine that is here to what the embedded lab runs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import harness
from harness.cnis.cni import Cni
from harness.cnis.engine import ApiEngine as Data
from harness.cnis.engine import Needs, Plane
from harness.engines.found import EngineError, Found
from harness.labs.base import LabError
from harness.labs.controlplane.engines import ApiEngine, Image, filled
from harness.labs.netns import detect
from harness.labs.netns.engine import argv_for
from harness.labs.netns.fabric import FABRICS, Fabric

Json = dict[str, Any]
SCOPE = "policy engine only, on the lab's network"
CHECKOUT = Path(harness.__file__).parents[1]
#: Kinds that the lab stands in for: it runs the engine's ``argv`` in each node itself.
_WORKLOADS = ("DaemonSet", "Deployment", "Pod")


def engine(cni: Cni, found: Found | None, dataplane: str) -> ApiEngine | None:
    """What the lab runs, or None where the CNI has no engine. Raises LabError."""
    data = cni.api_engine
    if data is None:
        return None
    if data.foreign and found is None:
        raise EngineError(f"there is no policy engine of {cni.title} here")
    plane = plane_of(cni, dataplane)
    words = _words(cni, found)
    argv = [*(found.argv if found else data.argv), *plane.argv]
    in_image = found is not None and found.root is not None
    files = {**data.files, **({} if in_image else data.host_files)}
    namespace, _, name = data.account.partition("/")
    return ApiEngine(
        argv_for(argv, words),
        (namespace, name),
        filled(_objects(data, found), words),
        filled({**data.env, **plane.env}, words),
        filled(files, words),
        ready=data.ready,
        directories=data.directories,
        sysctls=data.sysctls,
        setup=[argv_for(line, words) for line in data.setup],
        image=Image(found.root, found.env) if found and found.root else None,
        ready_seconds=data.ready_seconds,
        probe=data.probe,
        restarts=data.restarts,
        stop=data.stop_signal,
        clean=[argv_for(line, words) for line in data.clean],
        looks=[(look.title, look.argv) for look in data.looks],
        about=about(found),
    )


def about(found: Found | None) -> dict[str, str]:
    """What header, record and report say of an engine that was brought."""
    if found is None:
        return {}
    return {
        "engine_scope": SCOPE,
        "engine_version": found.version or "not told",
        "engine_digest": found.digest,
        "engine_source": found.source,
    }


def record(cni: Cni, found: Found | None) -> dict[str, Any]:
    """What a run's record says of an engine that was brought; nothing where none was."""
    if found is None:
        return {}
    return {
        "engine": {
            "scope": SCOPE,
            "version": found.version,
            "digest": found.digest,
            "source": found.source,
            "argv": argv_for(found.argv, _words(cni, found)),
        }
    }


def header(cni: Cni, found: Found | None) -> list[str]:
    """Lines for the header of a run: what is judged, and what is not."""
    if found is None:
        return []
    line = " ".join(argv_for(found.argv, _words(cni, found)))
    return [
        f"engine: {SCOPE}: {cni.title}, version {found.version or 'not told'}, {found.digest}",
        f"engine: {found.source}: {line}",
    ]


def fabric_of(cni: Cni, name: str) -> Fabric:
    """The fabric with the names that the engine insists on. Raises LabError for one that it does
    not know."""
    data = cni.api_engine
    if data is None:
        return FABRICS[name]
    if data.fabric and name != data.fabric:
        raise LabError(
            f"the policy engine of {cni.title} runs on fabric {data.fabric}, not on {name}",
            hint="leave out --lab-fabric",
        )
    return FABRICS[name].named(**data.links)


def plane_of(cni: Cni, dataplane: str) -> Plane:
    """What the data plane takes. Raises LabError for one that the engine has not."""
    data = cni.api_engine
    if data is None:
        return Plane()
    try:
        return data.plane(dataplane)
    except KeyError:
        raise LabError(
            f"the policy engine of {cni.title} has no data plane {dataplane}: "
            f"it has {' and '.join(data.dataplanes)}",
            hint=f"--lab-dataplane {next(iter(data.dataplanes))}",
        ) from None


def check(cni: Cni, found: Found | None, dataplane: str, abilities: Mapping[str, Any]) -> None:
    """Raises LabError, with the step that mends it, where the machine lacks what it needs.

    ``abilities`` as :func:`harness.labs.netns.detect.abilities` finds them.
    """
    for lack in lacking(cni, dataplane, abilities, own_tools=bool(found and found.root)):
        raise lack


def lacking(
    cni: Cni, dataplane: str, abilities: Mapping[str, Any], *, own_tools: bool
) -> list[LabError]:
    """All that the machine lacks for it. ``own_tools``: its image brings its programs."""
    data = cni.api_engine
    if data is None:
        return []
    out = []
    for needs in (data.needs, plane_of(cni, dataplane).needs):
        out += _missing(needs, f"the policy engine of {cni.title}", abilities, own_tools)
    if own_tools and not abilities["overlay"].ok:
        ability = abilities["overlay"]
        text = f"an engine out of an image needs {ability.title}: {ability.reason}"
        out.append(LabError(text, hint=ability.hint))
    return out


def _missing(
    needs: Needs, who: str, abilities: Mapping[str, Any], own_tools: bool
) -> list[LabError]:
    out = []
    for name in needs.kernel:
        ability = abilities.get(name)
        if ability is None:
            out.append(LabError(f"{who}: netpol knows no feature {name!r} of kernels"))
        elif not ability.ok:
            text = f"{who} needs {ability.title}: {ability.reason}"
            out.append(LabError(text, hint=ability.hint))
    for tool, package in needs.tools.items() if not own_tools else ():
        if detect.which(tool) is None:
            text = f"{who} needs {tool}, which is not installed"
            out.append(LabError(text, hint=f"apt-get install {package}"))
    return out


def _words(cni: Cni, found: Found | None) -> dict[str, str]:
    return {
        "python": sys.executable,
        "program": found.program if found else "",
        "version": cni.version,
        "multiarch": f"{platform.machine()}-linux-gnu",
    }


def _objects(data: Data, found: Found | None) -> list[Json]:
    """Everything for the API, in an order in which it can be applied."""
    if data.crds and found is not None and not found.crds:
        raise EngineError(
            f"the engine ({found.source}) needs its CustomResourceDefinitions, and there is no "
            "crds/ with them beside it",
            hint="put those of the same release there, as YAML files",
        )
    out = [dict(one) for one in found.crds] if found else []
    if data.rules:
        out += _account(data)
    for file in data.manifests:
        out += _manifests(CHECKOUT / file)
    served = {_serves(one) for one in found.crds} if found else set()
    groups = {group for group, _ in served}
    for one in map(_plain, data.objects):
        group = one["apiVersion"].rpartition("/")[0]
        # A release may be older than a kind of its group.
        if group not in groups or (group, one["kind"]) in served:
            out.append(one)
    return out


def _serves(crd: Json) -> tuple[str, str]:
    """Group and kind of what a CustomResourceDefinition defines."""
    spec = crd.get("spec") or {}
    return str(spec.get("group", "")), str((spec.get("names") or {}).get("kind", ""))


def _account(data: Data) -> list[Json]:
    """A service account that may do what ``rules`` say."""
    namespace, _, name = data.account.partition("/")
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    out: list[Json] = []
    if namespace not in ("default", "kube-system"):
        out.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    meta = {"name": name, "namespace": namespace}
    out.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    for kind, rest in (
        ("ClusterRole", {"rules": [_plain(rule) for rule in data.rules]}),
        (
            "ClusterRoleBinding",
            {
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
                "subjects": [subject],
            },
        ),
    ):
        out.append({"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": {"name": name}, **rest})
    return out


def _plain(value: Any) -> Any:
    """Without the read-only wrappers of the catalogue."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _manifests(file: Path) -> list[Json]:
    """What a file has for the API, without the workloads."""
    try:
        found = list(yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{file}, which the engine needs, cannot be read: {error}") from None
    return [thing for thing in found if thing and thing.get("kind") not in _WORKLOADS]
