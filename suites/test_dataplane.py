"""The data plane looked at, as the article does with ``iptables-save -c``: the enforcer's own.

Own chain ahead of the others, established connections accepted first, one set for many addresses,
and counters: of the deciding rule one packet for each connection, of the established rule the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from harness.cnis.cni import Cni
from harness.labs.base import Lab
from harness.model.actions import Apply, Relabel
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import (
    EVERYTHING,
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Rule,
)
from harness.model.world import Workload, World
from harness.run.runner import Looked
from harness.scenarios.scenario import Checked, Probes, Scenario, Step
from harness.scenarios.worlds import world

pytestmark = [getattr(pytest.mark, "data-plane"), pytest.mark.ingress, pytest.mark.tcp]
FEATURES = frozenset({"data-plane", "ingress", "tcp"})
SECONDS = 20
CONNECTIONS = 5
PAGE = "long\n" * 20_000  # 100 kB: as much as an environment variable can hold
MANY = 5  # packets of such a transfer at least, however the kernel bundles them
TARGET = Endpoint.parse("x/a")
CLIENT = Endpoint.parse("x/c")
POLICY = NetworkPolicy(
    "x",
    "friends",
    LabelSelector((("pod", "a"),)),
    (Direction.INGRESS,),
    ingress=(Rule((Peer(LabelSelector((("pod", "c"),)), EVERYTHING),), (PolicyPort(port=80),)),),
)
COMMENT = "x/friends ingress[0]"  # how the enforcer marks the rules of POLICY's only rule


@pytest.fixture(autouse=True)
def only_the_enforcer(cni: Cni, lab: Lab) -> None:
    """Other engines have other rules; what they do is seen on packets, in all other suites."""
    if cni.engine is None or "harness.enforcer" not in cni.engine.argv:
        pytest.skip(f"only the in-house enforcer's rules are known here, and this is {cni.title}")
    if "dataplane" not in lab.facts():
        pytest.skip("nodes are looked into on the embedded lab only")


class Seen(NamedTuple):
    """One rule: its table or chain, its text, its comment and the packets that it counted."""

    chain: str
    text: str
    comment: str
    packets: int


def on_node(looked: Looked, *argv: str) -> str:
    """Run a command on the target's node."""
    pod = looked.world.pods[TARGET.namespace, TARGET.name]
    node = Endpoint(EndpointKind.NODE, "", pod.node or "")
    status, text, _ = looked.prober.run(node, argv, SECONDS)
    assert status == 0, f"{' '.join(argv)}: {text}"
    return text


def uses_iptables(looked: Looked) -> bool:
    return bool(looked.lab.facts()["dataplane"] == "iptables")


def address(looked: Looked) -> str:
    """The target's first address; rules and sets are looked at in its family."""
    return looked.world.pods[TARGET.namespace, TARGET.name].ips[0]


def nft_listing(looked: Looked) -> str:
    """The enforcer's own tables; a proxy has tables as well."""
    family = "ip6" if ":" in address(looked) else "ip"
    tables = re.split(r"^(?=table )", on_node(looked, "nft", "list", "ruleset", family), flags=re.M)
    return "".join(table for table in tables if table.startswith(f"table {family} netpol"))


def rules(looked: Looked) -> list[Seen]:
    """The rules of the target's node, in their order."""
    if uses_iptables(looked):
        save = "ip6tables-save" if ":" in address(looked) else "iptables-save"
        return list(iptables_rules(on_node(looked, save, "-c")))
    return list(nft_rules(nft_listing(looked)))


def own_rules(looked: Looked) -> list[Seen]:
    """The enforcer's, without those of a proxy, which come and go as it likes."""
    found = rules(looked)
    if uses_iptables(looked):
        return [one for one in found if one.chain.startswith(("NETPOL", "NP"))]
    return found


def iptables_rules(text: str) -> Iterator[Seen]:
    for packets, chain, rest in re.findall(r"^\[(\d+):\d+\] -A (\S+) (.*)$", text, re.MULTILINE):
        comment = re.search(r'--comment "([^"]*)"', rest)
        yield Seen(chain, rest, comment[1] if comment else "", int(packets))


def nft_rules(text: str) -> Iterator[Seen]:
    chain = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain "):
            chain = line.split()[1]
        elif chain and line and line != "}":
            comment = re.search(r'comment "([^"]*)"', line)
            packets = re.search(r"counter packets (\d+)", line)
            yield Seen(
                chain, line, comment[1] if comment else "", int(packets[1]) if packets else 0
            )


def deciding(looked: Looked) -> Seen:
    """The one rule that POLICY's rule became."""
    (found,) = [rule for rule in rules(looked) if rule.comment == COMMENT]
    return found


def established(looked: Looked) -> int:
    """Packets that the rules for established connections counted."""
    return sum(r.packets for r in rules(looked) if "established" in r.comment.lower())


def members(looked: Looked, name: str) -> set[str]:
    """The addresses in a set."""
    if uses_iptables(looked):
        return set(
            re.findall(rf"^add {name} (\S+)", on_node(looked, "ipset", "save"), re.MULTILINE)
        )
    body = re.search(rf"set {name} {{(.*?)\n\t}}", nft_listing(looked), re.DOTALL)
    assert body, f"no set {name}"
    listed = re.search(r"elements = {(.*?)}", body[1], re.DOTALL)
    return set(re.split(r"[\s,]+", listed[1].strip())) if listed else set()


