"""The demo, word for word: nginx with two replicas, default-deny, access-nginx.

What has to be denied stands in tests of its own: with ``--cni none`` exactly those are red.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.labs.server import WELCOME
from harness.model.actions import Apply
from harness.model.flow import Endpoint, Verdict, Via
from harness.model.manifest import load
from harness.model.world import Pod, Workload, World
from harness.run.runner import Looked
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Checked, Expectation, Probes, Scenario, Step

pytestmark = [pytest.mark.demo, pytest.mark.tcp]
MANIFESTS = Path(__file__).parent / "manifests" / "demo"
BUSY = Endpoint.parse("np-demo/busy")
PATIENCE = 5  # seconds that the demo gives wget
DNS_AND_ALL = 10
KUBE_PROXY = 15  # seconds: it follows at most once in one, and on a busy machine later


def manifests(*names: str) -> list[Any]:
    """The objects of the demo's files."""
    loaded = load([MANIFESTS / f"{name}.yaml" for name in names])
    assert not loaded.problems, loaded.problems
    return loaded.objects


def world() -> World:
    """nginx and those who try it."""
    loaded = load([MANIFESTS / "nginx.yaml", MANIFESTS / "clients.yaml"])
    found = loaded.world()
    return found.with_(pods={key: workload(pod) for key, pod in found.pods.items()})


def workload(pod: Pod) -> Pod:
    """What runs in a pod of the demo."""
    if pod.labels.get("run") == "nginx":
        return replace(pod, workload=Workload.SERVER, page=WELCOME)
    return replace(pod, workload=Workload.BOTH if pod.ports else Workload.CLIENT)


def by_name(*clients: str) -> Probes:
    """These clients ask for nginx by its name; and for each replica, for an answer by the name, or
    silence, is that of one of them."""
    return Probes(
        vias=(Via.SERVICE_NAME, Via.POD_IP),
        sources=tuple(map(Endpoint.parse, clients)),
        targets=(Endpoint.parse("svc:np-demo/nginx"), Endpoint.parse("np-demo/nginx-*")),
    )


def expect(verdict: Verdict, *cells: str) -> tuple[Expectation, ...]:
    return tuple(Expectation(parse_cell(cell), verdict) for cell in cells)


def demo(name: str, title: str, why: str, step: Step, *features: str) -> Scenario:
    """One step of the demo, after what comes before it."""
    return Scenario(
        id=f"demo/{name}",
        title=title,
        why=why,
        world=world(),
        steps=(step,),
        features=frozenset({"demo", "tcp", *features}),
    )


def welcome(looked: Looked) -> Iterator[Checked]:
    """``wget -q nginx -O -`` prints the welcome page."""
    argv = ["wget", "-q", "nginx", "-O", "-"]
    status, text, _ = looked.prober.run(BUSY, argv, DNS_AND_ALL)
    good = status == 0 and "Welcome to nginx!" in text
    yield Checked(" ".join(argv), "passed" if good else "failed", f"exit {status}\n{text}")


def both_replicas(looked: Looked) -> Iterator[Checked]:
    """Both pods behind the Service answer, as soon as its client's node knows of both."""
    wanted = {str(p) for p in looked.world.pods.values() if p.labels.get("run") == "nginx"}
    seen: set[str] = set()
    argv = ["wget", "-q", "-O", "-", "http://nginx/t/who"]
    ended = time.monotonic() + KUBE_PROXY
    tried, status, text = 0, 0, ""
    # one of two is missed a hundred times on end: never
    while status == 0 and seen != wanted and (tried < 100 or time.monotonic() < ended):
        status, text, _ = looked.prober.run(BUSY, argv, DNS_AND_ALL)
        seen |= {word for word in text.split() if word in wanted}
        tried += 1
    good = len(wanted) == 2 and seen == wanted
    yield Checked(
        "both replicas answer", "passed" if good else "failed", f"seen: {sorted(seen)}\n{text}"
    )


def times_out(looked: Looked) -> Iterator[Checked]:
    """``wget -q --timeout=5 nginx -O -`` says ``wget: download timed out``.

    A wget without ``-T`` (Debian's busybox is built so) is bounded from outside: silence for as
    long is the same thing seen. A CNI that rejects is refused at once.
    """
    _, usage, _ = looked.prober.run(BUSY, ["wget", "--help"], DNS_AND_ALL)
    if "-T" in usage:
        argv = ["wget", "-q", f"--timeout={PATIENCE}", "nginx", "-O", "-"]
    else:
        argv = ["timeout", str(PATIENCE), "wget", "-q", "nginx", "-O", "-"]
    status, text, took = looked.prober.run(BUSY, argv, PATIENCE + DNS_AND_ALL)
    if looked.cni is not None and looked.cni.deny == "reject":
        good = status != 0 and "refused" in text
    elif "-T" in usage:
        good = status != 0 and "timed out" in text
    else:
        good = status != 0 and not text.strip() and took >= PATIENCE * 0.9
    yield Checked(
        " ".join(argv), "passed" if good else "failed", f"exit {status} after {took:.1f} s\n{text}"
    )


