"""kind clusters as a place for runs: ``--lab kind``.

The run's first process makes the cluster (or ``--lab-clusters`` of them) before any test starts,
and ends it after the last; tests, in that process or in xdist's workers, only use it, each worker
in namespaces of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cnis import catalogue, patch
from harness.cnis.cni import Cni, CniError
from harness.cnis.recognise import engines
from harness.labs.base import Lab, LabError
from harness.labs.cluster import leftovers
from harness.labs.cluster.connect import connect
from harness.labs.cluster.existing import sweep
from harness.labs.cluster.objects import Images
from harness.labs.cluster.spread import IMAGE as FAN_OUT_IMAGE
from harness.labs.cluster.survey import survey
from harness.labs.controlplane import binaries, crds
from harness.labs.kind import config, limits, state
from harness.labs.kind.cluster import KindCluster, Wish, delete
from harness.labs.kind.lab import KindLab
from harness.labs.kind.program import Kind
from harness.labs.kind.recipe import Look, Recipe, Rollout
from harness.model.image import repository
from harness.run import manifests

if TYPE_CHECKING:
    from harness.run.place import Place

Say = Callable[[str], None]
_NODES = 3


# -- before anything is made ---------------------------------------------------------------------


def check(cni: Cni, place: Place) -> list[str]:
    """Lines for the header. Raises LabError where no cluster can be had here. Makes nothing."""
    kind = _kind(cni)
    options = place.kind
    if options.reuse:
        return _check_reuse(cni, kind, options.reuse)
    _check_entry(cni, place)
    cluster = _cluster(cni, place, 0, lambda _: None, download=False)
    warnings = cluster.check()
    image = cluster.image or "kind's own default"
    told = [f"kind {kind.version[0]}.{kind.version[1]} on {kind.runtime.name}, node image {image}"]
    told.append(f"fan-out: {place.fan_out}")
    return [*told, *(f"warning: {line}" for line in warnings)]


def _kind(cni: Cni) -> Kind:
    """kind and a runtime; where there are none, in one sentence that helps."""
    try:
        return _found()
    except LabError as error:
        raise LabError(
            f"{cni.title} runs on a kind cluster: {error.message}",
            hint=f"{error.hint}; or take --cni enforcer, which runs on the embedded lab and needs "
            "neither kind nor containers",
            detail=error.detail,
        ) from None


@cache
def _found() -> Kind:
    return Kind.find()


def _check_entry(cni: Cni, place: Place) -> None:
    if place.nodes < _NODES:
        raise LabError(
            f"--lab-nodes {place.nodes}: a kind cluster needs {_NODES}, a control plane and two "
            "workers, for packets that cross between nodes"
        )
    if place.families_name not in cni.cluster_families:
        raise LabError(
            f"{cni.title} is installed for {', '.join(cni.cluster_families)} here, and not for "
            f"{place.families_name}",
            hint="--lab-families ipv4, or a catalogue entry of your own (--lab-engine-file)",
        )
    base = _base(cni, place)
    if base is not None and base.enforces:
        raise LabError(
            f"two policy engines at once: {cni.title}, and {base.title} for its network",
            hint="their verdicts could not be told apart; --lab-network takes one that enforces "
            "nothing: none, flannel",
        )
    if place.kind.network and not cni.base:
        raise LabError(f"--lab-network: {cni.title} brings its own network")
    file = _config(cni, place)
    bare, brings = config.bare(config.read(file)), cni.manifests or cni.routes or place.kind.files
    if brings and not bare:
        raise LabError(
            f"{file}: kind would install its own network beside that of {cni.title}",
            hint="networking: {disableDefaultCNI: true}",
        )
    if bare and not brings:
        raise LabError(
            f"the catalogue pins no manifest of {cni.title}",
            hint="; ".join(["--lab-cni-manifest FILE takes one", *cni.notes[:1]]),
        )


def _config(cni: Cni, place: Place) -> Path:
    """kind's configuration to start from: the one that was given, or else the entry's."""
    if not (place.kind.config or cni.config):
        raise LabError(
            f"the entry of {cni.title} names no configuration of kind (config)",
            hint="--lab-kind-config FILE takes one",
        )
    return place.kind.config or manifests.ROOT / "clusters" / cni.config


def _base(cni: Cni, place: Place) -> Cni | None:
    """The entry that the network is of, where this one is only an engine. Raises LabError for a
    name that the catalogue has not got."""
    name = place.kind.network or cni.base
    if not cni.base or not name:
        return None
    try:
        return catalogue.get(name)
    except CniError as error:
        raise LabError(f"--lab-network: {error}") from None


def entries(cni: Cni, place: Place) -> tuple[Cni, ...]:
    """What a cluster is given: the CNI, and before it the network that a mere policy engine stands
    on. Raises LabError."""
    base = _base(cni, place)
    return (cni,) if base is None else (base, cni)


def _check_reuse(cni: Cni, kind: Kind, name: str) -> list[str]:
    if name not in kind.clusters():
        known = ", ".join(kind.clusters()) or "none"
        raise LabError(f"--lab-reuse: there is no kind cluster {name}; there are: {known}")
    _adopt(kind, name)
    told = [f"kind cluster {name}, which is left as it is at the end"]
    running = _engines(name)
    names = {one.name for one in running}
    wanted = cni.name if cni.enforces else ""
    if len(running) > 1:
        raise LabError(
            f"two policy engines at once run in {name}: {', '.join(sorted(names))}",
            hint="their verdicts could not be told apart",
        )
    if running and not _same(running[0], cni):
        raise LabError(
            f"{running[0].title} runs in cluster {name}, and --cni says {cni.name}",
            hint=f"--cni {running[0].name}",
        )
    if wanted and not running:
        told.append(f"warning: {cni.title} was not seen in it")
    return told


def _same(running: Cni, cni: Cni) -> bool:
    """Whether what runs may be this entry, or one of its variants."""
    required = {(r.namespace, r.name) for r in cni.ready if r.required}
    return required == {(r.namespace, r.name) for r in running.ready if r.required}


def _engines(name: str) -> list[Cni]:
    """The policy engines that run in a cluster. Raises LabError."""
    api = connect(state.kubeconfig(name))
    there = [
        (kind, item["metadata"]["namespace"], item["metadata"]["name"])
        for kind in ("DaemonSet", "Deployment")
        for item in api.list(kind)["items"]
    ]
    return engines(there)


def _adopt(kind: Kind, name: str) -> None:
    """Remember a cluster that somebody else made for as long as it is used; ours are known."""
    if state.read(name) is None:
        state.folder(name).mkdir(parents=True, exist_ok=True, mode=0o700)
        kind.export_kubeconfig(name, state.kubeconfig(name))
    state.change(name, error="")  # what went wrong when it was made is past


# -- the cluster ---------------------------------------------------------------------------------


def names(cni: Cni, place: Place) -> list[str]:
    """The clusters of a run, by name."""
    if place.kind.reuse:
        return [place.kind.reuse]
    stem = f"{state.PREFIX}{cni.name}-{place.run.rpartition('-')[2]}"
    more = place.kind.clusters
    return [stem] if more == 1 else [f"{stem}-{n}" for n in range(1, more + 1)]


def name_for(cni: Cni, place: Place) -> str:
    """The cluster that a worker uses: the first worker the first, and so round."""
    known = names(cni, place)
    number = int("".join(filter(str.isdigit, place.worker)) or 0)
    return known[number % len(known)]


def recipe(cni: Cni, place: Place, say: Say = lambda _: None, *, download: bool = True) -> Recipe:
    """What to make of a cluster. Without ``download``, what is not on this machine is left out.
    Raises LabError."""
    options = place.kind
    offline = options.offline or options.archives is not None
    path = _config(cni, place)
    parts = entries(cni, place)
    data = config.made(config.read(path), nodes=place.nodes, families=place.families, labels={})
    values = {"pod_subnet": config.pod_subnets(data)[0], "dataplane": place.dataplane}
    objects: list[patch.Json] = []
    notes: list[str] = []
    for one in parts:
        files = options.files if one is cni else ()
        if not (
            download
            or offline
            or files
            or all(manifests.local(m, options.archives) for m in one.manifests[:1])
        ):
            continue
        try:
            found, told = manifests.objects(
                one, values, files=files, folder=options.archives, offline=offline, say=say
            )
        except CniError as error:
            raise LabError(str(error)) from None
        objects += found
        notes += told
    if cni.name == "enforcer":
        objects = [*_crds(), *objects]
    images = patch.images_of(objects)
    here = [one for one in images if one.rpartition("/")[2] == FAN_OUT_IMAGE]
    return Recipe(
        name=cni.name,
        title=cni.title,
        config=path,
        objects=tuple(objects),
        rollouts=_rollouts(parts),
        ready_files=tuple(file for one in parts for file in one.ready_files),
        routes=any(one.routes for one in parts),
        plugins=tuple(name for one in parts for name in one.plugins),
        images=tuple(one for one in images if one not in here),
        local_images=(FAN_OUT_IMAGE,) if here or _loads(place) else (),
        foreign=_known_repositories() - {repository(one) for one in images},
        looks=_looks(cni),
        modules=tuple(dict.fromkeys(name for one in parts for name in one.modules)),
        notes=tuple(notes),
    )


def _rollouts(parts: Iterable[Cni]) -> tuple[Rollout, ...]:
    return tuple(
        Rollout(r.namespace, r.kind, r.name, r.required) for one in parts for r in one.ready
    )


def _known_repositories() -> frozenset[str]:
    """Those of all images that the catalogue names."""
    known = map(catalogue.get, catalogue.names())
    return frozenset(
        repository(image)
        for one in known
        for images in (one.images, *(manifest.images for manifest in one.manifests))
        for image in images
    )


def _loads(place: Place) -> bool:
    """Whether the harness's own image is needed on the nodes for the fan-out."""
    return place.fan_out.mode == "job" and place.fan_out.image == FAN_OUT_IMAGE


