"""One kind cluster from nothing to ready, phase by phase, and its end. Only ours is touched."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml
from filelock import FileLock
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from harness.labs.base import LabError
from harness.labs.cluster.api import Api
from harness.labs.cluster.connect import connect
from harness.labs.cluster.lab import ClusterLab
from harness.labs.cluster.objects import RUN_LABEL, Images
from harness.labs.kind import (
    archives,
    config,
    limits,
    mesh,
    plugins,
    ready,
    routes,
    state,
    versions,
)
from harness.labs.kind.apply import Applier
from harness.labs.kind.command import CommandError
from harness.labs.kind.program import Kind
from harness.labs.kind.recipe import Recipe, Rollout
from harness.model.image import full, repository
from harness.model.manifest import from_manifest
from harness.model.world import Node

DNS = Rollout("kube-system", "Deployment", "coredns")
_TRIES = 3
_PAUSE = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """How the cluster is to be. ``image``: a node image, or a minor version of Kubernetes; empty:
    the pinned default. ``archives``: a directory of image archives, and then nothing is pulled.
    ``offline``: nothing is downloaded. ``probes``: images of servers
    and clients. ``tried`` tells of kernel modules, see
    :func:`harness.labs.kind.limits.look`."""

    nodes: int = 3
    families: tuple[int, ...] = (4,)
    image: str = ""
    archives: Path | None = None
    offline: bool = False
    probes: Images = field(default_factory=Images)
    ready_seconds: float = ready.SECONDS
    mesh_seconds: float = mesh.SECONDS
    tried: Callable[[str], bool | None] = lambda _: None


class KindCluster:
    """A cluster called ``name``; ``run`` marks its nodes. ``say`` gets a line for each phase."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        *,
        run: str,
        wish: Wish | None = None,
        say: Say = lambda _: None,
        kind: Kind | None = None,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.run = run
        self.wish = wish or Wish()
        self.say = say
        self.kind = kind or Kind.find()
        self.image = versions.node_image(self.kind.version, self.wish.image)
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = list(recipe.notes)
        self._archives: dict[Path, list[str]] = {}
        self._api: Api | None = None
        self._ours = False

    # -- before ------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Raises LabError for what would fail later on; returns warnings. Makes nothing."""
        if self.name in self.kind.clusters():
            raise LabError(
                f"a kind cluster called {self.name} is there already",
                hint=f"--lab-reuse {self.name} takes it as it is; `kind delete cluster --name "
                f"{self.name}` ends it, if it is yours",
            )
        if self.wish.archives is not None:
            self._check_archives(self.wish.archives)
        for image in self._built_here():
            if not self.kind.runtime.has_image(image):
                raise LabError(
                    f"image {image} is not in {self.kind.runtime.name}'s store",
                    hint="make enforcer-image" if "enforcer" in image else f"build {image} first",
                )
        found = limits.look(
            kubernetes=versions.of_image(self.image),
            bears_cgroup1=config.bears_cgroup1(config.read(self.recipe.config)),
            modules=self.recipe.modules,
            disk=self.kind.runtime.root(),
            cgroups=self.kind.runtime.cgroups(),
            tried=self.wish.tried,
        )
        return limits.refuse(found)

    def _check_archives(self, directory: Path) -> None:
        self._archives = archives.find(directory)
        wanted = [*self.recipe.images, self.wish.probes.server, self.wish.probes.client]
        lacking = archives.lacking(wanted, self._archives)
        if lacking:
            there = [name for names in self._archives.values() for name in names]
            raise LabError(
                f"--lab-images: {', '.join(lacking)} is in none of the archives of {directory}",
                hint="`netpol cni images NAME` lists what to bring, `docker save` writes archives",
                detail="\n".join(f"  there is {name}" for name in there),
            )
        node = self._node_archive()
        if node is not None and not self.wish.image:
            # Loading it loses the digest, so the plain tag has to do.
            self.image = node[1]

    def _node_archive(self) -> tuple[Path, str] | None:
        """The archive with the node image, and its name."""
        for file, names in self._archives.items():
            for name in names:
                if name.startswith(f"{versions.NODE_REPOSITORY}:"):
                    return file, name
        return None

    def _built_here(self) -> list[str]:
        """Images that this machine has to have, where no archive brings them."""
        there = {name for names in self._archives.values() for name in names}
        return [one for one in self.recipe.local_images if full(one) not in there]

    # -- up ----------------------------------------------------------------------------------

    def up(self, *, logs: Path | None = None, keep_failed: bool = False) -> None:
        """Make it, install what the recipe says, wait until it can be used. Raises LabError.

        Where that fails the nodes' logs go to ``logs`` and the cluster is deleted, unless it is
        to be kept. Whatever is raised, Ctrl-C too, nothing is left behind.
        """
        began = time.monotonic()
        self.check()
        try:
            self._make()
        except BaseException as error:
            self._after_failure(error, logs, keep_failed)
            raise
        self.seconds["all"] = time.monotonic() - began
        self._remember(state=state.UP, seconds=self.seconds)
        self.say(f"cluster {self.name} ready in {self.seconds['all']:.0f} s")

    def _after_failure(self, error: BaseException, logs: Path | None, keep: bool) -> None:
        if not self._ours:
            return
        if logs is not None and isinstance(error, LabError):
            with contextlib.suppress(LabError):
                self.export_logs(logs)
        if keep and isinstance(error, LabError):
            self._remember(state=state.KEPT)
            return
        with contextlib.suppress(LabError):  # it is remembered then, and `netpol clean` ends it
            self.down()

    def _make(self) -> None:
        with self._phase("created"):
            self._create()
        if self._archives or self.recipe.local_images:
            with self._phase("images loaded"):
                self._load_images()
        with self._phase(f"{self.recipe.title} applied"):
            self._prepare_nodes()
            Applier(self.api).apply(self.recipe.objects)
        waiter = self._waiter()
        with self._phase("nodes Ready"):
            waiter.nodes()
        with self._phase("rolled out"):
            self.notes += waiter.rollouts(self.recipe.rollouts)
            self._wait_files()
        with self._phase("DNS rolled out"):
            waiter.rollouts([DNS])
        with self._phase("every pod reaches every other"):
            lab = ClusterLab(
                self.api,
                run=f"{self.run}-{self.name.rpartition('-')[2]}-ready",
                images=self.wish.probes,
                ready_seconds=self.wish.ready_seconds,  # servers and clients may have to be pulled
            )
            lab.connect()
            mesh.wait(lab, self.wish.mesh_seconds)
        for note in self.notes:
            self.say(f"note: {note}")

    @property
    def api(self) -> Api:
        """The cluster's API as its administrator."""
        if self._api is None:
            self._api = connect(state.kubeconfig(self.name))
        return self._api

    def _create(self) -> None:
        directory = state.folder(self.name)
        self._remember()
        self._ours = True
        base = config.read(self.recipe.config)
        data = config.made(
            base,
            nodes=self.wish.nodes,
            families=self.wish.families,
            labels={RUN_LABEL: self.run},
        )
        file = directory / "config.yaml"
        file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        node = self._node_archive()
        if node is not None:
            self.say(f"loading node image {node[1]}")
            self.kind.runtime.load_image(node[0])
        # The runtime's network for kind is made by whoever comes first: one at a time.
        with FileLock(state.home() / ".create.lock"):
            try:
                self.kind.create(
                    self.name,
                    file,
                    state.kubeconfig(self.name),
                    self.image,
                    on_line=self._heard,
                    on_start=lambda pid: self._remember(
                        creating=pid, creating_started=state.started(pid)
                    ),
                )
            except CommandError as error:
                if "already exist for a cluster" in error.text:
                    self._ours = False  # somebody was faster: it is theirs
                    state.forget(self.name)
                raise
        self._remember(creating=0, creating_started="")

    def _heard(self, line: str) -> None:
        """kind's own steps."""
        if line.strip().startswith("•"):
            self.say(f"kind: {line.strip().lstrip('•').strip().rstrip('.').strip()}")

    def _load_images(self) -> None:
        needless = {versions.NODE_REPOSITORY, *self.recipe.foreign}
        for file, names in self._archives.items():
            if not all(repository(name) in needless for name in names):
                self.kind.load_archive(self.name, file)
        for image in self._built_here():
            file = state.folder(self.name) / "image.tar"
            try:
                self.kind.runtime.save_image(image, file)
                self._adopt(image, archives.images(file))
                self.kind.load_archive(self.name, file)
            finally:
                file.unlink(missing_ok=True)

    def _adopt(self, image: str, names: list[str]) -> None:
        """Podman calls what it has built ``localhost/NAME``: the manifests have to, too."""
        if not names or full(image) in names:
            return
        for item in self.recipe.objects:
            spec = (item.get("spec") or {}).get("template", {}).get("spec", {})
            for one in spec.get("containers") or ():
                if one.get("image") == image:
                    one["image"] = names[0]

    def _prepare_nodes(self) -> None:
        runtime, there = self.kind.runtime, self._nodes()
        for module in self.recipe.modules:
            # One kernel serves all nodes. Where there is no such module, or it is built in, the
            # limits have said so.
            runtime.exec(there[0].name, ["modprobe", module], check=False)
        for name in self.recipe.plugins:
            target = f"{plugins.NODE_FOLDER}/{name}"
            lacking = [
                node.name
                for node in there
                if runtime.exec(node.name, ["test", "-x", target], check=False).code != 0
            ]
            if lacking:
                folders = [self.wish.archives] if self.wish.archives else []
                offline = self.wish.offline or bool(folders)
                source = plugins.find(name, beside=folders, offline=offline, say=self.say)
                for node_name in lacking:
                    runtime.copy(source, node_name, target)
        if self.recipe.routes:
            data = yaml.safe_load((state.folder(self.name) / "config.yaml").read_text())
            routes.make(runtime, self._with_cidrs(), config.pod_subnets(data))

    def _nodes(self) -> list[Node]:
        items = self.api.list("Node")["items"]
        return [from_manifest({"kind": "Node", **item}) for item in items]

    def _with_cidrs(self) -> list[Node]:
        """The nodes, once the controller manager has given each its CIDRs."""
        deadline = time.monotonic() + self.wish.ready_seconds
        while True:
            there = self._nodes()
            if all(node.pod_cidrs for node in there) or time.monotonic() > deadline:
                return there
            time.sleep(0.2)

    def _waiter(self) -> ready.Waiter:
        pulls = self.wish.archives is None
        return ready.Waiter(self.api, seconds=self.wish.ready_seconds, pulls=pulls)

    def _wait_files(self) -> None:
        deadline = time.monotonic() + self.wish.ready_seconds
        left = [(node, path) for path in self.recipe.ready_files for node in self._node_names()]
        while left:
            node, path = left[0]
            if self.kind.runtime.exec(node, ["test", "-e", path], check=False).code == 0:
                left.pop(0)
            elif time.monotonic() > deadline:
                raise LabError(
                    f"{path} is not on node {node} after {self.wish.ready_seconds:g} s",
                    detail="\n".join(
                        line for one in self.recipe.rollouts for line in self._waiter().story(one)
                    ),
                )
            else:
                time.sleep(0.25)

    def _node_names(self) -> list[str]:
        return [node.name for node in self._nodes()]

    # -- down --------------------------------------------------------------------------------

    def down(self) -> None:
        """Delete it, whole or in parts, and forget it. Raises LabError with the last cause."""
        delete(self.kind, self.name)
        self._ours = False

    def export_logs(self, directory: Path) -> None:
        """The nodes' logs. That one of them could not be had is told, and costs nothing else."""
        if not self.kind.runtime.nodes(self.name):
            return  # it failed before there was one
        directory.mkdir(parents=True, exist_ok=True)
        complaint = self.kind.export_logs(self.name, directory)
        self.say(f"logs of the nodes are in {directory}" + (f" ({complaint})" if complaint else ""))

    # -- memory ------------------------------------------------------------------------------

    def _remember(self, **fields: object) -> None:
        if state.read(self.name) is not None:
            state.change(self.name, **fields)
            return
        owner = os.getpid()
        known = state.Known(
            self.name,
            self.run,
            self.recipe.name,
            self.kind.runtime.name,
            owner=owner,
            owner_started=state.started(owner),
        )
        state.write(known)

    @contextmanager
    def _phase(self, title: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - began
        self.say(f"{self.name}: {title} ({self.seconds[title]:.1f} s)")


def delete(kind: Kind, name: str) -> None:
    """Delete a cluster that is remembered as ours, and forget it. Raises LabError.

    A kind that is still making it is ended first, or it would go on behind our back.
    """
    known = state.read(name)
    if known is not None and known.creating:
        _end(known.creating, known.creating_started)
    retrying = Retrying(
        retry=retry_if_exception_type(CommandError),
        stop=stop_after_attempt(_TRIES),
        wait=wait_fixed(_PAUSE),
    )
    try:
        retrying(partial(kind.delete, name, state.kubeconfig(name)))
    except RetryError as error:
        last = error.last_attempt.exception()
        assert isinstance(last, CommandError)
        raise LabError(
            f"{last.message} (tried {_TRIES} times)",
            hint=f"`netpol clean` tries again; by hand: kind delete cluster --name {name}",
            detail=last.detail,
        ) from None
    state.forget(name)


def _end(pid: int, began: str) -> None:
    """End a kind that outlived the process that had started it, with all in its session."""
    if not began or state.started(pid) != began:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        for _ in range(50):
            if state.started(pid) != began:
                return
            time.sleep(0.1)
