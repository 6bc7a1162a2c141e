"""The parts of the embedded lab that need no namespace."""

from __future__ import annotations

import errno
import os
import socket
from itertools import pairwise
from typing import Any

import pytest

from harness.labs.base import LabError
from harness.labs.netns import addresses, client, wire
from harness.labs.netns.engine import argv_for
from harness.labs.netns.fabric import FABRICS, node_batch, pod_batch
from harness.labs.netns.lab import NetnsLab
from harness.labs.server import nginx_config
from harness.model.world import Node, Pod

# -- addresses ---------------------------------------------------------------------------------


def test_a_range_gives_freed_addresses_out_last() -> None:
    own = addresses.Range("10.0.0.0/29")  # .2 to .6: the first is the gateway's
    assert [own.take("x") for _ in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(
        LabError, match=r"10\.0\.0\.0/29 is used up: no address is left for ns/late"
    ):
        own.take("ns/late")
    own.release("10.0.0.4")
    own.release("10.0.0.3")
    assert [own.take("y"), own.take("y")] == ["10.0.0.3", "10.0.0.4"]


def test_a_claimed_address_is_not_given_out() -> None:
    own = addresses.Range("10.0.0.0/29")
    assert own.claim("10.0.0.2", "a") == "10.0.0.2"
    assert own.claim("10.0.0.2", "a") == "10.0.0.2"
    with pytest.raises(LabError, match=r"b asks for 10\.0\.0\.2, but a has it"):
        own.claim("10.0.0.2", "b")
    assert own.take("b") == "10.0.0.3"


def test_addresses_that_are_asked_for_are_given_to_others_last() -> None:
    """A run of many pods comes by every address that is not kept."""
    own = addresses.Range("10.0.0.0/29", kept=4)
    assert [own.take("x"), own.take("x")] == ["10.0.0.2", "10.0.0.3"]
    own.release("10.0.0.2")
    assert own.take("y") == "10.0.0.2"
    assert own.claim("10.0.0.5", "asks") == "10.0.0.5"
    assert [own.take("z"), own.take("z")] == ["10.0.0.4", "10.0.0.6"]
    with pytest.raises(LabError, match="is used up"):
        own.take("late")


def test_pod_cidrs_are_cut_in_order_and_end() -> None:
    assert addresses.pod_cidrs((4, 6), 0) == ("10.244.0.0/24", "fd00:10:244::/64")
    assert addresses.pod_cidrs((4, 6), 255) == ("10.244.255.0/24", "fd00:10:244:ff::/64")
    with pytest.raises(LabError, match="no room for the pod CIDR of node 257"):
        addresses.pod_cidrs((4,), 256)


# -- fabrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fabric", FABRICS.values(), ids=lambda f: f.name)
def test_no_interface_name_is_too_long(fabric: object) -> None:
    named = FABRICS["bridged"].named(prefix="vethwepl")
    for one in (fabric, named):
        assert len(one.link("a" * 63, "b" * 63)) <= 15  # type: ignore[attr-defined]
    nodes = [Node(f"n{i}", (f"172.18.0.{i + 2}",), (f"10.244.{i}.0/24",)) for i in range(101)]
    others = list(enumerate(nodes))[:-1]
    text = "\n".join(node_batch(fabric, 100, nodes[100], others))  # type: ignore[arg-type]
    words = text.split()
    names = [b for a, b in pairwise(words) if a in ("dev", "name", "master")]
    assert names
    assert max(map(len, names)) <= 15


def test_an_overlays_pods_leave_room_for_its_header() -> None:
    node = Node("n", ("172.18.0.2",), ("10.244.0.0/24",))
    lines = pod_batch(FABRICS["overlay"], node, Pod("a", "b", node="n", ips=("10.244.0.2",)))
    assert any("mtu 1450" in line for line in lines)


def test_a_fabric_that_does_not_exist_is_told_with_those_that_do(tmp_path: object) -> None:
    with pytest.raises(LabError, match="no fabric 'mesh'; there is: routed, overlay, bridged"):
        NetnsLab(tmp_path, fabric="mesh")  # type: ignore[arg-type]


# -- servers and engines -----------------------------------------------------------------------


def test_nginx_listens_as_told() -> None:
    text = nginx_config("a/b", tcp=[80, 81], udp=[53], page_directory="/p", stream_module="/m.so")
    assert text.startswith("load_module /m.so;")
    for listen in ("listen 80;", "listen [::]:80;", "listen 53 udp;", "listen [::]:53 udp;"):
        assert listen in text
    assert text.count("root /p;") == 1  # the page is the first port's
    assert "stream" not in nginx_config("a/b", tcp=[80], stream_module="/m.so")
    assert "[::]" not in nginx_config("a/b", tcp=[80], families=(4,))


def test_only_known_placeholders_are_filled_in() -> None:
    argv = ["e", "--node={node}", "{}", "{nodes}", '{"a": 1}']
    assert argv_for(argv, {"node": "n1"}) == ["e", "--node=n1", "{}", "{nodes}", '{"a": 1}']


# -- the wire ----------------------------------------------------------------------------------


def test_messages_and_descriptors_arrive_together_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    receiver = wire.Receiver(theirs)
    with ours, theirs:
        wire.send(ours, {"n": 1})
        wire.send(ours, {"n": 2, "text": "x" * 50_000}, [writing])
        wire.send(ours, {"n": 3}, [reading, writing])
        got: list[tuple[dict[str, object], list[int]]] = []
        while len(got) < 3:
            assert receiver.read()
            got += receiver.messages()
        assert [message["n"] for message, _ in got] == [1, 2, 3]
        assert [len(fds) for _, fds in got] == [0, 1, 2]
        os.write(got[1][1][0], b"through")
        assert os.read(got[2][1][0], 10) == b"through"
        assert not any(os.get_inheritable(fd) for _, fds in got for fd in fds)
        for _, fds in got:
            wire.close_all(fds)
        ours.close()
        assert not receiver.read()
    wire.close_all([reading, writing])


def test_a_peer_may_be_done_and_gone_before_the_send_returns() -> None:
    ours, theirs = socket.socketpair()

    class Hasty:
        """A socket whose peer has closed by the time that its sendmsg returns."""

        def sendmsg(self, *arguments: Any) -> int:
            sent = ours.sendmsg(*arguments)
            theirs.close()
            return sent

        def sendall(self, data: bytes) -> None:
            ours.sendall(data)

    with ours, open(os.devnull) as null:
        wire.send(Hasty(), {"op": "spawn"}, [null.fileno()])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ],
)
def test_the_hint_names_the_setting_that_is_off(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, hint: str
) -> None:
    def read(path: object) -> str:
        if str(path).endswith(setting):
            return value + "\n"
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", read)
    assert client.namespace_hint(errno.EPERM) == f"as root: {hint}"


def test_the_hint_for_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: "77\n")
    assert "--security-opt" in client.namespace_hint(errno.EPERM)
    assert "user.max_" in client.namespace_hint(errno.ENOSPC)
