"""A record without names, to show to strangers: structure, verdicts and times stay.

Replaced, each by a name of its own that is the same throughout: namespaces, pods, Services,
policies, nodes, outside hosts, label values and addresses. Left out: evidence, the command lines
and what tools said, for no list of names is complete for them. A name of one or two letters is
replaced where it stands as a name (``ns/pod``), but not in running text, where it is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import yaml

from harness.report.shape import RunRecord, ScenarioRecord, StepRecord

GONE = "(redacted)"
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[\da-fA-F]*:[\da-fA-F]*:)[\da-fA-F:]{3,})(?![\w:])"
)
#: Label keys and values that say nothing of anybody.
_PUBLIC = re.compile(r"^(kubernetes\.io|k8s-app|app\.kubernetes\.io|node-role)")


class _Names:
    """Old name -> new name, by kind."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}
        self._count: dict[str, int] = {}
        self._pattern: re.Pattern[str] | None = None

    def of(self, kind: str, name: str) -> str:
        if not name:
            return name
        found = self.known.get((kind, name))
        if found is None:
            self._count[kind] = self._count.get(kind, 0) + 1
            found = self.known[kind, name] = f"{kind}{self._count[kind]}"
            if kind != "ip":
                self._pattern = None
        return found

    def pair(self, kind: str, text: str) -> str:
        """``ns/name``."""
        namespace, slash, name = text.partition("/")
        if not slash:
            return self.of(kind, text)
        return f"{self.of('ns', namespace)}/{self.of(kind, name)}"

    def endpoint(self, text: str) -> str:
        prefix, colon, rest = text.partition(":")
        if colon and prefix in ("node", "external"):
            return f"{prefix}:{self.of(prefix, rest)}"
        if colon and prefix == "svc":
            return f"svc:{self.pair('svc', rest)}"
        return self.pair("pod", text)

    def text(self, text: str) -> str:
        """Running text: known names and all addresses."""
        if self._pattern is None:
            self._pattern = self._compiled()
        plain: dict[str, str] = {}
        for (_, old), new in self.known.items():
            plain.setdefault(old, new)

        def swap(match: re.Match[str]) -> str:
            found = match.group()
            if "/" in found:
                return "/".join(plain.get(part, part) for part in found.split("/"))
            return plain.get(found, found)

        text = self._pattern.sub(swap, text)
        return _ADDRESS.sub(lambda m: self.of("ip", m.group()), text)

    def _compiled(self) -> re.Pattern[str]:
        names = sorted({old for kind, old in self.known if kind != "ip"}, key=len, reverse=True)
        all_of_them = "|".join(map(re.escape, names)) or "(?!)"
        long = "|".join(re.escape(n) for n in names if len(n) > 2) or "(?!)"
        edge = r"(?<![\w-])", r"(?![\w-])"
        return re.compile(
            f"{edge[0]}(?:{all_of_them})/(?:{all_of_them}){edge[1]}|{edge[0]}(?:{long}){edge[1]}"
        )


def redact(record: RunRecord) -> RunRecord:
    """A copy without names."""
    names = _Names()
    for scenario in record.scenarios:
        for step in scenario.steps:
            _learn(step, names)
    run = {k: v for k, v in record.run.items() if k not in ("argv", "environment")}
    return replace(
        record,
        run=run,
        scenarios=[_scenario(s, names) for s in record.scenarios],
        not_tested=[{k: names.text(v) for k, v in item.items()} for item in record.not_tested],
        damage=[names.text(text) for text in record.damage],
    )


def _learn(step: StepRecord, names: _Names) -> None:
    """Know all names of a step before its texts are touched."""
    for space in step.namespaces:
        names.of("ns", str(space["name"]))
        _labels(space.get("labels"), names)
    for pod in step.pods:
        names.endpoint(str(pod["name"]))
        names.of("node", str(pod.get("node") or ""))
        _labels(pod.get("labels"), names)
        for ip in pod.get("ips") or ():
            names.of("ip", str(ip))
    for cell in step.cells:
        names.endpoint(cell.source)
        names.endpoint(cell.target)
    for entry in step.reasons:
        for ground in entry.get("because", ()):
            for policy in ground.get("policies", ()):
                names.pair("policy", policy)
    for document in _documents(step.policies):
        meta = document.get("metadata") or {}
        names.of("ns", str(meta.get("namespace") or ""))
        names.of("policy", str(meta.get("name") or ""))
        _selectors(document, names)


