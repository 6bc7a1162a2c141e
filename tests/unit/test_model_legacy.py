"""The API before Kubernetes 1.7: what it meant, and what it is in v1."""

from __future__ import annotations

import pytest

from harness.model.legacy import (
    LegacyPolicy,
    LegacyRule,
    convert,
    isolated,
    load_legacy_text,
    meaning,
)
from harness.model.manifest import load_text
from harness.model.policy import Direction, LabelSelector, NetworkPolicy, Peer, PolicyPort, Protocol
from harness.model.world import Namespace

ARTICLE = """
apiVersion: v1
kind: Namespace
metadata:
  name: np-demo
  annotations:
    net.beta.kubernetes.io/network-policy: '{"ingress": {"isolation": "DefaultDeny"}}'
    other: kept
---
apiVersion: extensions/v1beta1
kind: NetworkPolicy
metadata: {name: access-nginx, namespace: np-demo}
spec:
  podSelector: {matchLabels: {run: nginx}}
  ingress:
  - from: [{podSelector: {matchLabels: {run: access}}}]
    ports: [{protocol: TCP, port: 80}, {port: dns, protocol: UDP}]
"""


def test_the_articles_namespace_and_policy() -> None:
    loaded = load_legacy_text(ARTICLE, "old.yaml")
    assert not loaded.problems
    converted = convert(loaded.objects)
    namespace, deny, access = converted.objects
    assert isinstance(namespace, Namespace)
    assert dict(namespace.annotations) == {"other": "kept"}
    assert deny == NetworkPolicy("np-demo", "default-deny", policy_types=(Direction.INGRESS,))
    assert isinstance(access, NetworkPolicy)
    assert (access.name, access.policy_types, access.egress) == (
        "access-nginx",
        (Direction.INGRESS,),
        (),
    )
    (rule,) = access.ingress
    assert rule.peers == (Peer(LabelSelector((("run", "access"),))),)
    assert rule.ports == (PolicyPort(port=80), PolicyPort(Protocol.UDP, "dns"))
    assert [(note.code, str(note.source)) for note in converted.notes] == [
        ("annotation", "old.yaml:2"),
        ("same", "old.yaml:10"),
    ]


def test_the_loader_points_to_convert() -> None:
    (problem,) = load_text(ARTICLE).errors
    assert "netpol convert" in problem.hint


def old(ingress: str, annotation: bool = True) -> tuple[list[str], list[NetworkPolicy]]:
    """The codes of the notes and the policies that a policy with this ``ingress`` becomes."""
    text = ARTICLE.split("---")[0] if annotation else "{}"
    loaded = load_legacy_text(
        f"{text}\n---\napiVersion: extensions/v1beta1\nkind: NetworkPolicy\n"
        f"metadata: {{name: p, namespace: np-demo}}\nspec: {{podSelector: {{}}{ingress}}}\n"
    )
    assert not [p for p in loaded.errors if "apiVersion" not in p.field and p.field != "kind"]
    converted = convert(loaded.objects)
    codes = [note.code for note in converted.notes if note.about == "np-demo/p"]
    return codes, [
        thing
        for thing in converted.objects
        if isinstance(thing, NetworkPolicy) and thing.name == "p"
    ]


@pytest.mark.parametrize(
    ("ingress", "codes", "rules"),
    [
        ("", ["no-rules"], None),
        (", ingress: []", ["no-rules"], None),
        (", ingress: [{}]", ["same"], 1),
        (", ingress: [null]", ["same"], 1),
        (", ingress: [{from: []}]", ["empty-from", "no-rules"], None),
        (", ingress: [{ports: []}]", ["empty-ports", "no-rules"], None),
        (", ingress: [{from: [], ports: []}]", ["empty-from", "empty-ports", "no-rules"], None),
        (", ingress: [{from: []}, {ports: [{port: 1}]}]", ["empty-from"], 1),
        (", ingress: [{from: [{namespaceSelector: {}}]}]", ["same"], 1),
    ],
)
def test_empty_meant_nothing(ingress: str, codes: list[str], rules: int | None) -> None:
    said, policies = old(ingress)
    assert said == codes
    assert [len(policy.ingress) for policy in policies] == ([] if rules is None else [rules])


