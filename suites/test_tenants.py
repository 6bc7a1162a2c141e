"""Tenants kept apart by namespaceSelector: the article's answer to "how do I part tenants?".

Each tenant has two namespaces that carry its name as a label; every namespace has one policy that
lets the tenant's own namespaces in and out, and the DNS server be asked.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from harness.model.actions import Apply, Relabel
from harness.model.flow import Verdict, Via
from harness.model.policy import (
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Protocol,
    Rule,
)
from harness.model.world import ContainerPort, Namespace, Pod, Service, ServicePort, World
from harness.scenarios.cells import parse_cell
from harness.scenarios.scenario import Expectation, Probes, Scenario, Step
from harness.scenarios.worlds import world_of

pytestmark = [pytest.mark.tenants, pytest.mark.ingress, pytest.mark.egress, pytest.mark.tcp]
TENANTS = ("red", "blue")
STAGES = ("prod", "test")
FEATURES = frozenset({"tenants", "ingress", "egress", "namespaces-by-label", "tcp"})
DNS = LabelSelector((("kubernetes.io/metadata.name", "kube-system"),))


def tenants() -> World:
    """Two namespaces for each tenant, two pods and a Service in each, and a stranger."""
    port = (ContainerPort(80, Protocol.TCP, "http"),)
    names = [f"{tenant}-{stage}" for tenant, stage in product(TENANTS, STAGES)]
    return world_of(
        [Namespace(name, {"tenant": name.partition("-")[0]}) for name in names],
        [Pod(name, pod, {"app": pod}, ports=port) for name in names for pod in ("web", "db")]
        + [Pod("stranger", "web", {"app": "web"}, ports=port)],
        [Service(name, "web", {"app": "web"}, (ServicePort(80, 80),)) for name in names],
    )


def fence(namespace: str) -> NetworkPolicy:
    """The policy of one namespace: its tenant in and out, and names may be asked for."""
    tenant = LabelSelector((("tenant", namespace.partition("-")[0]),))
    own = Peer(namespace_selector=tenant)
    ask = Rule(
        (Peer(namespace_selector=DNS),),
        (PolicyPort(Protocol.UDP, 53), PolicyPort(Protocol.TCP, 53)),
    )
    return NetworkPolicy(
        namespace,
        "tenant",
        policy_types=(Direction.INGRESS, Direction.EGRESS),
        ingress=(Rule((own,)),),
        egress=(Rule((own,)), ask),
    )


FENCES = tuple(Apply(fence(f"{tenant}-{stage}")) for tenant, stage in product(TENANTS, STAGES))


def expect(**verdicts: tuple[str, ...]) -> tuple[Expectation, ...]:
    return tuple(
        Expectation(parse_cell(cell), Verdict(verdict))
        for verdict, cells in verdicts.items()
        for cell in cells
    )


def test_tenants_reach_themselves_and_nobody_else(run_scenario: Any) -> None:
    """A tenant's pods reach each other in all its namespaces, by address and by name."""
    run_scenario(
        Scenario(
            id="tenants/apart",
            title="A tenant reaches all that is its own, and nothing else",
            why="namespaceSelector means every pod of the namespaces that carry the label",
            world=tenants(),
            steps=(
                Step(
                    "every namespace is fenced",
                    FENCES,
                    probes=Probes(vias=(Via.POD_IP, Via.SERVICE_NAME)),
                    expect=expect(
                        allow=(
                            "red-prod/web -> red-prod/db:80",
                            "red-prod/web -> red-test/web:80",
                            "red-prod/web -> svc:red-test/web:80 by service-name",
                            "blue-test/db -> blue-prod/db:80",
                        ),
                        deny=(
                            "red-prod/web -> blue-prod/web:80",
                            "blue-prod/db -> red-prod/db:80",
                            "red-prod/web -> svc:blue-prod/web:80 by service-name",
                            "stranger/web -> red-prod/web:80",
                            "red-prod/web -> stranger/web:80",
                        ),
                    ),
                ),
            ),
            features=FEATURES | {"service-name"},
        )
    )


def test_a_namespace_changes_its_tenant(run_scenario: Any) -> None:
    """Who gets the label is let in by those who have it; what its own policy says stays."""
    run_scenario(
        Scenario(
            id="tenants/handed-over",
            title="A namespace that is handed over to another tenant is let in there",
            why="namespaceSelector looks at the labels that a namespace has now",
            world=tenants(),
            steps=(
                Step(
                    "every namespace is fenced",
                    FENCES,
                    expect=expect(deny=("stranger/web -> red-prod/web:80",)),
                ),
                Step(
                    "the stranger is taken in by red",
                    (Relabel("Namespace", "", "stranger", {"tenant": "red"}),),
                    expect=expect(
                        allow=(
                            "stranger/web -> red-prod/web:80",
                            "red-test/db -> stranger/web:80",
                        ),
                        deny=("stranger/web -> blue-prod/web:80",),
                    ),
                ),
                Step(
                    "and goes over to blue",
                    (Relabel("Namespace", "", "stranger", {"tenant": "blue"}),),
                    expect=expect(
                        allow=("stranger/web -> blue-prod/web:80",),
                        deny=(
                            "stranger/web -> red-prod/web:80",
                            "red-test/db -> stranger/web:80",
                        ),
                    ),
                ),
            ),
            features=FEATURES | {"set-namespace-labels"},
        )
    )


def test_a_new_pod_is_its_tenants_from_the_start(run_scenario: Any) -> None:
    """A pod that comes later is fenced as all of its namespace."""
    new = Pod("red-prod", "new", {"app": "new"}, ports=(ContainerPort(80),))
    run_scenario(
        Scenario(
            id="tenants/new-pod",
            title="A pod that comes later is its tenant's",
            why="a policy counts for every pod that it selects, whenever the pod came",
            world=tenants(),
            steps=(
                Step("every namespace is fenced", FENCES),
                Step(
                    "a pod comes to red",
                    (Apply(new),),
                    expect=expect(
                        allow=("red-test/web -> red-prod/new:80", "red-prod/new -> red-test/db:80"),
                        deny=(
                            "blue-prod/web -> red-prod/new:80",
                            "red-prod/new -> blue-prod/web:80",
                        ),
                    ),
                ),
            ),
            features=FEATURES | {"create-pod", "startup-order"},
        )
    )