def _crds() -> list[patch.Json]:
    """ClusterNetworkPolicy's definition, where it is on this machine."""
    try:
        return [crds.find()]
    except binaries.BinariesError:
        return []


def _looks(cni: Cni) -> tuple[Look, ...]:
    return tuple(Look(one.title, one.argv, one.workload) for one in cni.evidence)


def _wish(place: Place) -> Wish:
    options = place.kind
    return Wish(
        nodes=place.nodes,
        families=place.families,
        image=options.image,
        archives=options.archives,
        offline=options.offline,
        probes=_images(place),
        tried=limits.tried,
    )


def _images(place: Place) -> Images:
    known = Images()
    return Images(place.server_image or known.server, place.client_image or known.client)


def _cluster(cni: Cni, place: Place, index: int, say: Say, *, download: bool = True) -> KindCluster:
    return KindCluster(
        names(cni, place)[index],
        recipe(cni, place, say, download=download),
        run=place.run,
        wish=_wish(place),
        say=say,
        kind=_found(),
    )


def prepare(cni: Cni, place: Place, logs: Path, say: Say, *, keep_failed: bool = False) -> None:
    """Make the run's clusters. What goes wrong is remembered for the tests, which tell it, and
    raised: LabError. Whatever is raised, nothing is left behind. A cluster that is used again is
    rid of what earlier runs have left there."""
    if place.kind.reuse:
        api = connect(state.kubeconfig(place.kind.reuse))
        for one in leftovers.leftovers(api):
            if one.gone and not one.kept:
                say(f"{place.kind.reuse}: removing what run {one.run} has left: {one}")
                leftovers.remove(api, one.run)
        return
    known = names(cni, place)
    try:
        made = [_cluster(cni, place, index, say) for index in range(len(known))]
        _up(made, logs, keep_failed)
        _one_engine(cni, made[0].name)
    except LabError as error:
        for name in known:
            _give_up(cni, place, name, error, keep=keep_failed)
        raise


