"""Policies from before Kubernetes 1.7: the server is asked whether it still knows their form.

``extensions/v1beta1`` became ``networking.k8s.io/v1``, and the annotation that isolated a namespace
became a policy, ``default-deny``. No server of today serves the old form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.labs.base import Lab
from harness.labs.cluster.lab import ClusterLab
from harness.model.legacy import convert, load_legacy
from harness.model.manifest import to_manifest, to_yaml
from harness.model.policy import NetworkPolicy

MANIFEST = Path(__file__).parent / "manifests" / "old" / "policy.yaml"


def test_the_old_form_is_not_served_and_its_v1_equivalent_is(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    """The server says so itself; the equivalent is shown, and the server would take it."""
    if not isinstance(lab, ClusterLab):
        pytest.skip("this lab has no API to ask: take --lab-api, --lab kind or --lab kubeconfig")
    served = {group["name"] for group in lab.api.request("GET", "/apis")["groups"]}
    assert "networking.k8s.io" in served
    assert "extensions" not in served, "this server still serves the API group extensions"

    found = convert(load_legacy([MANIFEST]).objects)
    policies = [item for item in found.objects if isinstance(item, NetworkPolicy)]
    assert {policy.name for policy in policies} == {"default-deny", "access-nginx"}
    shown = to_yaml(policies)
    request.node.user_properties.append(("v1", shown))  # for JUnit XML
    print(f"{lab.api.server} does not serve extensions/v1beta1; in networking.k8s.io/v1:\n{shown}")
    for policy in policies:
        manifest: dict[str, Any] = to_manifest(policy)
        manifest["metadata"]["namespace"] = "default"  # one that is there: nothing is kept
        answer = lab.api.create(manifest, dryRun="All", fieldValidation="Strict")
        assert answer["apiVersion"] == "networking.k8s.io/v1"