def test_the_welcome_page_by_name(run_scenario: Any) -> None:
    """Without a policy busy reads the welcome page by name, from both replicas."""
    run_scenario(
        demo(
            "welcome",
            "From busybox the welcome page is read by name, from both replicas",
            "without a policy everything is open",
            Step(
                "nginx, its Service and a client",
                probes=by_name("np-demo/busy"),
                expect=expect(
                    Verdict.ALLOW, "np-demo/busy -> svc:np-demo/nginx:80 by service-name"
                ),
                checks=(welcome, both_replicas),
            ),
            "no-policy",
            "service-name",
        )
    )


@pytest.mark.ingress
def test_default_deny_ends_in_a_timeout(run_scenario: Any) -> None:
    """Under default-deny the same wget ends in a timeout."""
    run_scenario(
        demo(
            "default-deny",
            "Under default-deny the page does not come",
            "an empty podSelector selects every pod, and there is no rule that allows anything",
            Step(
                "default-deny is created",
                tuple(map(Apply, manifests("default-deny"))),
                probes=by_name("np-demo/busy", "elsewhere/access"),
                expect=expect(
                    Verdict.DENY,
                    "np-demo/busy -> svc:np-demo/nginx:80 by service-name",
                    "elsewhere/access -> svc:np-demo/nginx:80 by service-name",
                ),
                checks=(times_out,),
            ),
            "ingress",
            "deny-all",
            "target-namespace",
            "service-name",
        )
    )


@pytest.mark.ingress
def test_default_deny_shuts_all_pods_off_from_each_other(run_scenario: Any) -> None:
    """It selects all pods, and for ingress alone."""
    run_scenario(
        demo(
            "default-deny-all-pods",
            "Under default-deny everything else of the namespace is shut off too, for ingress only",
            "the selector means all pods; without policyTypes and egress rules egress stays open",
            Step(
                "default-deny is created",
                tuple(map(Apply, manifests("default-deny"))),
                probes=Probes(targets=tuple(map(Endpoint.parse, ("np-demo/*", "elsewhere/*")))),
                expect=(
                    *expect(
                        Verdict.DENY,
                        "np-demo/busy -> np-demo/plain:80",
                        "np-demo/plain -> np-demo/nginx-0:80",
                        "elsewhere/access -> np-demo/plain:80",
                    ),
                    *expect(Verdict.ALLOW, "np-demo/plain -> elsewhere/plain:80"),
                ),
            ),
            "ingress",
            "deny-all",
            "target-namespace",
        )
    )


@pytest.mark.ingress
def test_access_nginx_lets_access_in(run_scenario: Any) -> None:
    """With access-nginx the pod that carries run=access reads the page."""
    run_scenario(
        demo(
            "access",
            "With access-nginx a pod with run=access gets the page",
            "what one policy allows another cannot deny",
            Step(
                "default-deny and access-nginx",
                tuple(map(Apply, manifests("default-deny", "access-nginx"))),
                probes=by_name("np-demo/access"),
                expect=expect(
                    Verdict.ALLOW, "np-demo/access -> svc:np-demo/nginx:80 by service-name"
                ),
            ),
            "ingress",
            "pods-by-label",
            "service-name",
        )
    )


@pytest.mark.ingress
def test_access_nginx_keeps_all_others_out(run_scenario: Any) -> None:
    """Nobody else: not busy, not a pod without a label, not run=access of another namespace."""
    clients = ("np-demo/busy", "np-demo/plain", "elsewhere/access", "elsewhere/plain")
    run_scenario(
        demo(
            "no-access",
            "With access-nginx nobody else gets the page",
            "a podSelector alone means pods of the policy's own namespace that carry the label",
            Step(
                "default-deny and access-nginx",
                tuple(map(Apply, manifests("default-deny", "access-nginx"))),
                probes=by_name(*clients),
                expect=expect(
                    Verdict.DENY,
                    *(f"{client} -> svc:np-demo/nginx:80 by service-name" for client in clients),
                ),
            ),
            "ingress",
            "pods-by-label",
            "service-name",
        )
    )