def _up(made: list[KindCluster], logs: Path, keep_failed: bool) -> None:
    """The first alone, for the runtime's network is made with it; then the others together."""
    first, *others = made
    first.up(logs=logs / first.name, keep_failed=keep_failed)
    if others:
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(one.up, logs=logs / one.name, keep_failed=keep_failed) for one in others
            ]
        for future in futures:
            future.result()


def _one_engine(cni: Cni, name: str) -> None:
    running = _engines(name)
    if len(running) > 1:
        raise LabError(
            f"two policy engines at once run in {name}: {', '.join(one.name for one in running)}",
            hint="their verdicts could not be told apart",
        )
    if running and not cni.enforces:
        raise LabError(
            f"{running[0].title} enforces policies in {name}, and {cni.title} is to enforce nothing"
        )


def _give_up(cni: Cni, place: Place, name: str, error: LabError, *, keep: bool) -> None:
    """Remember why, for the tests to tell. A cluster of the run that is well goes as well: its
    sibling is not, or what runs in it is not what was asked for."""
    known = state.read(name)
    if known is not None and known.state == state.UP:
        if keep:
            state.change(name, state=state.KEPT)
        else:
            try:
                delete(_found(), name)
            except LabError:
                return  # told at the end, when it is tried again
        known = state.read(name)
    if known is None:
        known = state.Known(name, place.run, cni.name, _found().runtime.name)
    kept = state.KEPT if known.state == state.KEPT else state.FAILED
    state.write(replace(known, state=kept, error=str(error)))


