"""Never open, never stuck: restarts, other people's hands in the rules, refused transactions."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from onenode import Enforcer, OneNode

from tests.benchmarks.enforcer_worlds import crowd
from tests.netns import attack

A, B = "10.244.1.2", "10.244.1.3"
A6, B6 = "fd00:1::2", "fd00:1::3"
OURS = re.compile("NETPOL|NP[a-z][46]-|netpol")
PLANES = ["iptables", "iptables-legacy", "nftables"]


def pod(name: str, *addresses: str, **more: Any) -> dict[str, Any]:
    spec = {"nodeName": more.pop("node", "node"), "containers": [{"name": "c", "image": "i"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "x", "name": name, "labels": {"app": name}, **more},
        "spec": spec,
        "status": {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": name},
        "spec": {"podSelector": {}, **spec},
    }


POD_A, POD_B = pod("a", A, A6), pod("b", B, B6)
DENY = policy("deny")


@pytest.fixture
def node() -> Iterator[OneNode]:
    with OneNode() as node:
        node.add("a", A, A6, tcp=[80, 81])
        node.add("b", B, B6, tcp=[80])
        yield node


def start(node: OneNode, plane: str) -> Enforcer:
    dataplane, _, variant = plane.partition("-")
    return Enforcer(node, dataplane, *(["--iptables", variant] if variant else []))


def blocked(node: OneNode) -> bool:
    return not any(node.probe([("b", A, "tcp", 80), ("b", A6, "tcp", 80)], wait=0.1))


def within(seconds: float, what: Callable[[], str], happens: Callable[[], bool]) -> None:
    """Wait until something happens; fails after so many seconds."""
    begun = time.monotonic()
    while not happens():
        assert time.monotonic() < begun + seconds, f"{what()}: not within {seconds} s"
        time.sleep(0.01)


MESSES = {
    "iptables": [
        "iptables -F NETPOL",
        "iptables -F FORWARD",
        "ip6tables -D FORWARD 1",
        "iptables -I FORWARD 1 -j ACCEPT",
        "ip6tables -I FORWARD 1 -j ACCEPT",
        "iptables -F; iptables -X",
        "ip6tables-restore < /dev/null; printf '*filter\\nCOMMIT\\n' | ip6tables-restore",
        "nft delete table ip filter",
        "nft flush ruleset",
        "ipset flush",
        "iptables -F; iptables -X; ip6tables -F; ip6tables -X; ipset destroy",
    ],
    "iptables-legacy": [
        "iptables-legacy -F FORWARD",
        "ip6tables-legacy -I FORWARD 1 -j ACCEPT",
        "iptables-legacy -F; iptables-legacy -X",
        "ipset flush",
    ],
    "nftables": [
        "nft flush ruleset",
        'nft "delete table ip6 $T; delete table ip $T"',
        'nft "flush chain ip $T forward-in; flush chain ip6 $T forward-in"',
        "nft flush map ip $T in",
        "nft delete chain ip6 $T forward-in",
    ],
}


@pytest.mark.parametrize("plane", PLANES)
def test_what_others_break_is_mended(node: OneNode, plane: str) -> None:
    """Each within a second on an idle machine; the bound here lets a busy one pass."""
    with start(node, plane) as enforcer:
        enforcer.sync(POD_A, POD_B, DENY, ALLOW_A_AT_81)
        for mess in MESSES[plane]:
            within(10, enforcer.said, enforcer.is_calm)
            assert blocked(node), mess
            before = len(enforcer.mendings())
            node.run(
                "sh", "-c", f"T=$(nft list tables | sed -n 's/table ip6 //p'); {mess}", check=False
            )
            within(
                10,
                lambda m=mess: f"{m}: noticed {enforcer.said()}",
                lambda b=before: len(enforcer.mendings()) > b,
            )  # type: ignore[misc]
            within(10, lambda m=mess: f"{m}: closed {enforcer.said()}", lambda: blocked(node))
            for address in (A, A6):
                within(
                    10,
                    lambda m=mess: f"{m}: open {enforcer.said()}",
                    lambda a=address: node.can("b", a, 81),
                )  # type: ignore[misc]
        # what is mended stays so: the mendings are not taken for somebody else's doing
        time.sleep(0.6)
        settled = len(enforcer.mendings())
        time.sleep(1.0)
        assert len(enforcer.mendings()) == settled, enforcer.mendings()


ALLOW_A_AT_81 = policy(
    "allow",
    podSelector={"matchLabels": {"app": "a"}},
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": 81}]}],
)


@pytest.fixture
def crowded(node: OneNode) -> Iterator[Enforcer]:
    """With so many policies that to build all anew takes a while."""
    with start(node, "iptables") as enforcer:
        enforcer.sync(*crowd(pods=100, local=100, policies=1000), POD_A, POD_B, DENY, ALLOW_A_AT_81)
        yield enforcer


def hooked(node: OneNode) -> str:
    """What our chain leads to: to other chains, once all was built anew."""
    return re.sub(r"-A NETPOL -j RETURN\n", "", node.run("iptables", "-S", "NETPOL"))


def elements(node: OneNode) -> list[str]:
    """Of all sets, whichever building they are of."""
    lines = node.run("ipset", "save").splitlines()
    return sorted(re.sub("NP[a-z]", "NP", line) for line in lines if line.startswith("add"))


def test_emptied_sets_are_filled_and_nothing_is_built_anew(
    node: OneNode, crowded: Enforcer
) -> None:
    before, there = hooked(node), elements(node)
    node.run("ipset", "flush")
    within(10, crowded.said, lambda: bool(crowded.mendings()) and crowded.is_calm())
    assert hooked(node) == before
    assert elements(node) == there
    assert node.can("b", A, 81)
    assert blocked(node)


def test_emptied_sets_are_filled_before_all_is_built_anew(node: OneNode, crowded: Enforcer) -> None:
    """What is allowed gets through again by the rules that were there, while others are made."""
    before = hooked(node)
    node.run("sh", "-c", "ipset flush; iptables -A NETPOL -j RETURN")
    within(10, crowded.said, lambda: node.probe([("b", A, "tcp", 81)], wait=0.02)[0])
    assert hooked(node) == before
    within(10, crowded.said, lambda: bool(crowded.mendings()) and crowded.is_calm())
    assert hooked(node) != before  # there was much to build
    assert node.can("b", A, 81)
    assert blocked(node)


def test_sets_that_hold_more_are_built_anew(node: OneNode, crowded: Enforcer) -> None:
    """An address of somebody else's is not left in a set that is filled again."""
    before, there = hooked(node), elements(node)
    names = [line.split()[1] for line in node.run("ipset", "save").splitlines() if "/" not in line]
    name = next(one for one in names if f"add {one} {B}" in node.run("ipset", "save", one))
    node.run("sh", "-c", f"ipset flush; ipset add {name} 192.0.2.1")
    within(10, crowded.said, lambda: bool(crowded.mendings()) and crowded.is_calm())
    assert elements(node) == there
    assert hooked(node) != before