def _labels(labels: Mapping[str, str] | None, names: _Names) -> dict[str, str]:
    return {
        k: v if _PUBLIC.match(k) and not k.endswith("metadata.name") else _value(k, v, names)
        for k, v in (labels or {}).items()
    }


def _value(key: str, value: str, names: _Names) -> str:
    kind = "ns" if key.endswith("kubernetes.io/metadata.name") else "value"
    return names.of(kind, str(value))


def _selectors(node: Any, names: _Names) -> Any:
    """A manifest with its names replaced."""
    if isinstance(node, list):
        return [_selectors(item, names) for item in node]
    if not isinstance(node, dict):
        return names.text(node) if isinstance(node, str) else node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("matchLabels", "labels") and isinstance(value, dict):
            out[key] = _labels(value, names)
        elif key == "values" and isinstance(value, list):
            out[key] = [_value(str(node.get("key") or ""), str(v), names) for v in value]
        elif key == "metadata" and isinstance(value, dict):
            named = {"namespace": "ns", "name": "policy"}
            out[key] = {
                k: names.of(named[k], str(v)) if k in named else _selectors(v, names)
                for k, v in value.items()
                if k != "annotations"
            }
        elif key in ("cidr", "except", "networks"):
            out[key] = _selectors(value, names)
        else:
            out[key] = _selectors(value, names) if isinstance(value, dict | list) else value
    return out


def _documents(text: str) -> Iterable[dict[str, Any]]:
    try:
        return [d for d in yaml.safe_load_all(text) if isinstance(d, dict)]
    except (yaml.YAMLError, ValueError, RecursionError):
        return []


def _scenario(scenario: ScenarioRecord, names: _Names) -> ScenarioRecord:
    return replace(
        scenario,
        id=names.text(scenario.id),
        title=names.text(scenario.title),
        why=names.text(scenario.why),
        source="",
        message=names.text(scenario.message),
        rerun="",
        steps=[_step(step, names) for step in scenario.steps],
    )


def _step(step: StepRecord, names: _Names) -> StepRecord:
    reasons = deepcopy(step.reasons)
    for entry in reasons:
        for ground in entry.get("because", ()):
            ground["text"] = names.text(ground["text"])
            ground["policies"] = [names.pair("policy", p) for p in ground.get("policies", ())]
            ground["source"] = ""
    plain = {f.name: getattr(step, f.name) for f in fields(StepRecord) if f.init}
    plain |= {
        "title": names.text(step.title),
        "why": names.text(step.why),
        "actions": [names.text(action) for action in step.actions],
        "policies": yaml.safe_dump_all(
            [_selectors(d, names) for d in _documents(step.policies)], sort_keys=False
        )
        if step.policies.strip()
        else "",
        "pods": [
            {
                "name": names.endpoint(str(pod["name"])),
                "labels": _labels(pod.get("labels"), names),
                "node": names.of("node", str(pod.get("node") or "")),
                "ips": [names.of("ip", str(ip)) for ip in pod.get("ips") or ()],
            }
            for pod in step.pods
        ],
        "namespaces": [
            {"name": names.of("ns", str(s["name"])), "labels": _labels(s.get("labels"), names)}
            for s in step.namespaces
        ],
        "reasons": reasons,
        "cells": [
            replace(
                cell,
                source=names.endpoint(cell.source),
                target=names.endpoint(cell.target),
                backend=names.endpoint(cell.backend) if cell.backend else "",
                seen_source=names.text(cell.seen_source),
                raw=GONE if cell.raw else "",
                note=names.text(cell.note),
            )
            for cell in step.cells
        ],
        "evidence": [{**e, "node": "", "command": GONE, "text": GONE} for e in step.evidence],
        "checks": [{**c, "text": GONE} if c.get("text") else dict(c) for c in step.checks],
    }
    return StepRecord(**{k: v for k, v in plain.items() if not k.startswith("_")})
