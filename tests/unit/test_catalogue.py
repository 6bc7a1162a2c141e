"""The catalogue of CNIs: every entry loads, and a bad one is told with file and key."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cnis import catalogue
from harness.cnis.cni import CniError, Deviation
from harness.plugin.collect import mark_known
from harness.run.place import KindOptions, Place, entries

GOOD = 'title = "T"\nnetwork = "routed"\nlabs = ["kind"]\nenforces = true\ndeny = "drop"\n'


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_loads(name: str) -> None:
    cni = catalogue.get(name)
    assert cni.title
    assert cni.lab == cni.labs[0]
    assert all(deviation.reason and deviation.link for deviation in cni.deviations)


def test_every_file_is_an_entry() -> None:
    found = {f.name.removesuffix(".toml") for f in (files("harness.cnis") / "entries").iterdir()}
    assert found == {*catalogue.names(), "romana"}


def test_the_mission_and_its_controls_are_there() -> None:
    assert {"calico", "weave", "canal", "enforcer", "flannel", "none"} <= set(catalogue.names())
    assert not catalogue.get("none").enforces
    assert not catalogue.get("flannel").enforces


def test_manifests_are_pinned_by_tag_and_digest() -> None:
    for name in catalogue.names():
        for manifest in catalogue.get(name).manifests:
            if manifest.file:
                assert (Path(__file__).parents[2] / manifest.file).is_file()
                continue
            assert f"/{manifest.version}/" in manifest.url
            assert int(manifest.sha256, 16)


def test_of_variants_of_one_manifest_each_is_pinned_alike() -> None:
    pins: dict[str, str] = {}
    for name in catalogue.names():
        for manifest in catalogue.get(name).manifests:
            assert pins.setdefault(manifest.url, manifest.sha256) == manifest.sha256


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("calcio", "did you mean calico"),
        ("", "there are antrea, calico"),
        ("../entries/calico", "no CNI named '../entries/calico'"),
        ("romana", "dead since 2018"),
    ],
)
def test_a_name_that_cannot_be_had_says_what_can(name: str, text: str) -> None:
    with pytest.raises(CniError, match=text):
        catalogue.get(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "x.toml is not TOML"),
        ('title = "T"\n', "x.toml: missing .* required .* 'network'"),
        (GOOD + "enfroces = true\n", "unknown key 'enfroces', meant enforces?"),
        (GOOD.replace("routed", "tube"), "network 'tube' is none of routed, overlay, bridged"),
        (GOOD.replace('deny = "drop"', ""), "says how it denies"),
        (GOOD.replace("kind", "netns"), "needs an engine"),
        (GOOD + '[[deviations]]\nreason = "r"\n', "x.toml, deviations: missing .* 'link'"),
        (
            GOOD + '[[deviations]]\nreason = "r"\nlink = "l"\nversions = "soon"\n',
            "versions of a deviation: Invalid specifier",
        ),
    ],
)
def test_a_bad_entry_is_told_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(CniError, match=message):
        catalogue.parse("x", text)


@pytest.mark.parametrize(
    ("scenario", "features", "version", "hit"),
    [
        ("ports/endport/range", {"end-port", "tcp"}, "2.8.1", True),
        ("ports/endport/range", {"tcp"}, "2.8.1", False),
        ("peers/all", {"end-port"}, "2.8.1", False),
        ("ports/endport/range", {"end-port"}, "3.0", False),
        ("ports/endport/range", {"end-port"}, "my-build", True),
        ("ports/endport/range-of-one", {"end-port"}, "2.8.1", False),
    ],
)
def test_a_deviation_covers_what_it_names(
    scenario: str, features: set[str], version: str, hit: bool
) -> None:
    deviation = Deviation("r", "l", "ports/*", frozenset({"end-port"}), ">=2,<3", ("*-of-one",))
    assert deviation.matches(scenario, frozenset(features), version, "kind") is hit


def test_a_deviation_may_show_on_some_labs_alone() -> None:
    """Nothing masquerades where an engine runs by itself on the embedded lab."""
    rule = "suites/test_pod_network.py::test_nodes_and_pods_reach_each_other_without_nat[overlay]"
    for name in ("calico", "canal", "flannel", "kindnet"):
        found = [catalogue.get(name).deviation(rule, frozenset(), lab) for lab in ("kind", "netns")]
        assert found[0] is not None
        assert found[1] is None


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (Place(lab="kind", kind=KindOptions(network="flannel")), ["flannel", "enforcer"]),
        (Place(lab="kind"), ["none", "enforcer"]),
        (Place(lab="netns", kind=KindOptions(network="flannel")), ["enforcer"]),
    ],
)
def test_the_network_under_an_engine_brings_its_deviations(place: Place, names: list[str]) -> None:
    assert [cni.name for cni in entries(catalogue.get("enforcer"), place)] == names


class Marked:
    """As much of a pytest item as is looked at."""

    name = nodeid = "suites/t.py::test_nodes_and_pods_reach_each_other_without_nat[overlay]"

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def iter_markers(self) -> list[Any]:
        return []

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark)


@pytest.mark.parametrize(("network", "known"), [("flannel", 1), ("", 0)])
def test_an_item_is_expected_to_fail_for_the_network_as_well(network: str, known: int) -> None:
    place = Place(lab="kind", kind=KindOptions(network=network))
    run: Any = SimpleNamespace(cni=catalogue.get("enforcer"), place=place, baseline={})
    item: Any = Marked()
    mark_known(item, run)
    assert len(item.marks) == known
    for mark in item.marks:
        assert mark.kwargs["strict"] is True
        assert "known deviation of Flannel" in mark.kwargs["reason"]


def test_an_engine_needs_all_its_placeholders() -> None:
    engine = catalogue.get("enforcer").engine
    assert engine is not None
    argv = engine.command(python="/p", node="n1", dataplane="nftables")
    assert argv[:3] == ("/p", "-m", "harness.enforcer")
    assert argv[-1] == "nftables"
    with pytest.raises(KeyError):
        engine.command(python="/p")
