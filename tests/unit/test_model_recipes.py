"""Truth tables written by hand for the recipes that people copy, and the concept page's example.

Each is a policy in our own words and who, of all, may connect to what. Everybody else must not.
"""

from __future__ import annotations

import pytest

from harness.model.flow import Verdict
from harness.model.manifest import load_text
from harness.model.oracle import decide
from harness.model.world import ContainerPort, External, Namespace, Pod, World
from harness.scenarios.cells import parse_cell
from harness.scenarios.presume import presume
from harness.scenarios.worlds import world_of

PODS = ("shop/web", "shop/api", "shop/db", "ops/monitor", "ops/other", "prod/web")
OUTSIDE = ("external:client", "external:partner")


def shop() -> World:
    """An application of three tiers, its neighbours, and two hosts outside."""
    ports = (ContainerPort(80), ContainerPort(5000))
    labels = {
        "shop/web": {"app": "shop", "role": "web"},
        "shop/api": {"app": "shop", "role": "api"},
        "shop/db": {"app": "shop", "role": "db"},
        "ops/monitor": {"type": "monitoring"},
        "ops/other": {"type": "other"},
        "prod/web": {"app": "web"},
    }
    pods = [Pod(*name.split("/"), labels[name], ports=ports) for name in PODS]
    spaces = [
        Namespace("shop", {"purpose": "test"}),
        Namespace("ops", {"team": "operations"}),
        Namespace("prod", {"purpose": "production"}),
    ]
    hosts = {
        "client": External("client", ("203.0.113.10",), ports),
        "partner": External("partner", ("172.17.1.5",), ports),
    }
    return world_of(spaces, pods).with_(externals=hosts)


def table(policies: str, target: str, port: int) -> set[str]:
    """Who reaches the target at the port."""
    return {
        who for who in (*PODS, *OUTSIDE) if who != target and allowed(policies, who, target, port)
    }


def reached(policies: str, source: str, port: int) -> set[str]:
    """Whom the source reaches at the port."""
    return {to for to in (*PODS, *OUTSIDE) if to != source and allowed(policies, source, to, port)}


def allowed(policies: str, source: str, target: str, port: int) -> bool:
    loaded = load_text("---".join(HEAD + text for text in policies.split("---")))
    assert not loaded.problems, loaded.problems
    world = presume(shop().with_(policies={one.key: one for one in loaded.objects}))
    decision = decide(world, parse_cell(f"{source} -> {target}:{port}"))
    assert decision.verdict is not Verdict.UNDEFINED, decision
    return decision.verdict is Verdict.ALLOW


HEAD = "\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
META = "metadata: {name: NAME, namespace: shop}\nspec: "
EVERYBODY = {*PODS, *OUTSIDE}


def policy(spec: str, name: str = "p") -> str:
    return META.replace("NAME", name) + spec + "\n"


