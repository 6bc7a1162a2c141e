"""The command line: ``--cni NAME``, and the rest as ``--lab-…`` in one group.

Only names, defaults and checks of single values live here. Importing it costs nothing, for every
pytest run on the machine imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.run.asked import count, seconds

LABS = ("netns", "kind", "kubeconfig")
FABRICS = ("routed", "overlay", "bridged")
FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
DATAPLANES = ("iptables", "nftables")
PROXIES = ("kube-proxy", "lab")
CLUSTER = "cluster:"
"""What ``--lab-manifests`` begins with where it names a context, and no directory."""
FANOUTS = ("auto", "exec", "job")
WHEN = ("never", "failed", "always")


def add(parser: pytest.Parser) -> None:
    """Declare the options; the defaults are those of a run that names none."""
    group = parser.getgroup("netpol", "NetworkPolicy conformance")
    option = group.addoption
    option(
        "--cni",
        metavar="NAME",
        help="what enforces the policies: an entry of the catalogue (enforcer)",
    )
    option(
        "--lab-engine-file",
        metavar="FILE",
        help="a CNI of your own, in the form of a catalogue entry; takes the place of --cni",
    )
    option(
        "--lab-engine",
        metavar="PATH",
        help="the CNI's policy engine on the embedded lab: its program, a directory with bin/ and "
        "crds/, or an image archive",
    )
    option(
        "--lab-images",
        metavar="DIR",
        help="image archives to take images from (*.tar), where nothing can be pulled",
    )
    option(
        "--lab-cni-version",
        metavar="VERSION",
        help="release of the CNI (the catalogue entry's own)",
    )
    option("--lab", choices=LABS, help="where it runs (the catalogue entry's own default)")
    option("--lab-fabric", choices=FABRICS, help="kind of pod network (the CNI's own)")
    option("--lab-families", choices=tuple(FAMILIES), default="ipv4", help="IP families (ipv4)")
    option(
        "--lab-dataplane",
        choices=DATAPLANES,
        default="iptables",
        help="data plane of the policy engine on the embedded lab (iptables)",
    )
    option("--lab-nodes", type=count(1, 64), default=3, metavar="N", help="nodes (3)")
    option(
        "--lab-api",
        action="store_true",
        help="the embedded lab as a Kubernetes cluster: real etcd, API server, controllers and "
        "kube-proxy, hollow kubelets",
    )
    option(
        "--lab-proxy",
        choices=PROXIES,
        help="with --lab-api: what makes Services of the nodes' rules, kube-proxy in the mode of "
        "the data plane, or the lab's own translation (kube-proxy)",
    )
    option("--lab-api-version", metavar="1.36", help="with --lab-api: version of Kubernetes (1.36)")
    option(
        "--lab-api-binaries",
        metavar="DIR",
        help="with --lab-api: where its programs are (KUBEBUILDER_ASSETS, setup-envtest's store, "
        "PATH, the cache that `netpol api fetch` and `make api-binaries` fill)",
    )
    option(
        "--lab-kind-image",
        metavar="IMAGE",
        help="--lab kind: node image, or a version of Kubernetes (1.36, pinned by digest)",
    )
    option(
        "--lab-kind-config",
        metavar="FILE",
        help="--lab kind: kind's configuration to start from, in the place of the catalogue's",
    )
    option(
        "--lab-clusters",
        type=count(1, 16),
        metavar="N",
        help="--lab kind: so many clusters, which the workers of -n share out (1)",
    )
    option(
        "--lab-reuse",
        metavar="NAME",
        help="--lab kind: a kind cluster that is there, left as it is at the end",
    )
    option(
        "--lab-network",
        metavar="NAME",
        help="--lab kind: the catalogue's entry whose network a mere policy engine stands on",
    )
    option(
        "--lab-cni-manifest",
        action="append",
        metavar="FILE",
        help="--lab kind: what to apply in the place of the catalogue's manifest; may be repeated",
    )
    option(
        "--lab-offline",
        action="store_true",
        help="--lab kind: download no manifest; those of the cache and of --lab-images are taken",
    )
    option("--lab-context", metavar="NAME", help="--lab kubeconfig: its context (the current one)")
    option(
        "--lab-yes",
        action="store_true",
        help="--lab kubeconfig: run on a cluster that looks like production, too",
    )
    option(
        "--lab-cluster-wide",
        action="store_true",
        help="--lab kubeconfig, --lab-reuse: also scenarios that reach into namespaces of others "
        "(ClusterNetworkPolicy, labels of nodes)",
    )
    option(
        "--lab-server-image",
        metavar="IMAGE",
        help="--lab kubeconfig: nginx, from a registry of yours (the published one)",
    )
    option(
        "--lab-client-image",
        metavar="IMAGE",
        help="--lab kubeconfig: busybox, likewise",
    )
    option(
        "--lab-fanout",
        choices=FANOUTS,
        help="with --lab-api, --lab kind or kubeconfig: where clients' exec streams come from, "
        "this machine, or the pods of an Indexed Job inside of the cluster (auto: this machine, "
        "and a Job for very many pods; on the embedded lab its own shells)",
    )
    option(
        "--lab-fanout-image",
        metavar="IMAGE",
        help="the harness's own image, for the pods of that Job (netpol-enforcer:dev, which `make "
        "enforcer-image` builds)",
    )
    option(
        "--lab-dry-run",
        action="store_true",
        help="look whether the lab can be had, say what would be made and run, and stop there",
    )
    option(
        "--lab-deadline",
        type=seconds,
        metavar="SECONDS",
        help="how long a change may take to be enforced before a cell counts as wrong (5; 15 on "
        "clusters; 0.5 where the CNI enforces nothing)",
    )
    option(
        "--lab-timeout",
        type=seconds,
        metavar="SECONDS",
        help="the shortest silence that counts as a denial (0.06; more where answers are slow)",
    )
    option(
        "--lab-hold",
        type=seconds,
        metavar="SECONDS",
        help="how long all cells must stay as expected (0.06; more where answers are slow)",
    )
    option(
        "--lab-seed",
        type=count(0, 2**32 - 1),
        metavar="N",
        help="seed of all that is chosen at random (a new one for each run)",
    )
    option(
        "--lab-keep",
        choices=WHEN,
        default="never",
        help="leave the lab up at the end (never); the embedded one until Ctrl-C, without -n",
    )
    option(
        "--lab-evidence",
        choices=WHEN,
        help="when to record what the data plane says of itself (failed; never where nothing "
        "is enforced)",
    )
    option(
        "--lab-report",
        metavar="DIR",
        help="where runs leave their records and reports (reports/ under the root directory)",
    )
    option(
        "--lab-baseline",
        metavar="FILE",
        help="scenarios that are known to fail, one id a line and its reason after it, or an "
        "earlier run's record: they xfail, and those that are mended are told",
    )
    option(
        "--lab-generated",
        type=count(0, 1_000_000),
        metavar="N",
        help="run generated scenarios as well: a covering array, then N drawn at random; both "
        "follow from the seed",
    )
    option(
        "--lab-strength",
        type=count(0, 3),
        metavar="T",
        help="generated scenarios: every T features of policy, world and change together in one "
        "scenario at least (2; 0: none of these)",
    )
    option(
        "--lab-save-regressions",
        metavar="DIR",
        help="leave generated scenarios that fail there, made small, as YAML scenarios",
    )
    option(
        "--lab-manifests",
        metavar="DIR",
        help="run as well what is derived from the manifests there (namespaces, workloads, "
        "Services, policies): each policy's positive and negative cases; cluster:CONTEXT takes "
        "them from a live cluster, which is only read (cluster: alone: the current context)",
    )
    option(
        "--lab-manifests-namespace",
        action="append",
        metavar="NAME",
        help="--lab-manifests cluster: only what is in this namespace; may be repeated",
    )
    option(
        "--lab-manifests-partial",
        action="store_true",
        help="go on without the manifests that cannot be read, or are of kinds unknown here",
    )
    option(
        "--lab-live",
        action="store_true",
        help="say what is being probed while it is being probed, also under -n",
    )


@dataclass(frozen=True, slots=True)
class Options:
    """The values of the group, typed. ``None`` where nothing was given and the CNI decides.
    ``manifests_cluster``: the context to take manifests from, "" for the current one."""

    cni: str | None
    engine_file: Path | None
    engine: Path | None
    images: Path | None
    cni_version: str
    lab: str | None
    fabric: str | None
    families: tuple[int, ...]
    dataplane: str
    nodes: int
    api: bool
    proxy: str | None
    api_version: str | None
    api_binaries: Path | None
    kind_image: str
    kind_config: Path | None
    clusters: int | None
    reuse: str
    network: str
    cni_manifests: tuple[Path, ...]
    offline: bool
    context: str
    yes: bool
    wide: bool
    server_image: str
    client_image: str
    fanout: str | None
    fanout_image: str
    dry_run: bool
    deadline: float | None
    timeout: float | None
    hold: float | None
    seed: int | None
    keep: str
    evidence: str | None
    report: Path
    baseline: Path | None
    generated: int | None
    strength: int
    regressions: Path | None
    manifests: Path | None
    manifests_cluster: str | None
    manifests_namespaces: tuple[str, ...]
    manifests_partial: bool
    live: bool

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        get = config.getoption
        report = get("lab_report")
        baseline = get("lab_baseline")
        generated, strength = get("lab_generated"), get("lab_strength")
        if strength is not None and generated is None:
            generated = 0  # the array alone
        here = config.invocation_params.dir
        manifests = get("lab_manifests") or ""
        live = manifests.startswith(CLUSTER)
        return cls(
            cni=get("cni"),
            engine_file=here / engine if (engine := get("lab_engine_file")) else None,
            engine=here / program if (program := get("lab_engine")) else None,
            images=here / archives if (archives := get("lab_images")) else None,
            cni_version=get("lab_cni_version") or "",
            lab=get("lab"),
            fabric=get("lab_fabric"),
            families=FAMILIES[get("lab_families")],
            dataplane=get("lab_dataplane"),
            nodes=get("lab_nodes"),
            api=get("lab_api"),
            proxy=get("lab_proxy"),
            api_version=get("lab_api_version"),
            kind_image=get("lab_kind_image") or "",
            kind_config=here / file if (file := get("lab_kind_config")) else None,
            clusters=get("lab_clusters"),
            reuse=get("lab_reuse") or "",
            network=get("lab_network") or "",
            cni_manifests=tuple(here / file for file in get("lab_cni_manifest") or ()),
            offline=get("lab_offline"),
            context=get("lab_context") or "",
            yes=get("lab_yes"),
            wide=get("lab_cluster_wide"),
            server_image=get("lab_server_image") or "",
            client_image=get("lab_client_image") or "",
            fanout=get("lab_fanout"),
            fanout_image=get("lab_fanout_image") or "",
            dry_run=get("lab_dry_run"),
            api_binaries=here / programs if (programs := get("lab_api_binaries")) else None,
            deadline=get("lab_deadline"),
            timeout=get("lab_timeout"),
            hold=get("lab_hold"),
            seed=get("lab_seed"),
            keep=get("lab_keep"),
            evidence=get("lab_evidence"),
            report=here / report if report else config.rootpath / "reports",
            baseline=here / baseline if baseline else None,
            generated=generated,
            strength=2 if strength is None else strength,
            regressions=here / saved if (saved := get("lab_save_regressions")) else None,
            manifests=here / manifests if manifests and not live else None,
            manifests_cluster=manifests.removeprefix(CLUSTER) if live else None,
            manifests_namespaces=tuple(get("lab_manifests_namespace") or ()),
            manifests_partial=get("lab_manifests_partial"),
            live=get("lab_live"),
        )


def given(config: pytest.Config) -> bool:
    """Whether the command line asks for a run of ours."""
    return bool(config.getoption("lab_api")) or any(
        config.getoption(name) is not None
        for name in ("cni", "lab", "lab_engine_file", "lab_engine")
    )