def checked(name: str, good: bool, text: object) -> Checked:
    return Checked(name, "passed" if good else "failed", str(text))


def big_page() -> World:
    """Three namespaces of three; the target has a long page."""
    base = world("three-by-three")
    target = base.pods["x", "a"]
    page = replace(target, page=PAGE, workload=Workload.SERVER, ports=target.ports[:1])
    return base.with_(pods={**base.pods, page.key: page}, services={})


def scenario(name: str, title: str, why: str, *steps: Step) -> Scenario:
    return Scenario(
        f"data-plane/{name}",
        title,
        why,
        big_page(),
        steps,
        FEATURES,
        probes=Probes(targets=(TARGET,)),
    )


def fetch(looked: Looked) -> None:
    """One connection, and a long transfer over it."""
    host = f"[{address(looked)}]" if ":" in address(looked) else address(looked)
    argv = ["wget", "-q", "-O", "/dev/null", f"http://{host}/"]
    status, text, _ = looked.prober.run(CLIENT, argv, SECONDS)
    assert status == 0, text


def test_own_rules_come_first(run_scenario: Any) -> None:
    """Packets meet the enforcer's rules before anybody else's, and established ones first."""

    def order(looked: Looked) -> Iterator[Checked]:
        found = rules(looked)
        if uses_iptables(looked):
            first = next(rule for rule in found if rule.chain == "FORWARD")
            own = re.search(r"-j (NETPOL\S*)$", first.text)
            yield checked("the first rule of FORWARD leads to an own chain", bool(own), first)
            heads = [rule for rule in found if own and rule.chain == own[1]][:1]
        else:
            text = nft_listing(looked)
            hooks = re.findall(r"hook forward priority filter - (\d+)", text)
            yield checked(
                "own base chains hook in before filter's", len(hooks) == 2, hooks or "no hook"
            )
            heads = [
                next(
                    rule
                    for rule in found
                    if rule.chain == chain and not rule.text.startswith("type filter")
                )
                for chain in ("forward-out", "forward-in")
            ]
        yield checked(
            "established connections are accepted first",
            bool(heads) and all("stablished" in head.comment for head in heads),
            heads,
        )

    run_scenario(
        scenario(
            "order",
            "Own rules are met first, and of them the one for established connections",
            "a chain ahead of the others sees every packet; most packets are of old connections",
            Step("a policy is there", (Apply(POLICY),), checks=(order,)),
        )
    )


def test_one_set_for_many_addresses(run_scenario: Any) -> None:
    """More peers make the set larger, and no rule more."""
    before: list[Seen] = []

    def remember(looked: Looked) -> Iterator[Checked]:
        before[:] = own_rules(looked)
        yield checked("three peers are in one set", len(peers(looked)) == 3, peers(looked))

    def compare(looked: Looked) -> Iterator[Checked]:
        now = own_rules(looked)
        yield checked("six peers are in one set", len(peers(looked)) == 6, peers(looked))
        yield checked(
            "there are as many rules as before", len(now) == len(before), [len(before), len(now)]
        )

    def peers(looked: Looked) -> set[str]:
        text = deciding(looked).text
        name = re.search(r"--match-set (\S+)", text) or re.search(r"saddr @(\S+)", text)
        assert name, text
        return members(looked, name[1])

    more = tuple(Relabel("Pod", ns, "b", {"pod": "c"}) for ns in "xyz")
    run_scenario(
        scenario(
            "set",
            "Peers are members of a set, whose number costs no rule",
            "many policies as many rules would slow things down (the article)",
            Step("three peers", (Apply(POLICY),), checks=(remember,)),
            Step("three more", more, checks=(compare,)),
        )
    )


def test_counters_tell_who_decided(run_scenario: Any) -> None:
    """The deciding rule counts connections, the established rule the packets of a transfer."""

    def count(looked: Looked) -> Iterator[Checked]:
        for _ in range(3):  # a packet that the machine sends twice is counted twice
            rule, old = deciding(looked).packets, established(looked)
            for _ in range(CONNECTIONS):
                fetch(looked)
            connections = deciding(looked).packets - rule
            packets = established(looked) - old
            if connections == CONNECTIONS:
                break
        yield checked(
            "the policy's rule counts one packet for each connection",
            connections == CONNECTIONS,
            f"{connections} for {CONNECTIONS} connections",
        )
        yield checked(
            "the rule for established connections counts the rest",
            packets > MANY * CONNECTIONS,
            f"{packets} for {CONNECTIONS} transfers of {len(PAGE)} bytes",
        )

    def denied(looked: Looked) -> Iterator[Checked]:
        drops = [r for r in rules(looked) if r.comment.startswith("Ingress isolated")]
        yield checked(
            "what denies has counted", any(r.packets for r in drops), drops or "no such rule"
        )

    run_scenario(
        scenario(
            "counters",
            "Counters tell which rule decided, and that most packets never meet it",
            "conntrack as an optimisation: only the first packet of a connection meets policies",
            Step("a policy is there", (Apply(POLICY),), checks=(count, denied)),
        )
    )
