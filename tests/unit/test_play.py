"""The playground's parts that need no lab: names, options, pods for policies that come alone."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import pytest
from _pytest.config.argparsing import Parser

from harness import __main__ as cli
from harness.labs.base import LabError
from harness.labs.kind import clean, state
from harness.model.fast import Reach
from harness.model.manifest import load, load_text
from harness.model.world import ContainerPort, Node, Pod, Service, ServicePort, World
from harness.play import furnish, options
from harness.play.cast import cast
from harness.play.home import Home, PlayError, base, home, homes
from harness.plugin import options as plugin_options

GOLDEN = Path(__file__).parents[1] / "golden/desk"


def test_where_labs_are_remembered() -> None:
    assert base({"XDG_STATE_HOME": "/s"}) == Path("/s/netpol/labs")
    assert base({"XDG_STATE_HOME": "s", "HOME": "/h"}) == Path("/h/.local/state/netpol/labs")


@pytest.mark.parametrize("name", ["", "..", "a/b", "Upper", "-a", "a-", "x" * 33])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(PlayError, match="can be no lab's name"):
        home(name)


def test_one_keeper_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    there = home("a")
    assert not there.is_up()
    lock = there.make()
    assert there.is_up()
    with pytest.raises(PlayError, match="lab a is up already"):
        there.make()
    with pytest.raises(PlayError, match="still coming up"):
        there.connect()
    with there.ending() as ended:
        assert not ended()
        os.close(lock)
        assert ended()
    with pytest.raises(PlayError, match="it ended without"):
        there.connect()
    assert homes() == [there]


def test_a_folder_whose_name_is_long(tmp_path: Path) -> None:
    """A socket's name may have 107 characters; folders' names are longer than that."""
    there = Home("a", tmp_path / ("x" * 200))
    os.close(there.make())
    with there.listen() as listening, there.connect() as call, listening.accept()[0] as answer:
        call.sendall(b"hello")
        assert answer.recv(5) == b"hello"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlayError, match="XDG_STATE_HOME"):
        Home("a", tmp_path / "file/a").make()


def test_the_options_are_those_of_pytest() -> None:
    """The same names without ``lab-``, the same choices and defaults."""
    plugin = Parser(_ispytest=True)
    plugin_options.add(plugin)
    known = {option.dest: option.attrs() for option in plugin.getgroup("netpol").options}
    parser = argparse.ArgumentParser()
    options.add(parser)
    for action in parser._actions[1:]:
        told = known[action.dest if action.dest == "cni" else f"lab_{action.dest}"]
        assert (action.choices and tuple(action.choices)) == told.get("choices"), action.dest
        if told.get("default") is not None:
            assert action.default == told["default"], action.dest


POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: front}}
      podSelector: {matchExpressions: [{key: app, operator: In, values: [web, app]}]}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 80}, {port: metrics}]
  egress:
  - to: [{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}]
    ports: [{port: 53, protocol: UDP}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: admin}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {team: back}}}
  ingress:
  - {action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: bad}}}}]}
"""


def test_a_cast_for_policies_that_come_alone() -> None:
    loaded = load_text(POLICIES)
    assert loaded.problems == []
    world = cast(loaded.world())
    pods = {str(pod): dict(pod.labels) for pod in world.pods.values()}
    assert pods == {
        "back/stranger": {},
        "elsewhere/bad": {"app": "bad"},
        "elsewhere/stranger": {},
        "front/stranger": {},
        "front/web": {"app": "web"},
        "shop/any": {"tier": "any"},
        "shop/api": {"app": "api"},
        "shop/stranger": {},
    }
    assert world.namespaces["front"].labels["team"] == "front"
    ports = {(p.port, p.protocol, p.name) for p in world.pods["shop", "api"].ports}
    assert ports == {
        (53, "UDP", None),
        (80, "TCP", None),
        (81, "TCP", None),
        (8001, "TCP", "metrics"),
    }


@pytest.mark.parametrize("file", ["demo.yaml", "shop.yaml"])
def test_a_few_pods_speak_for_all(file: str) -> None:
    """What is left out could not be told from what is kept."""
    world = furnish.fit(load([GOLDEN / file]).world(), ())
    fewer = furnish.few(world)
    assert set(fewer.pods) <= set(world.pods)
    assert len(fewer.pods) > 1
    for members in Reach(world, 4).table().groups:
        kept = [one for one in members if (one.namespace, one.name) in fewer.pods]
        assert len(kept) >= min(len(members), furnish.OF_A_KIND)


def test_what_a_lab_has_of_its_own_is_left_out() -> None:
    """As in a live cluster: its DNS server, the API's Service, ports of nodes."""
    dns = Pod("kube-system", "coredns-1", {"k8s-app": "kube-dns"}, "far", ("10.0.0.1",))
    web = Pod("x", "web", {"app": "web"}, "far", ("10.0.0.2",), (ContainerPort(80, host_port=80),))
    services = [
        Service("default", "kubernetes", ports=(ServicePort(443, 6443),)),
        Service("kube-system", "kube-dns", {"k8s-app": "kube-dns"}, (ServicePort(53, 53),)),
        Service("x", "web", {"app": "web"}, (ServicePort(80, 80),), ("10.96.0.7",)),
    ]
    world = World(
        pods={pod.key: pod for pod in (dns, web)},
        services={service.key: service for service in services},
        nodes={"far": Node("far", ("10.0.0.9",))},
    )
    left = furnish.portable(furnish.fit(world, ("worker",)))
    assert left.nodes == {}
    assert list(left.pods.values()) == [
        Pod("x", "web", {"app": "web"}, None, (), (ContainerPort(80),))
    ]
    assert [(str(s), s.cluster_ips) for s in left.services.values()] == [("x/web", ())]


def test_clean_deletes_clusters_of_runs_that_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that cannot be deleted is told, and keeps none of the others from it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, kept in (("netpol-a", ""), ("netpol-b", ""), ("netpol-c", state.KEPT)):
        state.write(state.Known(name, "r", "calico", "docker", kept or state.UP, 0, "gone"))

    def delete(one: state.Known) -> None:
        if one.name == "netpol-a":
            raise LabError("docker is not on PATH")
        deleted.append(one.name)

    deleted: list[str] = []
    monkeypatch.setattr(clean, "clean", delete)
    assert cli.main(["clean"]) == 2
    assert deleted == ["netpol-b"]
    assert "docker is not on PATH" in capsys.readouterr().err
    assert cli.main(["clean", "--kept"]) == 2
    assert deleted == ["netpol-b", "netpol-b", "netpol-c"]


def test_a_keeper_that_goes_away_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before a command was sent, too: its connection is broken then."""

    def broken(_: Home) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    monkeypatch.setattr(Home, "connect", broken)
    for words in (["lab", "status"], ["lab", "shell", "a", "true"]):
        assert cli.main(words) == cli.USAGE
        assert "keeper has gone away without an answer" in capfd.readouterr().err
