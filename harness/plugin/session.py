"""A run of ours: what was asked for, checked before anything is started."""

from __future__ import annotations

import os
import random
import shlex
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.mark import pytest_collection_modifyitems as select

from harness.cnis import catalogue
from harness.cnis.cni import Cni, CniError
from harness.labs.base import LabError
from harness.labs.cluster.spread import FanOut
from harness.plugin import brought
from harness.plugin.options import LABS, Options
from harness.report import baseline
from harness.report.baseline import BaselineError
from harness.report.record import RecordError
from harness.run import place
from harness.scenarios.features import FEATURES

if TYPE_CHECKING:
    from harness.plugin import Suites


@dataclass(frozen=True, slots=True)
class Run:
    """``id`` is unique; ``baseline`` maps the ids of scenarios that are known to fail to why.
    ``seed`` is the one of the options, or else a new one. ``told`` is what the check of the place
    has found, for the header."""

    options: Options
    cni: Cni
    place: place.Place
    id: str
    seed: int
    baseline: Mapping[str, str]
    told: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Where this run leaves its record and reports."""
        return self.options.report / self.id

    def rerun(self, *chosen: str) -> str:
        """The shell command that runs just this (a test by its id) of the run again."""
        options = self.options
        embedded = self.place.lab == "netns"
        asked = ["--cni", self.cni.name]
        if options.engine_file is not None:
            asked = ["--lab-engine-file", str(options.engine_file)]
        for option, value, default in (
            ("--lab", self.place.lab, self.cni.lab),
            ("--lab-engine", str(options.engine or ""), ""),
            ("--lab-images", str(options.images or ""), ""),
            ("--lab-cni-version", options.cni_version, ""),
            ("--lab-fabric", self.place.fabric, self.cni.fabric if embedded else self.cni.network),
            ("--lab-families", self.place.families_name, "ipv4"),
            ("--lab-dataplane", options.dataplane, "iptables"),
            ("--lab-nodes", str(options.nodes), "3"),
            ("--lab-manifests", str(options.manifests or ""), ""),
            ("--lab-proxy", self.place.proxy, "kube-proxy"),
            ("--lab-api-version", self.place.api_version, place.API_VERSION),
            ("--lab-api-binaries", str(self.place.api_binaries or ""), ""),
            ("--lab-kind-image", options.kind_image, ""),
            ("--lab-kind-config", str(options.kind_config or ""), ""),
            ("--lab-network", options.network, ""),
            ("--lab-reuse", options.reuse, ""),
            ("--lab-context", self.place.context, ""),
            ("--lab-server-image", self.place.server_image, ""),
            ("--lab-client-image", self.place.client_image, ""),
            ("--lab-fanout", self.place.fan_out.mode, FanOut().mode),
            ("--lab-fanout-image", self.place.fan_out.image, FanOut().image),
        ):
            if value != default:
                asked += [option, value]
        for file in options.cni_manifests:
            asked += ["--lab-cni-manifest", str(file)]
        asked += [f"--lab-{name}" for name in self._switches()]
        return shlex.join(["pytest", *chosen, *asked, "--lab-seed", str(self.seed)])

    def _switches(self) -> Iterator[str]:
        place = self.place
        named = {"api": place.api, "yes": place.yes, "cluster-wide": place.wide}
        named["offline"] = place.kind.offline
        named["manifests-partial"] = self.options.manifests_partial
        yield from (name for name, there in named.items() if there)


RUN = pytest.StashKey[Run]()
TOLD = "netpol"  # the key of workerinput


def begin(config: pytest.Config, suites: Suites) -> None:
    """Check what was asked for and register the rest of the plugin. Raises UsageError."""
    from harness.plugin import collect, controller, fixtures, items

    worker = hasattr(config, "workerinput")
    run = _checked(config, told(config) or _decided())
    if not worker and not config.getoption("collectonly"):
        _writable(run.options.report)
    if run.options.manifests_cluster is not None:
        from harness.plugin import manifests

        run = manifests.taken(config, run, told(config).get("manifests"))
    config.stash[RUN] = run
    for label, text in FEATURES.items():
        config.addinivalue_line("markers", f"{label}: {text}")
    plugins = config.pluginmanager
    plugins.register(collect.Collection(suites, run), "netpol-collection")
    plugins.register(items.Items(config, suites, run), "netpol-items")
    plugins.register(fixtures, "netpol-fixtures")
    if worker:
        return
    if run.options.dry_run:
        config.option.dist = "no"  # no workers
    # Raises UsageError here for a -k or -m that cannot be read; in a worker it would be lost.
    select([], config)
    if not config.getoption("collectonly"):
        try:
            run.told.extend(place.check(run.cni, run.place) or ())
        except LabError as error:
            raise pytest.UsageError(str(error)) from None
    plugins.register(controller.Controller(config, run), "netpol-controller")


def _writable(directory: Path) -> None:
    """Raises UsageError where reports cannot be written there."""
    there = directory
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written" if there.is_dir() else "is no directory"
        raise pytest.UsageError(
            f"the reports cannot go to {directory}: {there} {why}; the option is --lab-report"
        )


def told(config: pytest.Config) -> dict[str, Any]:
    """What the controller has told this xdist worker; empty where this is no worker."""
    found: dict[str, Any] = getattr(config, "workerinput", {}).get(TOLD, {})
    return found


def _decided() -> dict[str, Any]:
    """What is chosen once for a run, and told to its workers."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return {
        "id": f"{now}-{uuid.uuid4().hex[:6]}",
        "seed": random.SystemRandom().randrange(2**32),
    }


