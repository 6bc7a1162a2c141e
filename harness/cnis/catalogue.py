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

from harness.cnis.cni import (
    ApiEngine,
    Cni,
    CniError,
    Deviation,
    Engine,
    EvidenceCommand,
    Manifest,
    Ready,
    Setting,
)

NETWORKS = ("routed", "overlay", "bridged")
LABS = ("netns", "kind", "kubeconfig")
DENIALS = ("", "drop", "reject")
# Tables of an entry and the value that each becomes.
TABLES: dict[str, type] = {
    "deviations": Deviation,
    "manifests": Manifest,
    "settings": Setting,
    "ready": Ready,
    "evidence": EvidenceCommand,
}
ENGINES: dict[str, type] = {"engine": Engine, "api_engine": ApiEngine}


def get(name: str) -> Cni:
    """The entry of that name. Raises CniError, which names near matches, where there is none."""
    text = _texts().get(name)
    if text is None:
        near = get_close_matches(name, names(), cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise CniError(f"no CNI named {name!r} is in the catalogue: {hint}")
    return parse(name, text)


@cache
def names() -> tuple[str, ...]:
    """The names that ``--cni`` takes, sorted; entries that are only kept as a warning left out."""
    return tuple(name for name, text in _texts().items() if "retired" not in tomllib.loads(text))


def parse(name: str, text: str) -> Cni:
    """An entry from its TOML text. Raises CniError with the file and the key that is wrong."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CniError(f"catalogue entry {name}.toml is not TOML: {error}") from None
    if "retired" in raw:
        raise CniError(f"{name}: {raw['retired']}")
    values: dict[str, Any] = {"name": name}
    for key, value in raw.items():
        if key in TABLES:
            values[key] = tuple(_build(TABLES[key], item, name, key) for item in value)
        elif key in ENGINES:
            values[key] = _build(ENGINES[key], value, name, key)
        else:
            values[key] = _frozen(value)
    cni: Cni = _build(Cni, values, name, "")
    _check(cni)
    return cni


@cache
def _texts() -> dict[str, str]:
    found = (files(__package__) / "entries").iterdir()
    entries = {f.name: f.read_text() for f in found if f.name.endswith(".toml")}
    return {name.removesuffix(".toml"): text for name, text in sorted(entries.items())}


def _frozen(value: object) -> object:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType(value)
    return value


def _build(kind: type, raw: dict[str, Any], entry: str, where: str) -> Any:
    known = {f.name for f in fields(kind)}
    place = f"catalogue entry {entry}.toml" + (f", {where}" if where else "")
    for key in raw:
        if key not in known:
            near = get_close_matches(key, known)
            raise CniError(f"{place}: unknown key {key!r}" + (f", meant {near[0]}?" * bool(near)))
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
        need(cni.api_engine.account.count("/") == 1, "account of api_engine is no NAMESPACE/NAME")
    for manifest in cni.manifests:
        need(len(manifest.sha256) == 64, f"sha256 of {manifest.url} has not 64 digits")
    for deviation in cni.deviations:
        try:
            SpecifierSet(deviation.versions)
        except InvalidSpecifier as error:
            need(False, f"versions of a deviation: {error}")
