"""Manifests are written and read back without loss, whatever is in them, by every reader."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.manifest import from_manifest, load_text, to_manifest, to_yaml
from tests.property.model_strategies import (
    cluster_policies,
    namespaces,
    nodes,
    pods,
    policies,
    services,
)

objects = st.one_of(policies(), cluster_policies, namespaces, services, nodes, pods(number=7))


@given(objects)
def test_an_object_survives_being_written_and_read_back(thing: Any) -> None:
    assert from_manifest(to_manifest(thing)) == thing


@given(st.lists(objects, max_size=4))
def test_a_text_holds_what_was_written_into_it(things: list[Any]) -> None:
    loaded = load_text(to_yaml(things))
    assert not loaded.errors, [str(problem) for problem in loaded.problems]
    assert loaded.objects == things


@given(st.text(max_size=300))
def test_no_text_makes_the_loader_raise(text: str) -> None:
    loaded = load_text(text)
    assert isinstance(loaded.problems, list)


YAMLISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def _mutated(draw: st.DrawFn, data: Any) -> Any:
    """The manifest with something else somewhere in it."""
    if isinstance(data, dict) and data and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(data)))
        return {**data, key: _mutated(draw, data[key])}
    if isinstance(data, list) and data and draw(st.integers(0, 4)):
        i = draw(st.integers(0, len(data) - 1))
        return [*data[:i], _mutated(draw, data[i]), *data[i + 1 :]]
    return draw(YAMLISH)


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    return _mutated(draw, to_manifest(draw(objects)))


@given(mutants())
def test_a_broken_manifest_is_a_problem_or_an_object_and_never_a_traceback(data: Any) -> None:
    import json

    loaded = load_text(json.dumps(data))
    if (
        not loaded.objects
        and data not in (None, {})
        and isinstance(data, dict)
        and data.get("kind")
    ):
        assert loaded.problems or str(data["kind"]).endswith("List") or not data.get("kind")
    for problem in loaded.problems:
        assert str(problem)


@given(st.lists(objects, min_size=1, max_size=3))
def test_a_list_holds_the_same_as_its_items(things: list[Any]) -> None:
    import json

    manifest = {"apiVersion": "v1", "kind": "List", "items": [to_manifest(t) for t in things]}
    assert load_text(json.dumps(manifest)).objects == things


@pytest.mark.parametrize("kind", ["x", None, 3, "List"])
def test_from_manifest_names_the_kinds_that_it_reads(kind: object) -> None:
    from harness.model.manifest import ManifestError

    with pytest.raises(ManifestError, match="ClusterNetworkPolicy"):
        from_manifest({"kind": kind, "apiVersion": "v1"})