#: What it is for -> policies, and who may connect to shop/web at port 80.
INTO_WEB = {
    "nobody reaches the application": (policy("{podSelector: {matchLabels: {role: web}}}"), ""),
    "only its own application reaches it": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, "
            "ingress: [{from: [{podSelector: {matchLabels: {app: shop}}}]}]}"
        ),
        "shop/api shop/db",
    ),
    "everybody reaches it, whatever else denies": (
        policy("{podSelector: {}, policyTypes: [Ingress]}", "deny")
        + "---"
        + policy("{podSelector: {matchLabels: {role: web}}, ingress: [{}]}", "open"),
        "*",
    ),
    "nobody reaches anything in the namespace": (policy("{podSelector: {}}"), ""),
    "nobody from other namespaces": (
        policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
        "shop/api shop/db",
    ),
    "every namespace, and nobody from outside": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, "
            "ingress: [{from: [{namespaceSelector: {}}]}]}"
        ),
        "shop/api shop/db ops/monitor ops/other prod/web",
    ),
    "only namespaces of a purpose": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: "
            "{matchLabels: {purpose: production}}}]}]}"
        ),
        "prod/web",
    ),
    "some pods of another namespace": (
        policy(
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: "
            "{team: operations}}, podSelector: {matchLabels: {type: monitoring}}}]}]}"
        ),
        "ops/monitor",
    ),
    "clients from outside, and everybody else": (
        policy("{podSelector: {matchLabels: {role: web}}, ingress: [{from: []}]}"),
        "*",
    ),
    "only a port that is not this one": (
        policy("{podSelector: {matchLabels: {role: web}}, ingress: [{ports: [{port: 5000}]}]}"),
        "",
    ),
    "several kinds of peers": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, ingress: [{from: ["
            "{podSelector: {matchLabels: {role: api}}}, {podSelector: {matchLabels: {role: db}}}, "
            "{namespaceSelector: {matchLabels: {purpose: production}}}]}]}"
        ),
        "shop/api shop/db prod/web",
    ),
    "a port and a peer of one rule": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, ingress: [{ports: [{port: 80}], "
            "from: [{podSelector: {matchLabels: {role: api}}}]}]}"
        ),
        "shop/api",
    ),
}

#: What it is for -> policies, and whom shop/web may connect to at port 80.
OUT_OF_WEB = {
    "it reaches nobody": (
        policy("{podSelector: {matchLabels: {role: web}}, policyTypes: [Egress]}"),
        "",
    ),
    "nobody of the namespace reaches anybody": (
        policy("{podSelector: {}, policyTypes: [Egress], egress: []}"),
        "",
    ),
    "it reaches the cluster, and nothing outside": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], "
            "egress: [{to: [{namespaceSelector: {}}]}]}"
        ),
        "shop/api shop/db ops/monitor ops/other prod/web",
    ),
    "only names may be asked for": (
        policy(
            "{podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], "
            "egress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]}"
        ),
        "",
    ),
    "everything is open": (policy("{podSelector: {}, policyTypes: [Egress], egress: [{}]}"), "*"),
}


@pytest.mark.parametrize("name", INTO_WEB)
def test_who_reaches_the_application(name: str) -> None:
    policies, who = INTO_WEB[name]
    wanted = EVERYBODY - {"shop/web"} if who == "*" else set(who.split())
    assert table(policies, "shop/web", 80) == wanted
    assert table(policies, "prod/web", 80) == EVERYBODY - {"prod/web"}  # not its business


@pytest.mark.parametrize("name", OUT_OF_WEB)
def test_whom_the_application_reaches(name: str) -> None:
    policies, who = OUT_OF_WEB[name]
    wanted = EVERYBODY - {"shop/web"} if who == "*" else set(who.split())
    assert reached(policies, "shop/web", 80) == wanted
    assert reached(policies, "prod/web", 80) == EVERYBODY - {"prod/web"}


CONCEPT_PAGE = policy(
    "{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], "
    "ingress: [{from: [{ipBlock: {cidr: 172.17.0.0/16, except: [172.17.2.0/24]}}, "
    "{namespaceSelector: {matchLabels: {purpose: production}}}, "
    "{podSelector: {matchLabels: {role: api}}}], ports: [{protocol: TCP, port: 5000}]}], "
    "egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{protocol: TCP, port: 5000}]}]}"
)


def test_the_concept_pages_example() -> None:
    """One policy with everything: ranges less a range, namespaces, pods, ports, both directions."""
    assert table(CONCEPT_PAGE, "shop/db", 5000) == {"external:partner", "prod/web", "shop/api"}
    assert table(CONCEPT_PAGE, "shop/db", 80) == set()
    assert reached(CONCEPT_PAGE, "shop/db", 5000) == {"external:client"}
    assert reached(CONCEPT_PAGE, "shop/db", 80) == set()
    assert table(CONCEPT_PAGE, "shop/web", 80) == EVERYBODY - {"shop/web", "shop/db"}
