"""Which lab: options of ``netpol lab up`` and ``netpol try``, as pytest's without ``--lab-``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.cnis import catalogue
from harness.cnis.cni import Cni
from harness.labs.base import LabError
from harness.labs.netns.fabric import FABRICS
from harness.play.home import PlayError
from harness.run import place as place_
from harness.run.asked import count
from harness.run.place import Place

LAB = "netns"
DATAPLANES = ("iptables", "nftables")
PROXIES = ("kube-proxy", "lab")
FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
MOST_NODES = 16


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    option = parser.add_argument
    option("--cni", default="enforcer", metavar="NAME", help="what enforces policies (enforcer)")
    option("--dataplane", choices=DATAPLANES, default="iptables", help="(iptables)")
    option("--fabric", choices=tuple(FABRICS), help="kind of pod network (the CNI's own)")
    option("--families", choices=tuple(FAMILIES), default="ipv4", help="IP families (ipv4)")
    option("--nodes", type=count(1, MOST_NODES), default=3, metavar="N", help="how many (3)")
    option(
        "--api",
        action="store_true",
        help="with a real Kubernetes control plane; policies come to the engines through its API",
    )
    option("--proxy", choices=PROXIES, default="kube-proxy", help="with --api: (kube-proxy)")
    option("--api-binaries", metavar="DIR", help="with --api: the programs in this folder")
    option(
        "--engine-file",
        metavar="FILE",
        help="a CNI of your own, in the form of a catalogue entry; takes the place of --cni",
    )


def cni_of(arguments: argparse.Namespace) -> Cni:
    """The CNI that was asked for. Raises CniError, PlayError."""
    if arguments.engine_file:
        file = Path(arguments.engine_file)
        cni = catalogue.parse(file.stem, file.read_text(encoding="utf-8"))
    else:
        cni = catalogue.get(arguments.cni)
    if LAB not in cni.labs:
        here = [name for name in catalogue.names() if LAB in catalogue.get(name).labs]
        raise PlayError(
            f"{cni.title} does not run on the embedded lab", hint=f"take one of {', '.join(here)}"
        )
    return cni


def place_of(arguments: argparse.Namespace, cni: Cni) -> Place:
    """Where it is to run."""
    return Place(
        lab=LAB,
        fabric=arguments.fabric or cni.network,
        families=FAMILIES[arguments.families],
        dataplane=arguments.dataplane,
        nodes=arguments.nodes,
        api=arguments.api,
        proxy=arguments.proxy,
        api_binaries=Path(arguments.api_binaries) if arguments.api_binaries else None,
    )


def check(cni: Cni, place: Place) -> None:
    """Raises PlayError where the lab cannot come up here, in the words of this command line."""
    try:
        place_.check(cni, place)
    except LabError as error:
        own = [text.replace("--lab-", "--") for text in (error.message, error.hint)]
        raise PlayError(own[0], hint=own[1], detail=error.detail) from None


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add` and their values, as JSON takes them."""
    parser = argparse.ArgumentParser()
    add(parser)
    names = vars(parser.parse_args([]))
    return {name: getattr(arguments, name) for name in names}


def told(cni: Cni, place: Place) -> str:
    """Both in a few words."""
    engine = f", data plane {place.dataplane}" if cni.enforces else ""
    families = "+".join(f"IPv{family}" for family in place.families)
    api = ", Kubernetes API" if place.api else ""
    return f"{cni.title}{engine}{api}, {place.nodes} nodes, fabric {place.fabric}, {families}"
