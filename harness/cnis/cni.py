"""What the harness knows of one CNI: plain values, read from ``harness/cnis/entries/NAME.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from harness.cnis.engine import ApiEngine

NOTHING: Mapping[str, str] = MappingProxyType({})


class CniError(Exception):
    """The catalogue cannot give what was asked of it; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a CNI is known to depart from the specification: matching scenarios xfail strictly.

    ``scenario`` is a shell pattern on scenario ids, ``features`` must all be among the scenario's;
    ``unless``: patterns of those where it does not show (an endPort that is the port itself).
    ``versions`` is a PEP 440 range (``>=2.5,<3``) of the CNI's version; empty: every version.
    ``labs``: where it shows, if that is not everywhere (an engine by itself has no network of its
    own).
    """

    reason: str
    link: str
    scenario: str = "*"
    features: frozenset[str] = frozenset()
    versions: str = ""
    unless: tuple[str, ...] = ()
    labs: tuple[str, ...] = ()

    def matches(self, scenario_id: str, features: frozenset[str], version: str, lab: str) -> bool:
        return (
            (not self.labs or lab in self.labs)
            and fnmatchcase(scenario_id, self.scenario)
            and not any(fnmatchcase(scenario_id, pattern) for pattern in self.unless)
            and self.features <= features
            and self._covers(version)
        )

    def _covers(self, version: str) -> bool:
        if not self.versions:
            return True
        try:
            return SpecifierSet(self.versions).contains(Version(version), prereleases=True)
        except InvalidVersion:  # a build of one's own: nothing says that it was mended
            return True


@dataclass(frozen=True, slots=True)
class Engine:
    """The policy engine as a program for the embedded lab's nodes: change events on stdin, see
    :mod:`harness.labs.netns.engine`. ``argv`` may hold ``{python}``, ``{node}``, ``{dataplane}``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def command(self, **values: str) -> tuple[str, ...]:
        """``argv`` with its placeholders filled in; KeyError for one that was not given."""
        return tuple(word.format_map(values) for word in self.argv)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file to apply, pinned: ``sha256`` is the digest of the file at ``version``.

    With ``file`` in the place of ``url`` it is a file of this repository. ``images``: those of
    this version, where they are not the entry's.
    """

    version: str = ""
    url: str = ""
    sha256: str = ""
    file: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment variable of a container to set in the manifest before it is applied."""

    workload: str  # KIND/NAME
    container: str
    name: str
    value: str  # ``{pod_subnet}`` and ``{dataplane}`` are filled in
    why: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A field to set in the manifest before it is applied.

    ``object`` is ``KIND/NAME``. ``field`` is a path of keys with dots between them; an item of a
    list is chosen by its name in brackets, ``spec.template.spec.containers[agent].args``, and so
    is a key that has dots in it, ``data[net-conf.json]``. With
    ``find``, ``value`` takes the place of just that text in the field. ``{pod_subnet}`` and
    ``{dataplane}`` are filled in.
    """

    object: str
    field: str
    value: Any
    why: str
    find: str = ""


@dataclass(frozen=True, slots=True)
class Extra:
    """Objects to apply beside the manifest, as YAML."""

    yaml: str
    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A workload that has to be rolled out before the CNI counts as ready.

    One that is not ``required`` (nothing that is tested here needs it) is waited for a while; that
    it is not ready is then told, and the run goes on.
    """

    namespace: str
    kind: str
    name: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class EvidenceCommand:
    """A command that shows the data plane. ``workload`` empty: on the node itself, else in the
    named container (``namespace/KIND/name/container``) that runs on the node."""

    title: str
    argv: tuple[str, ...]
    workload: str = ""


@dataclass(frozen=True, slots=True)
class Cni:
    """One catalogue entry.

    ``network``: ``routed``, ``overlay`` or ``bridged``: also the embedded lab's fabric for it.
    ``labs``: where it can run, its default first. ``deny``: ``drop``, ``reject``, or empty where
    nothing is enforced. ``lacks``: lab features that it has not, each with the reason.
    ``profile`` pins rows that the specification leaves undefined: a departure is then judged.

    The rest is for clusters, kind's above all. ``config`` is a file of ``clusters/``.
    ``manifests``: the first is the default, ``--lab-cni-version`` chooses another; one without a
    URL is a file of this repository. ``settings``, ``patches`` and ``extras`` change what they
    say. ``base``: the entry whose network this one, a mere policy engine, stands on. ``routes``:
    the harness itself makes the network on kind's nodes. ``plugins``: CNI plugins that it needs
    in ``/opt/cni/bin`` and kind's node image lacks. ``ready_files`` are paths that have to be on
    every node. ``own_ipam``: it hands out addresses by itself, and not out of the nodes' pod CIDRs.
    ``cluster_families``: what its installation here can do. ``modules`` are kernel
    modules that it needs on the host.
    """

    name: str
    title: str
    network: str
    labs: tuple[str, ...]
    enforces: bool
    version: str = ""
    deny: str = ""
    summary: str = ""
    link: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, str] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()
    engine: Engine | None = None
    api_engine: ApiEngine | None = None
    manifests: tuple[Manifest, ...] = ()
    images: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    patches: tuple[Patch, ...] = ()
    extras: tuple[Extra, ...] = ()
    base: str = ""
    routes: bool = False
    plugins: tuple[str, ...] = ()
    ready: tuple[Ready, ...] = ()
    ready_files: tuple[str, ...] = ()
    cluster_families: tuple[str, ...] = ("ipv4",)
    evidence: tuple[EvidenceCommand, ...] = ()
    config: str = ""
    modules: tuple[str, ...] = ()
    own_ipam: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lab(self) -> str:
        """The lab that it runs on where none is named."""
        return self.labs[0]

    @property
    def fabric(self) -> str:
        """The embedded lab's fabric for it: what its engine expects, else its kind of network."""
        return (self.api_engine.fabric if self.api_engine else "") or self.network

    @property
    def needs_api(self) -> bool:
        """Whether the embedded lab can run it only with an API."""
        return self.api_engine is not None and self.engine is None

    def deviation(self, scenario_id: str, features: frozenset[str], lab: str) -> Deviation | None:
        """The known deviation that covers a scenario on this lab, if there is one."""
        for deviation in self.deviations:
            if deviation.matches(scenario_id, features, self.version, lab):
                return deviation
        return None