# -- the lab on it, and its end --------------------------------------------------------------------


def make(cni: Cni, place: Place) -> Lab:
    """The lab of one process on a cluster that is up, not yet connected. Raises LabError."""
    name = name_for(cni, place)
    known = state.read(name)
    if known is not None and known.error:
        raise LabError(known.error)
    if known is None and not place.kind.reuse:
        raise LabError(f"cluster {name} was not made")
    api = connect(state.kubeconfig(name))
    return KindLab(
        api,
        survey(api, f"kind-{name}"),
        cluster=name,
        runtime=_found().runtime,
        looks=_looks(cni),
        rollouts=_rollouts(entries(cni, place)),
        run=place.run,
        worker=place.worker,
        images=_images(place),
        most=place.nodes,
        fan_out=place.fan_out,
    )


def finish(cni: Cni, place: Place, logs: Path, *, failed: bool, keep: bool) -> Iterator[str]:
    """The end of a run: logs where something failed, then the clusters go, or are kept. Yields
    lines for people; what cannot be deleted is told as well."""
    kind = _found()
    for name in names(cni, place):
        known = state.read(name)
        try:
            if place.kind.reuse:
                sweep(connect(state.kubeconfig(name)), place.run)
                if known is None:
                    state.forget(name)
                continue
            if known is None:
                continue
            if known.state == state.FAILED:
                state.forget(name)  # it is gone already
                continue
            if failed and known.state == state.UP:
                complaint = kind.export_logs(name, logs / name)
                yield f"logs of {name}: {logs / name}" + (f" ({complaint})" if complaint else "")
            if keep or known.state == state.KEPT:
                state.change(name, state=state.KEPT)
                with contextlib.suppress(LabError):  # it may be kept because it never came up
                    sweep(connect(state.kubeconfig(name)), place.run)
                yield (
                    f"cluster {name} is kept: KUBECONFIG={state.kubeconfig(name)}; again: "
                    f"--lab-reuse {name}; to end it: netpol clean --kept"
                )
                continue
            began = time.monotonic()
            delete(kind, name)
            yield f"cluster {name} deleted ({time.monotonic() - began:.0f} s)"
        except LabError as error:
            yield f"cluster {name} is still there: {error}"
