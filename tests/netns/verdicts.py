"""A manifest's two readers side by side: a real API server, and :mod:`harness.model`.

Both take a manifest or name the fields that are wrong. They name *the same* field where the paths
are equal or one leads further in: for a wrong label the server names the labels, the loader the
one label; for a mapping where a number belongs, the loader names the mapping, the server what is
unknown in it.

The server looks in three rounds and tells of the first in which something is wrong: its decoder
stops at a value of a wrong type, then it tells all unknown fields, then all wrong values. The
loader tells everything at once. So the server's fields are all to be among the loader's, and only
after the last round the loader's among the server's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from harness.labs.cluster.api import Api, ApiError, path
from harness.model.manifest import load_text

_UNKNOWN = re.compile(r'unknown field ("(?:[^"\\]|\\.)*")')
_WRONG_TYPE = re.compile(r"cannot unmarshal .* into Go struct field (\w+)\.(\S+) of type")
_INDEX = re.compile(r"\[\d+\]")
_KEY = re.compile(r"\[([^\]]*\D[^\]]*)\]")  # of a mapping, where it has dots
_UNCHECKED = "<nil>"  # "some validation rules were not checked because the object was invalid"


@dataclass(frozen=True)
class Verdict:
    """``thing`` is what was read where it was taken; else ``fields`` are those that are wrong.

    ``whole``: they are all; ``exact``: with their indices; ``said``: in the reader's own words.
    """

    thing: Any = None
    fields: frozenset[str] = frozenset()
    whole: bool = True
    exact: bool = True
    said: str = field(default="", compare=False)


def by_server(api: Api, manifest: dict[str, Any]) -> Verdict:
    """What the server says to a dry run with strict fields."""
    where = path(manifest["kind"], manifest["metadata"].get("namespace", ""))
    try:
        answer = api.request(
            "POST", where, manifest, {"dryRun": "All", "fieldValidation": "Strict"}
        )
    except ApiError as error:
        said = error.message
        if error.status == 422:
            fields = {cause["field"] for cause in error.body["details"]["causes"]}
            whole = _UNCHECKED not in fields
            return Verdict(fields=frozenset(fields - {_UNCHECKED}), whole=whole, said=said)
        if found := _UNKNOWN.findall(said):
            fields = {_unquoted(one) for one in found}
            return Verdict(fields=frozenset(fields), whole=False, said=said)
        if wrong := _WRONG_TYPE.search(said):
            # where metadata is read by itself, its fields are told without it
            bare = wrong[1] == "ObjectMeta" and not wrong[2].startswith("metadata")
            fields = {f"metadata.{wrong[2]}" if bare else wrong[2]}
            return Verdict(fields=frozenset(fields), whole=False, exact=False, said=said)
        raise
    return Verdict(answer)


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:  # Go's quoting of what cannot be printed is not JSON's
        return text[1:-1]


def by_loader(manifest: dict[str, Any], version: tuple[int, int]) -> Verdict:
    """What the loader says to the same text."""
    text = json.dumps(manifest, ensure_ascii=False)
    loaded = load_text(text, server_version=version)
    if loaded.errors:
        said = "; ".join(str(problem) for problem in loaded.errors)
        return Verdict(fields=frozenset(problem.field for problem in loaded.errors), said=said)
    assert len(loaded.objects) == 1, loaded.problems
    return Verdict(loaded.objects[0])


def unlike(server: Verdict, loader: Verdict, unseen: str = "") -> str:
    """How the two differ in what they refuse; empty if they do not.

    ``unseen`` is a regular expression of the fields whose values this server lets pass, and the
    loader on purpose does not.
    """
    ours = loader.fields if server.exact else {_INDEX.sub("", one) for one in loader.fields}
    seen = [one for one in ours if not (unseen and re.search(unseen, one))]
    if server.thing is not None:
        return f"the server takes it; the loader: {loader.said}" if seen else ""
    if loader.thing is not None:
        return f"the loader takes it; the server: {server.said}"
    missed = [one for one in server.fields if not any(_same(one, o) for o in ours)]
    more = [one for one in seen if not any(_same(one, s) for s in server.fields)]
    if missed:
        return f"{missed} named by the server alone: {server.said}; the loader: {loader.said}"
    if more and server.whole:
        return f"{more} named by the loader alone: {loader.said}; the server: {server.said}"
    return ""


def _same(one: str, other: str) -> bool:
    short, long = sorted((_KEY.sub(r".\1", one), _KEY.sub(r".\1", other)), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}["))
