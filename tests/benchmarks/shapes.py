"""How others lay out their rules: the shapes, not the products, as lines for iptables-restore.

Each lets a new connection from one client to one server's port 80 pass, by the last of the rules
that come into question. Established connections are accepted first, as all of them do.
"""

from __future__ import annotations

from collections.abc import Iterator

ESTABLISHED = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
TAKEN = "0x10000/0x10000"
SETS = 64  # as many as there are selectors; rules share them
PODS = 100
OF_ONE_POD = 10


def sets(client: str, server: str) -> Iterator[str]:
    """Lines for ``ipset restore``: sets of others, and the two that match."""
    for i in range(SETS):
        yield f"create other-{i} hash:ip"
        yield from (f"add other-{i} 10.9.{i}.{j}" for j in range(1, 9))
    yield from ("create client hash:ip", f"add client {client}")
    yield from ("create server hash:ip", f"add server {server}")


def linear(policies: int, client: str, server: str) -> Iterator[str]:
    """One rule for each pair of addresses, one list for the whole node."""
    yield ESTABLISHED
    for i in range(policies - 1):
        a, b = divmod(i, 250)
        yield f"-A FORWARD -s 10.9.{a}.{b + 1} -d 10.8.{a}.{b + 1} -p tcp --dport 80 -j ACCEPT"
    yield f"-A FORWARD -s {client} -d {server} -p tcp --dport 80 -j ACCEPT"
    yield "-A FORWARD -j DROP"


def per_pod(policies: int, client: str, server: str) -> Iterator[str]:
    """Calico's: a tree of interfaces finds the pod's chain; in it two rules for each policy that
    selects the pod, in whose chain a set and a mark. ``policies`` is the number of those."""
    yield ":pod-chain - [0:0]"
    yield from (f":tree-{i} - [0:0]" for i in range(PODS // 10))
    yield from (f":policy-{i} - [0:0]" for i in range(policies))
    yield ESTABLISHED
    yield from (f"-A FORWARD -o pod{i}+ -g tree-{i}" for i in range(PODS // 10 - 1))
    yield f"-A FORWARD -d {server} -g tree-{PODS // 10 - 1}"
    yield from (f"-A tree-{PODS // 10 - 1} -o pod9{i} -j RETURN" for i in range(9))
    yield f"-A tree-{PODS // 10 - 1} -g pod-chain"
    yield "-A pod-chain -m conntrack --ctstate INVALID -j DROP"
    yield "-A pod-chain -j MARK --set-xmark 0x0/0x10000"
    for i in range(policies):
        yield f"-A pod-chain -m mark --mark 0x0/0x20000 -j policy-{i}"
        yield f"-A pod-chain -m mark --mark {TAKEN} -j ACCEPT"
        name = "client" if i == policies - 1 else f"other-{i % SETS}"
        match = f"-p tcp -m set --match-set {name} src -m multiport --dports 80"
        yield f"-A policy-{i} {match} -j MARK --set-xmark {TAKEN}"
        yield f"-A policy-{i} -m mark --mark {TAKEN} -j RETURN"
    yield "-A pod-chain -j DROP"


def per_cluster(policies: int, client: str, server: str) -> Iterator[str]:
    """Weave's: one rule for each namespace, then one for each rule of the whole cluster, by a set
    of sources and one of destinations."""
    yield from (":new - [0:0]", ":default - [0:0]", ":ingress - [0:0]")
    yield ESTABLISHED
    yield "-A FORWARD -m conntrack --ctstate NEW -j new"
    yield "-A FORWARD -j DROP"
    yield "-A new -j default"
    yield "-A new -j ingress"
    for i in range(max(1, policies // OF_ONE_POD)):
        yield f"-A default -m set --match-set other-{i % SETS} dst -j ACCEPT"
    for i in range(policies - 1):
        one, two = i % SETS, (i + 1) % SETS
        match = f"-m set --match-set other-{one} src -m set --match-set other-{two} dst"
        yield f"-A ingress -p tcp {match} -m tcp --dport 80 -j ACCEPT"
    match = "-m set --match-set client src -m set --match-set server dst"
    yield f"-A ingress -p tcp {match} -m tcp --dport 80 -j ACCEPT"
