"""The article's own configuration: Kubernetes as the datastore, addresses by host-local.

Node CIDRs are the controller manager's, pods get their addresses out of them, nginx is a Deployment
of two replicas, and its Service is reached by name: all of it as Kubernetes itself does it, so the
lab has to have an API (``--lab-api``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import Any

import pytest

from harness.model.actions import Apply
from harness.model.flow import Endpoint
from harness.model.policy import Direction, LabelSelector, NetworkPolicy, Peer, Rule
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort
from harness.run.runner import Looked
from harness.scenarios.scenario import Checked, Probes, Scenario, Step
from harness.scenarios.worlds import world_of

pytestmark = [pytest.mark.example, getattr(pytest.mark, "service-name"), pytest.mark.tcp]
HOME = "np-article"
ACCESS, OTHER = Endpoint.parse(f"{HOME}/access"), Endpoint.parse(f"{HOME}/other")
SECONDS = 60.0  # for what takes one
PATIENCE = 2  # seconds of silence
TRIES = 5  # each of which may last so long
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "nginx", "namespace": HOME},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"run": "nginx"}},
        "template": {
            "metadata": {"labels": {"run": "nginx"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "nginx",
                        "image": "docker.io/library/nginx:1.29",
                        "ports": [{"containerPort": 80}],
                    }
                ],
            },
        },
    },
}
NGINX = LabelSelector((("run", "nginx"),))
DENY = NetworkPolicy(HOME, "default-deny", policy_types=(Direction.INGRESS,))
ALLOW = NetworkPolicy(
    HOME,
    "access-nginx",
    NGINX,
    ingress=(Rule((Peer(LabelSelector((("run", "access"),))),)),),
)


def replicas(looked: Looked) -> list[dict[str, Any]]:
    """The Deployment's pods that are Ready."""
    lab: Any = looked.lab
    pods = lab.api.list("Pod", HOME, labelSelector="run=nginx")["items"]
    return [
        pod
        for pod in pods
        for one in pod["status"].get("conditions") or ()
        if one["type"] == "Ready" and one["status"] == "True"
    ]


def eventually(look: Callable[[], bool]) -> bool:
    """Whether it comes about, in time."""
    deadline = time.monotonic() + SECONDS
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def deployed(looked: Looked) -> Iterator[Checked]:
    """Two replicas, made by controllers alone."""
    lab: Any = looked.lab
    lab.api.create(DEPLOYMENT)
    good = eventually(lambda: len(replicas(looked)) == 2)
    owners = [
        owner["kind"] for pod in replicas(looked) for owner in pod["metadata"]["ownerReferences"]
    ]
    yield checked("two replicas are Ready", good and owners == ["ReplicaSet"] * 2, owners)


def addresses(looked: Looked) -> Iterator[Checked]:
    """Each address is one of its node's range, and the ranges are the controller manager's."""
    lab: Any = looked.lab
    nodes = {n["metadata"]["name"]: n["spec"]["podCIDRs"] for n in lab.api.list("Node")["items"]}
    ranges = [ip_network(cidr) for cidrs in nodes.values() for cidr in cidrs]
    apart = not any(
        one.overlaps(other)
        for one, other in combinations(ranges, 2)
        if one.version == other.version
    )
    yield checked("every node has a range of its own", apart and bool(ranges), nodes)
    found = {
        pod["metadata"]["name"]: (
            pod["spec"]["nodeName"],
            [ip["ip"] for ip in pod["status"]["podIPs"]],
        )
        for pod in replicas(looked)
    }
    good = len(found) == 2 and all(
        any(ip_address(ip) in ip_network(cidr) for cidr in nodes[node])
        for node, ips in found.values()
        for ip in ips
    )
    yield checked("every pod has an address of its node's range", good, found)


def reads(client: Endpoint, allowed: bool) -> Callable[[Looked], Iterator[Checked]]:
    """``wget -q -O - nginx`` by name prints the welcome page, or is cut off in silence."""

    def look(looked: Looked) -> Iterator[Checked]:
        argv = ["timeout", str(PATIENCE), "wget", "-q", "-O", "-", "nginx"]
        good = False
        for _ in range(TRIES):
            status, text, _ = looked.prober.run(client, argv, 3 * PATIENCE)
            good = (status == 0 and "Welcome to nginx!" in text) is allowed
            if good:
                break
        word = "reads the page by name" if allowed else "is kept out"
        yield checked(f"{client.name} {word}", good, f"exit {status}\n{text}")

    return look


def gone(looked: Looked) -> Iterator[Checked]:
    """The Deployment is deleted, and the garbage collector takes its pods."""
    lab: Any = looked.lab
    lab.api.delete("Deployment", HOME, "nginx", propagationPolicy="Background")

    def left() -> list[Any]:
        return [*lab.api.list("Pod", HOME, labelSelector="run=nginx")["items"]]

    yield checked("its pods go with it", eventually(lambda: not left()), left())


def checked(name: str, good: bool, text: object) -> Checked:
    return Checked(name, "passed" if good else "failed", str(text))


def test_a_deployment_reached_by_name(run_scenario: Any) -> None:
    """Two replicas behind a Service: open, closed by default-deny, open again for access."""
    world = world_of(
        [Namespace(HOME)],
        [
            Pod(HOME, name, {"run": name}, ports=(ContainerPort(80),))
            for name in (ACCESS.name, OTHER.name)
        ],
        [Service(HOME, "nginx", {"run": "nginx"}, (ServicePort(80, 80),))],
    )
    run_scenario(
        Scenario(
            id="article/deployment",
            title="A Deployment of two replicas, reached by its Service's name",
            why="the article's configuration: the Kubernetes datastore, node CIDRs, host-local",
            world=world,
            probes=Probes(targets=(ACCESS, OTHER)),  # beside what is asked by hand
            steps=(
                Step(
                    "nginx is deployed",
                    checks=(deployed, addresses, reads(ACCESS, True), reads(OTHER, True)),
                ),
                Step(
                    "default-deny",
                    (Apply(DENY),),
                    checks=(reads(ACCESS, False), reads(OTHER, False)),
                ),
                Step(
                    "access-nginx",
                    (Apply(ALLOW),),
                    checks=(reads(ACCESS, True), reads(OTHER, False), gone),
                ),
            ),
            features=frozenset({"example", "service-name", "deny-all", "pods-by-label", "tcp"}),
            requires=frozenset({"api"}),
        )
    )
