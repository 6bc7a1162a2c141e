"""The catalogue of CNIs: one entry is one TOML file in ``entries/``; a new CNI needs no code."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from harness.cnis import engine as engine_
from harness.cnis.cni import (
    Cni,
    CniError,
    Deviation,
    Engine,
    EvidenceCommand,
    Extra,
    Manifest,
    Patch,
    Ready,
    Setting,
)
from harness.cnis.engine import ApiEngine
from harness.cnis.typed import complaint

NETWORKS = ("routed", "overlay", "bridged")
LABS = ("netns", "kind", "kubeconfig")
FAMILIES = ("ipv4", "ipv6", "dual")
DENIALS = ("", "drop", "reject")
# Tables of an entry and the value that each becomes.
TABLES: dict[str, type] = {
    "deviations": Deviation,
    "manifests": Manifest,
    "settings": Setting,
    "patches": Patch,
    "extras": Extra,
    "ready": Ready,
    "evidence": EvidenceCommand,
}
ENGINES: dict[str, type] = {"engine": Engine, "api_engine": ApiEngine}


def get(name: str, changes: str = "") -> Cni:
    """The entry of that name. Raises CniError, which names near matches, where there is none.

    ``changes`` is TOML in an entry's form that is laid over it: the ``engine.toml`` of an engine.
    """
    text = _texts().get(name)
    if text is None:
        near = get_close_matches(name, names(), cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise CniError(f"no CNI named {name!r} is in the catalogue: {hint}")
    return parse(name, text, changes)


@cache
def names() -> tuple[str, ...]:
    """The names that ``--cni`` takes, sorted; entries that are only kept as a warning left out."""
    return tuple(name for name, text in _texts().items() if "retired" not in tomllib.loads(text))


def parse(name: str, text: str, changes: str = "") -> Cni:
    """An entry from its TOML text. Raises CniError with the file and the key that is wrong."""
    raw = _overlaid(_read(f"{name}.toml", text), _read(f"engine.toml of {name}", changes))
    if "retired" in raw:
        raise CniError(f"{name}: {raw['retired']}")
    raw = _like(raw, name)
    values: dict[str, Any] = {"name": name}
    for key, value in raw.items():
        if key in TABLES:
            values[key] = [_build(TABLES[key], item, name, key) for item in _list(value, name, key)]
        elif key in ENGINES:
            values[key] = _engine(ENGINES[key], value, name, key)
        else:
            values[key] = value
    cni: Cni = _build(Cni, values, name, "")
    _check(cni)
    return cni


def _read(file: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CniError(f"catalogue entry {file} is not TOML: {error}") from None


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables are laid over each other key by key; everything else is replaced."""
    out = dict(below)
    for key, value in above.items():
        mine = out.get(key)
        both = isinstance(value, dict) and isinstance(mine, dict)
        out[key] = _overlaid(mine, value) if both else value  # type: ignore[arg-type]
    return out


def _like(raw: dict[str, Any], entry: str) -> dict[str, Any]:
    """With the engine of the entry that its own is like."""
    mine = raw.get("api_engine")
    if not isinstance(mine, dict) or "like" not in mine:
        return raw
    text = _texts().get(str(mine["like"]))
    base = tomllib.loads(text).get("api_engine") if text else None
    if base is None:
        raise CniError(
            f"catalogue entry {entry}.toml, api_engine: like names {mine['like']!r}, which is no "
            "entry with an api_engine"
        )
    return {**raw, "api_engine": _overlaid(base, mine)}


def _engine(kind: type, raw: Any, entry: str, where: str) -> Any:
    """An engine's table, with the tables that are in it."""
    if kind is not ApiEngine or not isinstance(raw, dict):
        return _build(kind, raw, entry, where)
    values = dict(raw)
    for key, inner in engine_.TABLES.items():
        if key in values:
            values[key] = _build(inner, values[key], entry, f"{where}.{key}")
    for key, inner in engine_.LISTS.items():
        items = _list(values.get(key, []), entry, f"{where}.{key}")
        values[key] = [_build(inner, item, entry, f"{where}.{key}") for item in items]
    planes = values.get("dataplanes", {})
    if isinstance(planes, dict):
        values["dataplanes"] = {
            name: _plane(plane, entry, f"{where}.dataplanes.{name}")
            for name, plane in planes.items()
        }
    return _build(kind, values, entry, where)


def _plane(raw: Any, entry: str, where: str) -> Any:
    if isinstance(raw, dict) and "needs" in raw:
        raw = {**raw, "needs": _build(engine_.Needs, raw["needs"], entry, f"{where}.needs")}
    return _build(engine_.Plane, raw, entry, where)


def _list(value: Any, entry: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise CniError(f"catalogue entry {entry}.toml: {where} is no list of tables")
    return value


@cache
def _texts() -> dict[str, str]:
    found = (files(__package__) / "entries").iterdir()
    entries = {f.name[:-5]: f.read_text() for f in found if f.name.endswith(".toml")}
    return dict(sorted(entries.items()))


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType(value)
    return value


def _build(kind: type, raw: Any, entry: str, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    place = f"catalogue entry {entry}.toml" + (f", {where}" if where else "")
    if not isinstance(raw, dict):
        raise CniError(f"{place}: it is no table")
    for key in raw:
        if key not in known:
            near = get_close_matches(key, known)
            raise CniError(f"{place}: unknown key {key!r}" + (f", meant {near[0]}?" * bool(near)))
    if wrong := complaint(kind, raw):
        raise CniError(f"{place}: {wrong}")
    values = {key: _frozen(value) for key, value in raw.items()}
    if kind is Deviation and "features" in values:
        values["features"] = frozenset(raw["features"])
    try:
        return kind(**values)
    except TypeError as error:  # a key that the value must have is missing
        raise CniError(f"{place}: {str(error).partition(' ')[2]}") from None


def _check(cni: Cni) -> None:
    def need(good: bool, text: str) -> None:
        if not good:
            raise CniError(f"catalogue entry {cni.name}.toml: {text}")

    need(cni.network in NETWORKS, f"network {cni.network!r} is none of {', '.join(NETWORKS)}")
    need(bool(cni.labs) and set(cni.labs) <= set(LABS), f"labs must be some of {', '.join(LABS)}")
    need(cni.deny in DENIALS, f"deny {cni.deny!r} is neither drop nor reject")
    need(cni.enforces == bool(cni.deny), "what enforces says how it denies, and only that")
    need(
        not cni.enforces or bool(cni.engine or cni.api_engine) or "netns" not in cni.labs,
        "on lab netns a CNI that enforces needs an engine",
    )
    if cni.api_engine is not None:
        for wrong in engine_.problems(cni.api_engine):
            need(False, f"api_engine: {wrong}")
    for manifest in cni.manifests:
        need(bool(manifest.url) != bool(manifest.file), "a manifest is either a url or a file")
        pinned = len(manifest.sha256) == 64 or not manifest.url
        need(pinned, f"sha256 of {manifest.url} has not 64 digits")
    need(set(cni.cluster_families) <= set(FAMILIES), f"cluster_families: {', '.join(FAMILIES)}")
    for deviation in cni.deviations:
        need(set(deviation.labs) <= set(cni.labs), "labs of a deviation: those of the entry")
        try:
            SpecifierSet(deviation.versions)
        except InvalidSpecifier as error:
            need(False, f"versions of a deviation: {error}")
