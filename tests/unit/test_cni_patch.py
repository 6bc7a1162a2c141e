"""Manifests as catalogue entries want them, and what is told where an entry finds no place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from harness.cnis import catalogue, patch
from harness.cnis.cni import Cni, CniError
from harness.cnis.recognise import engines, recognise
from harness.model.image import full, repository

MANIFEST = """
apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: agent, namespace: kube-system}
    spec:
      template:
        spec:
          initContainers:
            - {name: init, image: "example/agent:latest", imagePullPolicy: Always, env: null}
          containers:
            - name: agent
              image: example/agent
              env: [{name: RANGE, value: old}, {name: KEEP, value: "1"}]
              args: [--old]
---
---
apiVersion: v1
kind: ConfigMap
metadata: {name: agent, namespace: kube-system}
data: {net-conf.json: '{"Network": "10.0.0.0/8", "Type": "vxlan"}'}
"""
ENTRY = """
title = "Agent"
network = "overlay"
labs = ["kind"]
enforces = false
images = ["docker.io/example/agent:v1.2"]

[[settings]]
workload = "DaemonSet/agent"
container = "agent"
name = "RANGE"
value = "{pod_subnet}"
why = "w"

[[patches]]
object = "ConfigMap/agent"
field = "data[net-conf.json]"
find = '"Network": "10.0.0.0/8"'
value = '"Network": "{pod_subnet}"'
why = "w"

[[patches]]
object = "DaemonSet/agent"
field = "spec.template.spec.containers[agent].args"
value = ["--plane={dataplane}"]
why = "w"

[[extras]]
why = "w"
yaml = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: extra, namespace: kube-system}}"
"""
VALUES = {"pod_subnet": "10.244.0.0/16", "dataplane": "nftables"}


def entry(text: str = ENTRY) -> Cni:
    return catalogue.parse("agent", text)


def prepared(text: str = ENTRY, manifest: str = MANIFEST, **options: Any) -> Any:
    return patch.prepared(entry(text), patch.read(manifest, "m.yaml"), VALUES, **options)


def test_all_that_an_entry_says_is_done() -> None:
    objects, notes = prepared()
    assert notes == []
    assert [patch.title(one) for one in objects] == [
        *("DaemonSet/agent", "ConfigMap/agent", "ServiceAccount/extra")
    ]
    pod = objects[0]["spec"]["template"]["spec"]
    assert pod["initContainers"] == [
        {
            "name": "init",
            "image": "docker.io/example/agent:v1.2",
            "imagePullPolicy": "IfNotPresent",
        }
    ]
    assert pod["containers"][0]["image"] == "docker.io/example/agent:v1.2"
    assert pod["containers"][0]["args"] == ["--plane=nftables"]
    assert {one["name"]: one["value"] for one in pod["containers"][0]["env"]} == {
        "KEEP": "1",
        "RANGE": "10.244.0.0/16",
    }
    assert objects[1]["data"]["net-conf.json"] == '{"Network": "10.244.0.0/16", "Type": "vxlan"}'
    assert patch.images_of(objects) == ["docker.io/example/agent:v1.2"]
    yaml.safe_dump(objects)  # plain lists and dicts, as a server takes them


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DaemonSet/agent", "DaemonSet/agnet", "there is no container agent in DaemonSet/agnet"),
        ("ConfigMap/agent", "ConfigMap/agnet", "there is no ConfigMap/agnet"),
        ("10.0.0.0/8", "10.1.0.0/8", 'of ConfigMap/agent has no "Network": "10.1.0.0/8"'),
        ("containers[agent]", "containers[agnet]", "DaemonSet/agent has no spec.template"),
        ("example/agent:v1.2", "example/other:v1.2", "image example/agent:latest .* not pinned"),
    ],
)
def test_what_finds_no_place_is_told(old: str, new: str, message: str) -> None:
    text = ENTRY.replace(old, new)
    with pytest.raises(CniError, match=message):
        prepared(text)
    _, notes = prepared(text, lenient=True)  # somebody's own file: a note is enough
    assert notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "m.yaml is not YAML"),
        ("", "m.yaml holds no object"),
        ("[1, 2]", "no Kubernetes object"),
        ("{apiVersion: v1, kind: Pod, metadata: {}}", "a Pod without apiVersion or name"),
        ("<html>404</html>", "no Kubernetes object: <html>404"),
    ],
)
def test_a_file_that_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(CniError, match=message):
        patch.read(text, "m.yaml")


@pytest.mark.parametrize(
    ("name", "whole", "home"),
    [
        ("nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx"),
        ("a/b:1", "docker.io/a/b:1", "docker.io/a/b"),
        ("quay.io/a/b:1@sha256:00", "quay.io/a/b:1@sha256:00", "quay.io/a/b"),
        ("localhost:5000/b", "localhost:5000/b:latest", "localhost:5000/b"),
        ("localhost/b:dev", "localhost/b:dev", "localhost/b"),
    ],
)
def test_names_of_images(name: str, whole: str, home: str) -> None:
    assert full(name) == whole
    assert repository(name) == home


def test_a_cluster_is_recognised_by_its_workloads() -> None:
    kindnet = ("DaemonSet", "kube-system", "kindnet")
    calico = ("DaemonSet", "kube-system", "calico-node")
    enforcer = ("DaemonSet", "kube-system", "netpol-enforcer")
    flannel = ("DaemonSet", "kube-flannel", "kube-flannel-ds")
    assert [cni.name for cni in recognise([calico])] == ["calico"]  # and none of its variants
    assert [cni.name for cni in recognise([flannel, enforcer])] == ["enforcer", "flannel"]
    assert [cni.name for cni in engines([flannel, enforcer])] == ["enforcer"]
    assert [cni.name for cni in engines([kindnet, enforcer])] == ["enforcer", "kindnet"]
    assert recognise([("DaemonSet", "default", "canal")]) == []
