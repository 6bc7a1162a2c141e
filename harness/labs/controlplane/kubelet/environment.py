"""What a container finds: environment variables, and files mounted from the API's objects."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from harness.labs.controlplane.kubelet import images
from harness.labs.controlplane.kubelet.client import ApiStatusError

if TYPE_CHECKING:
    from harness.labs.controlplane.kubelet.pod import PodWorker

Json = dict[str, Any]

_TOKEN_SECONDS = 3607  # what Kubernetes itself asks for


class NotYetError(Exception):
    """Something that the container needs is not there (yet)."""


async def of(pod: PodWorker, container: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a container. Raises NotYetError."""
    found = {
        **images.environment_of(container.get("image", "")),
        "HOME": "/tmp",  # noqa: S108 - the container's own
        "HOSTNAME": pod.node.name if pod.host_network else pod.key[1],
        **pod.node.service_env,
    }
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for kind, reference in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference in source:
                data = await _data(pod, kind, source[reference])
                found.update({prefix + key: value for key, value in data.items()})
    for one in container.get("env") or ():
        if "valueFrom" in one:
            value = await _value(pod, one["valueFrom"])
        else:
            value = images.expand(one.get("value", ""), found)
        if value is not None:
            found[one["name"]] = value
    return found


async def _value(pod: PodWorker, source: Json) -> str | None:
    if "fieldRef" in source:
        field = source["fieldRef"]["fieldPath"]
        try:
            return images.downward(pod.json, field, pod.ips, pod.node.ips)
        except KeyError:
            raise NotYetError(f"a hollow node does not know the field {field}") from None
    for kind, reference in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference in source:
            wanted = source[reference]
            data = await _data(pod, kind, wanted)
            if wanted["key"] in data:
                return data[wanted["key"]]
            if wanted.get("optional"):
                return None
            raise NotYetError(f"couldn't find key {wanted['key']} in {kind} {wanted['name']}")
    return "0"  # resourceFieldRef: nothing is limited here


async def mounts(pod: PodWorker, container: Mapping[str, Any]) -> dict[str, str]:
    """Files (path -> text) of a container's volumes. Raises NotYetError."""
    volumes = {one["name"]: one for one in pod.json["spec"].get("volumes") or ()}
    found: dict[str, str] = {}
    for mount in container.get("volumeMounts") or ():
        volume = volumes[mount["name"]]
        files = await _volume(pod, volume)
        where = mount["mountPath"].rstrip("/")
        sub = mount.get("subPath")
        if sub:
            if sub in files:
                found[where] = files[sub]
            continue
        found.update({f"{where}/{name}": text for name, text in files.items()})
    return found


async def _volume(pod: PodWorker, volume: Json) -> dict[str, str]:
    if "configMap" in volume:
        return _selected(volume["configMap"], await _data(pod, "ConfigMap", volume["configMap"]))
    if "secret" in volume:
        source = volume["secret"]
        named = {**source, "name": source["secretName"]}
        return _selected(source, await _data(pod, "Secret", named))
    if "downwardAPI" in volume:
        return _fields(pod, volume["downwardAPI"])
    if "projected" in volume:
        found: dict[str, str] = {}
        for source in volume["projected"].get("sources") or ():
            if "serviceAccountToken" in source:
                token = source["serviceAccountToken"]
                found[token["path"]] = await _token(pod, token)
            for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
                if key in source:
                    found.update(_selected(source[key], await _data(pod, kind, source[key])))
            if "downwardAPI" in source:
                found.update(_fields(pod, source["downwardAPI"]))
        return found
    if "emptyDir" in volume:
        return {}  # /tmp is empty, and each container's own
    kind = next((key for key in volume if key != "name"), "?")
    raise NotYetError(
        f"volume {volume['name']}: a hollow node mounts no {kind}; it has configMap, secret, "
        "projected and downwardAPI"
    )


def _selected(source: Json, data: Mapping[str, str]) -> dict[str, str]:
    if "items" not in source:
        return dict(data)
    return {one["path"]: data[one["key"]] for one in source["items"] if one["key"] in data}


def _fields(pod: PodWorker, source: Json) -> dict[str, str]:
    return {
        one["path"]: images.downward(pod.json, one["fieldRef"]["fieldPath"], pod.ips, pod.node.ips)
        for one in source.get("items") or ()
        if "fieldRef" in one
    }


async def _token(pod: PodWorker, source: Json) -> str:
    namespace, name = pod.key
    account = pod.json["spec"].get("serviceAccountName", "default")
    spec: Json = {
        "expirationSeconds": source.get("expirationSeconds", _TOKEN_SECONDS),
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod.uid},
    }
    if source.get("audience"):
        spec["audiences"] = [source["audience"]]
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await _ask(
        pod, "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body
    )
    return str(answer["status"]["token"])


async def _data(pod: PodWorker, kind: str, reference: Json) -> dict[str, str]:
    plural = {"ConfigMap": "configmaps", "Secret": "secrets"}[kind]
    path = f"/api/v1/namespaces/{pod.key[0]}/{plural}/{reference['name']}"
    try:
        answer = await _ask(pod, "GET", path)
    except NotYetError:
        if reference.get("optional"):
            return {}
        raise
    data = answer.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
    return dict(data)


async def _ask(pod: PodWorker, method: str, path: str, body: Json | None = None) -> Json:
    try:
        return await pod.node.client.request(method, path, body)
    except ApiStatusError as error:
        raise NotYetError(str(error)) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NotYetError(f"the API server does not answer: {error}") from None