def _checked(config: pytest.Config, decided: Mapping[str, Any]) -> Run:
    options = Options.of(config)
    asked = brought.wanted(options, _name(options, decided))
    cni = brought.entry(asked)
    lab = options.lab or ("netns" if options.engine else cni.lab)
    if lab == "netns" and options.keep != "never" and config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "--lab-keep: an embedded lab lives as long as its process, and the workers of -n end; "
            "leave out -n to keep it"
        )
    if lab not in cni.labs:
        can = [name for name in LABS if name in cni.labs]
        raise pytest.UsageError(
            f"--lab {lab}: {cni.title} runs on {' or '.join(can)}; on lab {lab} take one of "
            + ", ".join(name for name in catalogue.names() if lab in catalogue.get(name).labs)
        )
    engine = None
    if lab == "netns":
        cni, engine = brought.with_engine(asked)
    api = options.api or (lab == "netns" and cni.needs_api)
    _fitting(options, api, lab)
    if lab == "kind":
        cni = _at_version(cni, options.cni_version)
    if options.api and lab != "netns":
        raise pytest.UsageError(f"--lab-api is for the embedded lab, and this is --lab {lab}")
    return Run(
        options=options,
        cni=cni,
        place=place.Place(
            lab=lab,
            fabric=options.fabric or (cni.fabric if lab == "netns" else cni.network),
            families=options.families,
            dataplane=options.dataplane,
            nodes=options.nodes,
            api=api,
            brought=engine,
            proxy=options.proxy or "kube-proxy",
            api_version=options.api_version or place.API_VERSION,
            api_binaries=options.api_binaries,
            run=decided["id"],
            context=options.context,
            server_image=options.server_image,
            client_image=options.client_image,
            yes=options.yes,
            wide=options.wide,
            dry_run=options.dry_run,
            kind=place.KindOptions(
                image=options.kind_image,
                config=options.kind_config,
                clusters=options.clusters or 1,
                reuse=options.reuse,
                files=options.cni_manifests,
                archives=options.images,
                offline=options.offline,
                network=options.network,
            ),
            fan_out=FanOut(
                mode=options.fanout or FanOut().mode, image=options.fanout_image or FanOut().image
            ),
        ),
        id=decided["id"],
        seed=decided["seed"] if options.seed is None else options.seed,
        baseline=_baseline(options.baseline),
    )


def _at_version(cni: Cni, version: str) -> Cni:
    """The entry as of another version that it pins, for a kind cluster. Raises UsageError."""
    from harness.run import manifests

    try:
        return manifests.at_version(cni, version)
    except CniError as error:
        raise pytest.UsageError(str(error)) from None


def _fitting(options: Options, api: bool, lab: str) -> None:
    """Raises UsageError for an option that has no meaning here."""
    needs: dict[tuple[str, bool], tuple[tuple[str, object], ...]] = {
        ("--lab-api", api): (
            ("--lab-proxy", options.proxy),
            ("--lab-api-version", options.api_version),
            ("--lab-api-binaries", options.api_binaries),
        ),
        ("--lab netns", lab == "netns"): (("--lab-engine", options.engine),),
        ("--lab kubeconfig", lab == "kubeconfig"): (
            ("--lab-context", options.context),
            ("--lab-yes", options.yes),
        ),
        ("--lab-manifests cluster:", options.manifests_cluster is not None): (
            ("--lab-manifests-namespace", options.manifests_namespaces),
        ),
        ("--lab kind", lab == "kind"): (
            ("--lab-kind-image", options.kind_image),
            ("--lab-kind-config", options.kind_config),
            ("--lab-clusters", options.clusters),
            ("--lab-reuse", options.reuse),
            ("--lab-network", options.network),
            ("--lab-cni-manifest", options.cni_manifests),
            ("--lab-offline", options.offline),
        ),
        ("--lab kubeconfig or kind", lab in ("kubeconfig", "kind")): (
            ("--lab-server-image", options.server_image),
            ("--lab-client-image", options.client_image),
            ("--lab-cluster-wide", options.wide),
        ),
        ("--lab-api, --lab kubeconfig or kind", api or lab in ("kubeconfig", "kind")): (
            ("--lab-fanout", options.fanout),
            ("--lab-fanout-image", options.fanout_image),
        ),
    }
    for (wanted, there), given in needs.items():
        for name, value in given:
            if value and not there:
                raise pytest.UsageError(f"{name} is for {wanted}, which is not asked for")


def _name(options: Options, decided: Mapping[str, Any]) -> str:
    """The CNI's: as it was given, or told to this worker, or what a cluster that exists has."""
    name = options.cni or decided.get("cni")
    if name is None and options.lab == "kubeconfig":
        try:
            name = place.recognise(options.context)
        except LabError as error:
            raise pytest.UsageError(str(error)) from None
    return name or "enforcer"


def _baseline(path: Path | None) -> Mapping[str, str]:
    """The scenarios that are known to fail, and why, from a list or from a run's record."""
    if path is None:
        return {}
    try:
        return baseline.read(path)
    except (BaselineError, RecordError) as error:
        raise pytest.UsageError(f"--lab-baseline: {error}") from None