@pytest.mark.parametrize("plane", PLANES)
def test_a_change_that_fits_no_transaction_is_no_failure(node: OneNode, plane: str) -> None:
    """Inside of a user namespace one has to fit a socket's buffer; here most rules change."""

    def rules(friend: str) -> Iterator[dict[str, Any]]:
        peer = [{"podSelector": {"matchLabels": {"app": friend}}}]
        for n in range(1000):
            allow = [{"from": peer, "ports": [{"port": 5000 + n}]}]
            yield policy(f"p{n}", podSelector={"matchLabels": {"app": "a"}}, ingress=allow)

    allow = policy("allow", podSelector={}, ingress=[{"ports": [{"port": 81}]}])
    with start(node, plane) as enforcer:
        enforcer.sync(POD_A, POD_B, *rules("nobody"))
        enforcer.put(*rules("b"), allow)
        assert "failed" not in enforcer.said()
        assert node.can("b", A, 81)
        assert not node.can("b", A, 80)


@pytest.mark.parametrize("plane", PLANES)
def test_foreign_rules_are_left_alone(node: OneNode, plane: str) -> None:
    variant = "-legacy" if plane.endswith("legacy") else "-nft"
    node.run("sh", "-c", f"iptables{variant} -N MINE; iptables{variant} -A MINE -j RETURN")
    node.run("sh", "-c", f"iptables{variant} -A FORWARD -j MINE; ipset create mine hash:ip")
    node.run("sh", "-c", "nft add table inet mine; nft add chain inet mine c")

    def foreign() -> tuple[str, ...]:
        rules = node.run(f"iptables{variant}", "-S").splitlines()
        sets = node.run("ipset", "list", "-n").split()
        tables = node.run("nft", "list", "tables").splitlines()
        return tuple(sorted(line for line in (*rules, *sets, *tables) if not OURS.search(line)))

    before = foreign()
    with start(node, plane) as enforcer:
        enforcer.sync(POD_A, POD_B, DENY, ALLOW_A_AT_81)
        # iptables-nft makes its own table for the other family
        assert set(before) <= set(foreign())
        enforcer.drop(DENY)
        options = enforcer.command[3:]
    node.run(sys.executable, "-m", "harness.enforcer", "clean", *options)
    assert set(foreign()) - set(before) <= {"table ip6 filter"}
    rules = "".join(node.run(f"{t}{variant}", "-S") for t in ("iptables", "ip6tables"))
    everything = rules + node.run("nft", "list", "ruleset") + node.run("ipset", "list", "-n")
    assert not OURS.search(everything)