def test_in_a_namespace_that_is_not_isolated_policies_did_nothing() -> None:
    loaded = load_legacy_text(
        ARTICLE.replace("net.beta.kubernetes.io/network-policy", "something/else")
    )
    converted = convert(loaded.objects)
    assert converted.objects == ()
    (note,) = converted.notes
    assert note.code == "no-effect"
    assert "would shut pods with run=nginx" in note.text


def test_a_namespace_that_was_not_read_counts_as_open_and_that_is_told() -> None:
    loaded = load_legacy_text(ARTICLE.split("---")[1])
    converted = convert(loaded.objects)
    assert not converted.objects
    assert [note.code for note in converted.notes] == ["unknown-namespace"]


def test_the_name_default_deny_may_be_taken() -> None:
    loaded = load_legacy_text(ARTICLE.replace("access-nginx", "default-deny"))
    names = [thing.name for thing in convert(loaded.objects).objects]
    assert names == ["np-demo", "default-deny-2", "default-deny"]


@pytest.mark.parametrize("value", ["DefaultDeny", "[]", '{"ingress": 1}', "", "null"])
def test_an_annotation_that_is_none(value: str) -> None:
    namespace = Namespace("n", annotations={"net.beta.kubernetes.io/network-policy": value})
    with pytest.raises(ValueError, match="is not"):
        isolated(namespace)
    (problem,) = convert([namespace]).problems
    assert "network-policy" in problem.field


@pytest.mark.parametrize("value", ["{}", '{"ingress": {}}', '{"ingress": {"isolation": "None"}}'])
def test_an_annotation_that_does_not_isolate(value: str) -> None:
    namespace = Namespace("n", annotations={"net.beta.kubernetes.io/network-policy": value})
    assert not isolated(namespace)
    converted = convert([namespace])
    assert [thing.name for thing in converted.objects] == ["n"]
    assert [note.code for note in converted.notes] == ["annotation"]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ("{egress: []}", "spec.egress", "came after Kubernetes 1.6"),
        ("{policyTypes: [Ingress]}", "spec.policyTypes", "came after Kubernetes 1.6"),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            "spec.ingress[0].from[0].ipBlock",
            "came after Kubernetes 1.6",
        ),
        ("{ingress: [{form: []}]}", "spec.ingress[0].form", "unknown field"),
        (
            "{ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]}",
            "spec.ingress[0].from[0]",
            "exactly one of",
        ),
        ("{ingress: [{ports: [{port: 0}]}]}", "spec.ingress[0].ports[0].port", "from 1 to 65535"),
        (
            "{ingress: [{ports: [{protocol: SCTP}]}]}",
            "spec.ingress[0].ports[0].protocol",
            "none of TCP, UDP",
        ),
    ],
)
def test_what_the_old_api_did_not_have(spec: str, field: str, message: str) -> None:
    loaded = load_legacy_text(
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
        f"spec: {spec}\n"
    )
    problem = next(p for p in loaded.errors if p.field == field)
    assert message in problem.message
    assert not loaded.objects


def test_what_it_meant_in_words() -> None:
    rule = LegacyRule((Peer(LabelSelector((("run", "access"),))),), None)
    policy = LegacyPolicy("n", "p", LabelSelector((("run", "nginx"),)), (rule, LegacyRule(())))
    assert meaning(policy, in_isolated=True) == (
        "n/p let connections in to pods with run=nginx of n, from pods with run=access of "
        "namespace n, on every port"
    )
    assert "did nothing" in meaning(policy, in_isolated=False)
    assert meaning(LegacyPolicy("n", "p"), in_isolated=True) == "n/p allowed nothing"
