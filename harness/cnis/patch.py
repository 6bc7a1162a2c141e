"""Manifests as a catalogue entry wants them: images pinned, settings set, fields patched. Pure.

What an entry says has to find its place. In a manifest of the catalogue's own, which is pinned, a
place that is not there is an error; in a file that somebody brought along it is a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from harness.cnis.cni import Cni, CniError, Extra, Patch, Setting
from harness.model.image import full, repository

Json = dict[str, Any]

_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")


def read(text: str, name: str) -> list[Json]:
    """The objects of a YAML file, Lists taken apart. Raises CniError."""
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise CniError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    found = [item for document in documents if document for item in _items(document, name)]
    if not found:
        raise CniError(f"{name} holds no object")
    return found


def _items(document: object, name: str) -> Iterator[Json]:
    if not isinstance(document, dict) or not document.get("kind"):
        raise CniError(f"{name} holds something that is no Kubernetes object: {str(document)[:60]}")
    if document["kind"] == "List":
        for item in document.get("items") or ():
            yield from _items(item, name)
        return
    if not document.get("apiVersion") or not (document.get("metadata") or {}).get("name"):
        raise CniError(f"{name}: a {document['kind']} without apiVersion or name")
    yield without_nulls(document)


def without_nulls(value: Any) -> Any:
    """The same without keys that have no value: servers take some of them for an error."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def prepared(
    cni: Cni,
    objects: Sequence[Json],
    values: Mapping[str, str],
    *,
    images: Sequence[str] = (),
    lenient: bool = False,
) -> tuple[list[Json], list[str]]:
    """The objects to apply, and notes on what found no place (``lenient``; else CniError).

    ``values`` are those of the placeholders. ``images`` are what untagged images are pinned to;
    none: the entry's. The objects that are given are changed in place.
    """
    notes: list[str] = []

    def missed(text: str) -> None:
        if not lenient:
            raise CniError(f"{cni.name}: {text}: the manifest is not what the entry is for")
        notes.append(text)

    _pin(objects, images or cni.images, missed)
    for setting in cni.settings:
        _set(setting, objects, values, missed)
    for patch in cni.patches:
        _patch(patch, objects, values, missed)
    return [*objects, *extras(cni.extras)], notes


def extras(wanted: Iterable[Extra]) -> list[Json]:
    """The objects of an entry's own."""
    return [item for extra in wanted for item in read(extra.yaml, "an extra of the entry")]


def images_of(objects: Iterable[Json]) -> list[str]:
    """Every image that the objects run, with its registry, once."""
    return list(dict.fromkeys(full(one["image"]) for item in objects for one in containers(item)))


def containers(item: Json) -> Iterator[Json]:
    """The containers of a workload or a pod, those that run before the others first."""
    spec = item.get("spec") or {}
    if item.get("kind") == "CronJob":
        spec = spec.get("jobTemplate", {}).get("spec", {})
    template = spec if item.get("kind") == "Pod" else (spec.get("template") or {}).get("spec") or {}
    for key in ("initContainers", "containers"):
        for one in template.get(key) or ():
            if isinstance(one, dict) and one.get("image"):
                yield one


def _pin(objects: Iterable[Json], pins: Iterable[str], missed: Callable[[str], None]) -> None:
    """Images without a tag, or with one that moves, get the one of ``pins``; what is on the nodes
    already is not pulled again."""
    known = {repository(pin): full(pin) for pin in pins}
    for item in objects:
        for one in containers(item):
            name = full(one["image"])
            if name.endswith(":latest"):
                pin = known.get(repository(name))
                if pin is None:
                    missed(f"image {one['image']} of {title(item)} is not pinned")
                else:
                    one["image"] = pin
            if one.get("imagePullPolicy") == "Always" or full(one["image"]).endswith(":latest"):
                one["imagePullPolicy"] = "IfNotPresent"


def _set(
    setting: Setting,
    objects: Iterable[Json],
    values: Mapping[str, str],
    missed: Callable[[str], None],
) -> None:
    found = False
    for item in objects:
        if title(item) != setting.workload:
            continue
        for one in containers(item):
            if one.get("name") == setting.container:
                env = [e for e in one.get("env") or () if e.get("name") != setting.name]
                one["env"] = [*env, {"name": setting.name, "value": fill(setting.value, values)}]
                found = True
    if not found:
        missed(f"there is no container {setting.container} in {setting.workload}")


def _patch(
    patch: Patch,
    objects: Iterable[Json],
    values: Mapping[str, str],
    missed: Callable[[str], None],
) -> None:
    for item in objects:
        if title(item) == patch.object:
            break
    else:
        missed(f"there is no {patch.object}")
        return
    *way, last = [key or name for key, name in _STEP.findall(patch.field)]
    place: Any = item
    for step in way:
        place = _step(place, step)
    if not isinstance(place, dict) or (patch.find and last not in place):
        missed(f"{patch.object} has no {patch.field}")
        return
    value = fill(patch.value, values)
    if patch.find:
        text = str(place[last])
        if patch.find not in text:
            missed(f"{patch.field} of {patch.object} has no {patch.find}")
            return
        value = text.replace(patch.find, str(value))
    place[last] = value


def _step(place: Any, step: str) -> Any:
    if isinstance(place, dict):
        return place.get(step)
    if isinstance(place, list):
        return next(
            (one for one in place if isinstance(one, dict) and one.get("name") == step), None
        )
    return None


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """The same with its placeholders filled in, as plain lists and dicts."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, Mapping):
        return {key: fill(one, values) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [fill(one, values) for one in value]
    return value


def title(item: Json) -> str:
    """``KIND/NAME``."""
    return f"{item['kind']}/{item['metadata']['name']}"