class Attack:
    """:mod:`tests.netns.attack` from a client of the node."""

    def __init__(self, node: OneNode, client: str, *targets: str) -> None:
        argv = [*node.enter(client), sys.executable, attack.__file__, *targets]
        self.program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.program.stdout
        assert self.program.stdout.readline() == b"begun\n"

    def end(self) -> tuple[int, int]:
        """How often it tried, and how often it got through."""
        output, _ = self.program.communicate(b"\n")
        tried, got = map(int, output.split())
        return tried, got


@pytest.mark.parametrize("plane", ["iptables", "nftables"])
def test_killed_at_any_moment_it_is_never_open(node: OneNode, plane: str) -> None:
    """``NETPOL_KILLS=100`` for the full count; the moments differ from kill to kill."""
    kills = int(os.environ.get("NETPOL_KILLS", "20"))
    moments = random.Random(plane)
    with start(node, plane) as enforcer:
        enforcer.sync(POD_A, POD_B, DENY, ALLOW_A_AT_81)
        client = Attack(node, "b", A, A6)
        for _ in range(kills):
            enforcer.restart()
            events = [("ADDED", thing) for thing in (POD_A, POD_B, DENY, ALLOW_A_AT_81)]
            enforcer.send(*events, ("SYNCED", None))
            time.sleep(moments.uniform(0.0, 0.4))
        enforcer.restart()
        enforcer.sync(POD_A, POD_B, DENY, ALLOW_A_AT_81)
        tried, got = client.end()
        assert tried > kills * 10
        assert got == 0, f"{got} of {tried}"
        assert node.can("b", A, 81)
        # what the killed ones left half built is gone
        epochs = set(re.findall(r"\bNP([a-z])[46]-", node.run("ipset", "list", "-n")))
        epochs |= set(re.findall(r"netpol-([a-z])\b", node.run("nft", "list", "tables")))
        assert len(epochs) == 1
        # and the attack would have got through an opening
        enforcer.drop(DENY, ALLOW_A_AT_81)

        def gets_through() -> bool:
            client = Attack(node, "b", A, A6)
            time.sleep(0.2)
            return client.end()[1] > 0

        within(10, enforcer.said, gets_through)


@pytest.mark.parametrize(
    ("before", "after"),
    [("nftables", "iptables"), ("iptables", "nftables"), ("iptables-legacy", "nftables")],
)
def test_another_data_plane_takes_over(node: OneNode, before: str, after: str) -> None:
    """What was in force goes once the other's rules are: it would shut what is allowed by now."""
    with start(node, before) as old:
        old.sync(POD_A, POD_B, DENY)
    assert blocked(node)
    variant = ["--iptables", "legacy"] if before.endswith("legacy") else []
    client = Attack(node, "b", A, A6)
    with Enforcer(node, after, *variant) as new:
        new.sync(POD_A, POD_B, DENY, ALLOW_A_AT_81)
        tried, got = client.end()
        assert tried > 10
        assert got == 0, f"{got} of {tried}"
        assert node.can("b", A, 81), new.said()
        assert node.can("b", A6, 81), new.said()
        assert blocked(node)
        assert '"event": "replaced"' in new.said()
        # and it is not taken for somebody else's doing
        assert new.mendings() == []
    clean = [sys.executable, "-m", "harness.enforcer", "clean", *variant]
    node.run(*clean, "--dataplane", after)
    rules = node.run("nft", "list", "ruleset") + node.run("ipset", "list", "-n")
    rules += "".join(node.run(f"{t}-legacy", "-S") for t in ("iptables", "ip6tables"))
    assert not OURS.search(rules)


def test_clean_takes_both_data_planes_away(node: OneNode) -> None:
    with start(node, "nftables") as enforcer:
        enforcer.sync(POD_A, DENY)
        rules = node.run("nft", "list", "ruleset")
    with start(node, "iptables") as enforcer:
        enforcer.sync(POD_A, DENY)
    node.run("nft", "-f", "-", text=rules)  # as if it had not taken them away
    assert "netpol-a" in node.run("nft", "list", "tables")
    assert "NETPOL" in node.run("iptables-save")
    node.run(sys.executable, "-m", "harness.enforcer", "clean")
    everything = node.run("nft", "list", "ruleset") + node.run("ipset", "list", "-n")
    assert not OURS.search(everything)
