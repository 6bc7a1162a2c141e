"""A policy engine that watches a Kubernetes API, as data: what the embedded lab needs to run it.

The ``[api_engine]`` table of a catalogue entry, of ``--lab-engine-file``, and of the
``engine.toml`` that an engine's own directory may hold. docs/engines.md shows it from scratch.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Names of signals that ``stop`` takes.
STOPS = ("TERM", "INT", "QUIT", "KILL")


@dataclass(frozen=True, slots=True)
class Program:
    """One way to start the engine: where its program is in an image, and its command line.

    The first of an entry's programs whose file is there is taken. ``argv`` may hold
    ``{program}``; empty: the program alone.
    """

    path: str
    argv: tuple[str, ...] = ("{program}",)


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be there before it is started: abilities of the kernel by the names that
    ``netpol doctor`` knows them by, and programs, each with the Debian package that brings it."""

    kernel: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plane:
    """What one data plane takes beside what all take."""

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)


@dataclass(frozen=True, slots=True)
class Look:
    """A command whose output shows what the engine has done; it runs where the engine runs."""

    title: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApiEngine:
    """What to run in each node, and what it needs there.

    In ``argv``, ``env``, ``files``, ``objects``, ``setup`` and ``clean`` these are filled in:
    ``{node} {node_ip} {dataplane} {kubeconfig} {api_host} {api_port} {pod_subnet}
    {service_subnet} {ipv4} {ipv6} {version} {program} {python} {multiarch}``; other braces stay.

    ``like = "NAME"`` takes another entry's table and lays this one over it.

    *Where it is from.* ``argv`` alone: a program of this machine. ``programs``: those of an
    ``image`` (its name without a tag; ``tag`` is made of the version), or of a directory's
    ``bin/``. ``crds``: URL of a release's file with its CustomResourceDefinitions; else they are
    in a directory's ``crds/``.

    *What the API has for it.* ``account`` (``NAMESPACE/NAME``) with ``rules`` as RBAC has them;
    ``manifests``: files of this checkout, their workloads left out; ``objects``: more, applied
    after all CRDs.

    *The node.* ``fabric``: the only pod network that it knows (empty: any); ``links``: names of
    interfaces that it insists on (``prefix``, ``bridge``, ``uplink``, ``vxlan``), and ``pods``
    (``veth`` or ``bridge``); ``sysctls``; ``files`` (path -> text) and ``directories`` that are
    the node's own; ``host_files``: more files, where it runs on this machine's file system and not
    on its image's; ``setup``: commands before it is started, such as chains that the CNI's router
    would set.

    *Its life.* ``ready``: an URL on the node that answers once it is, within ``ready_seconds``;
    ``probe``: then see that a policy acts before anything is judged. ``restarts``: how often it
    is started again on a node after it has died. ``stop``: the signal that ends it; ``clean``:
    commands that take away what it leaves.

    ``dataplanes``: those that ``--lab-dataplane`` may choose, the default first; empty: the
    choice is filled in and nothing else. ``looks``: evidence beside the lab's own.
    """

    account: str
    like: str = ""
    argv: tuple[str, ...] = ()
    programs: tuple[Program, ...] = ()
    image: str = ""
    tag: str = "{version}"
    crds: str = ""
    rules: tuple[Mapping[str, Any], ...] = ()
    manifests: tuple[str, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    host_files: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    fabric: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[tuple[str, ...], ...] = ()
    needs: Needs = field(default_factory=Needs)
    dataplanes: Mapping[str, Plane] = field(default_factory=dict)
    ready: str = ""
    ready_seconds: float = 60.0
    probe: bool = True
    restarts: int = 3
    stop: str = "TERM"
    clean: tuple[tuple[str, ...], ...] = ()
    looks: tuple[Look, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether its program has to be brought, and is no part of this machine."""
        return bool(self.programs)

    @property
    def stop_signal(self) -> signal.Signals:
        return signal.Signals[f"SIG{self.stop}"]

    def plane(self, name: str) -> Plane:
        """What a data plane takes. KeyError for one that it has not."""
        return self.dataplanes[name] if self.dataplanes else Plane()


#: Keys of [api_engine] that are tables, and tables in lists, with the value that each becomes.
TABLES: Mapping[str, type] = {"needs": Needs}
LISTS: Mapping[str, type] = {"programs": Program, "looks": Look}


def problems(engine: ApiEngine) -> list[str]:
    """What is wrong with the values of an entry's ``[api_engine]``, each in words."""
    links = ("prefix", "bridge", "uplink", "vxlan", "pods")
    checks = (
        (engine.account.count("/") == 1, f"account {engine.account!r} is no NAMESPACE/NAME"),
        (bool(engine.argv) != bool(engine.programs), "either argv or programs, one of them"),
        (not engine.image or engine.foreign, "an image without programs in it"),
        (engine.fabric in ("", "routed", "overlay", "bridged"), f"no fabric {engine.fabric!r}"),
        (set(engine.links) <= set(links), f"links are some of {', '.join(links)}"),
        (engine.links.get("pods", "veth") in ("veth", "bridge"), "links: pods is veth or bridge"),
        (set(engine.dataplanes) <= {"iptables", "nftables"}, "dataplanes: iptables or nftables"),
        (engine.stop in STOPS, f"stop is one of {', '.join(STOPS)}"),
        (engine.restarts >= 0, "restarts is less than nothing"),
        (engine.ready_seconds > 0, "ready_seconds is more than nothing"),
        (
            all(
                path.startswith("/")
                for path in (*engine.files, *engine.host_files, *engine.directories)
            ),
            "files and directories are absolute paths",
        ),
    )
    return [text for good, text in checks if not good]
