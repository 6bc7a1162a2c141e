"""Bugs that NetworkPolicy implementations shipped, as mutants of the in-house enforcer.

Each one replaces a function of the enforcer by a faulty twin, in the engine's own process and
before it starts (:mod:`tests.mutants.engine`); production code carries nothing for it. ``bug``
names where the like was shipped. ``families`` are those that the lab must have for the bug to be
possible at all (an IPv6 bug needs IPv6).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.enforcer import compiler, gathered, meaning, podindex, ranges
from harness.enforcer.claims import Claims
from harness.enforcer.compiled import ANY, Blocks, PodQuery, Ports, PortSpan, Row
from harness.enforcer.compiler import Compiler
from harness.enforcer.gathered import Gathered
from harness.enforcer.podindex import PodIndex
from harness.enforcer.tool import ToolError
from harness.model.policy import (
    Direction,
    LabelSelector,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
)
from harness.model.world import Pod

ALL = LabelSelector()
POD_NETWORK = ranges.of_network("10.244.0.0/16")[1]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug. ``seed`` puts it into this process; ``planes`` are those that can have it."""

    name: str
    bug: str
    seed: Callable[[], None]
    planes: tuple[str, ...] = ("iptables", "nftables")
    families: tuple[int, ...] = (4,)


MUTANTS: dict[str, Mutant] = {}

#: Bugs of the list that our data planes cannot have as they were shipped, and why.
IMPOSSIBLE = {
    "comment longer than allowed (kube-router 703c8435)": (
        "comments are cut to what the kernel takes; its effect, a long name that is silently not "
        "enforced, is seeded as long-name-not-enforced"
    ),
    "ports swapped in a packet parser (kube-network-policies 80f7d12)": (
        "no packet is parsed in user space; the ports are swapped in the rules (ports-swapped)"
    ),
    "a pod without IP freezes the sets (kube-router #378)": (
        "the embedded lab gives every pod its address before engines hear of it, so that nothing "
        "ever stays frozen"
    ),
    "events out of order with one IP re-used (weave 0a0dbe11)": (
        "the embedded lab sends events in order; its effect, an address that stays in the sets, "
        "is seeded as address-never-given-back"
    ),
}


def mutant(
    name: str,
    bug: str,
    *,
    planes: tuple[str, ...] = ("iptables", "nftables"),
    families: tuple[int, ...] = (4,),
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def keep(seed: Callable[[], None]) -> Callable[[], None]:
        assert name not in MUTANTS, name
        MUTANTS[name] = Mutant(name, bug, seed, planes, families)
        return seed

    return keep


# Ports


@mutant("endport-ignored", "endPort ignored (cilium #28684, AKS #2857)")
def _() -> None:
    true = meaning.span

    def span(port: PolicyPort) -> PortSpan:
        one = true(port)
        return one if port.end_port is None else one._replace(last=one.first)

    meaning.span = span


@mutant("protocol-only-aborts-the-sync", "protocol-only rule aborts the sync (kube-router)")
def _() -> None:
    _refuse_all_when(
        lambda policy: any(
            port.port is None for rule in (*policy.ingress, *policy.egress) for port in rule.ports
        )
    )


@mutant("protocol-only-gives-no-rule", "protocol without port gives no rule (aci #1279)")
def _() -> None:
    true = meaning.ports

    def ports(written: Iterable[PolicyPort]) -> Any:
        listed = list(written)
        if not listed:
            return true(())
        kept = [port for port in listed if port.port is not None]
        return true(kept) if kept else Ports((), ())

    meaning.ports = ports


@mutant("empty-port-item-ignored", "`ports: [{}]` is as if it were not there (calico #4373)")
def _() -> None:
    true = meaning.ports
    meaning.ports = lambda written: true([port for port in written if port != PolicyPort()])


@mutant("single-port-overrides-all-ports", "a single port overrides all ports (calico #4373)")
def _() -> None:
    true = meaning.ports

    def ports(written: Iterable[PolicyPort]) -> Any:
        listed = list(written)
        single = {port.protocol for port in listed if port.port is not None}
        return true(
            [port for port in listed if port.port is not None or port.protocol not in single]
        )

    meaning.ports = ports


@mutant("empty-port-over-allows", "an empty port opens every protocol (cilium #14678)")
def _() -> None:
    true = meaning.ports

    def ports(written: Iterable[PolicyPort]) -> Any:
        listed = list(written)
        return ANY if any(port.port is None for port in listed) else true(listed)

    meaning.ports = ports


@mutant("one-number-for-a-name", "same name, different numbers per pod (cilium #30003)")
def _() -> None:
    true = compiler.doors_of

    def doors_of(name: Any, pods: Iterable[Any]) -> Any:
        known = list(pods)
        numbers = sorted(
            number
            for _, names in known
            for protocol, called, number in names
            if (protocol, called) == name
        )
        if not numbers:
            return true(name, known)
        return true(
            name,
            [
                one._replace(
                    names=tuple(
                        (p, n, numbers[0] if (p, n) == name else number)
                        for p, n, number in one.names
                    )
                )
                for one in known
            ],
        )

    compiler.doors_of = doors_of


@mutant("named-port-any-protocol", "named port with the wrong protocol (netpol-analyzer #412)")
def _() -> None:
    def named_ports(pod: Pod) -> Iterator[tuple[Protocol, str, int]]:
        for port in pod.ports:
            if port.name:
                for protocol in Protocol:
                    yield protocol, port.name, port.port

    meaning.named_ports = named_ports


@mutant("unknown-name-opens-all", "a name that the pod lacks matches everything (weave #3032)")
def _() -> None:
    true = meaning.ports

    def ports(written: Iterable[PolicyPort]) -> Any:
        listed = list(written)
        return ANY if any(isinstance(port.port, str) for port in listed) else true(listed)

    meaning.ports = ports


@mutant("sidecar-ports-unknown", "named ports of sidecars are not found")
def _() -> None:
    def named_ports(pod: Pod) -> Iterator[tuple[Protocol, str, int]]:
        first = pod.ports[0].container if pod.ports else ""
        for port in pod.ports:
            if port.name and port.container == first:
                yield port.protocol, port.name, port.port

    meaning.named_ports = named_ports


@mutant("block-and-port-any-source", "port and ipBlock together give the wrong source (weave)")
def _() -> None:
    _rows(
        lambda row: (
            row._replace(peers=ANY)
            if row.peers is not ANY and _blocks(row) and row.ports is not ANY
            else row
        )
    )


@mutant("ports-swapped", "source and destination ports swapped (kube-network-policies)")
def _() -> None:
    from harness.enforcer.iptables import render as ipt
    from harness.enforcer.nftables import render as nft

    for module in (ipt, nft):
        true = module.span_matches

        def span_matches(ports: Ports, true: Any = true) -> Iterator[str]:
            for text in true(ports):
                yield text.replace("--dports", "--sports").replace(" dport ", " sport ")

        module.span_matches = span_matches


# ipBlock


@mutant("except-denies-other-peers", "`except` treated as deny (ovn-kubernetes #845)")
def _() -> None:
    def blocks(peers: Iterable[Peer]) -> Blocks:
        found: dict[int, list[ranges.Range]] = {4: [], 6: []}
        holes: dict[int, list[ranges.Range]] = {4: [], 6: []}
        for one in peers:
            if one.ip_block is not None:
                family, whole = ranges.of_network(one.ip_block.cidr)
                found[family].append(whole)
                holes[family] += [ranges.of_network(cidr)[1] for cidr in one.ip_block.except_]
        return Blocks(*(_less(found[family], holes[family]) for family in (4, 6)))

    meaning.blocks = blocks


@mutant("except-beats-another-policy", "except beats another policy's allow (kube-ovn #854)")
def _() -> None:
    holes: dict[int, set[ranges.Range]] = {4: set(), 6: set()}
    true_block, true_join = meaning.block, gathered.join_peers

    def block(ip_block: Any) -> Any:
        for cidr in ip_block.except_:
            family, hole = ranges.of_network(cidr)
            holes[family].add(hole)
        return true_block(ip_block)

    def join_peers(peers: Iterable[Any]) -> Any:
        joined = true_join(peers)
        if joined is ANY:
            return joined
        v4, v6 = (_less(joined.blocks.of(family), holes[family]) for family in (4, 6))
        return joined._replace(blocks=Blocks(v4, v6))

    meaning.block, gathered.join_peers = block, join_peers


@mutant("except-skips-the-rest", "an except skips the rules after it (kube-router #2064)")
def _() -> None:
    true = meaning.rules

    def rules(policy: NetworkPolicy, direction: Direction) -> Any:
        kept = []
        for rule in true(policy, direction):
            kept.append(rule)
            if any(peer.ip_block and peer.ip_block.except_ for peer in rule.peers):
                break
        return tuple(kept)

    meaning.rules = rules


@mutant("except-ignored", "except is not enforced at all")
def _() -> None:
    meaning.block = lambda ip_block: (
        ranges.of_network(ip_block.cidr)[0],
        (ranges.of_network(ip_block.cidr)[1],),
    )


@mutant("all-ports-lost", "all-ports lost when the same CIDR also has a port (aws #98)")
def _() -> None:
    true = Gathered.settle

    def settle(self: Gathered, before: Any) -> Any:
        rows = true(self, None)
        with_port = {_blocks(row) for row in rows.values() if row.ports is not ANY and _blocks(row)}
        return {
            ports: row
            for ports, row in rows.items()
            if row.ports is not ANY or _blocks(row) not in with_port
        }

    Gathered.settle = settle  # type: ignore[method-assign]


@mutant("only-the-first-except", "block and except merged wrong (aws #180)")
def _() -> None:
    true = meaning.block

    def block(ip_block: Any) -> Any:
        from dataclasses import replace

        return true(replace(ip_block, except_=ip_block.except_[:1]))

    meaning.block = block


@mutant("host-bits-never-match", "a CIDR with host bits set never matches (antrea #1764)")
def _() -> None:
    import ipaddress

    true = meaning.block

    def block(ip_block: Any) -> Any:
        family, whole = true(ip_block)
        try:
            ipaddress.ip_network(ip_block.cidr)
        except ValueError:
            return family, ()
        return family, whole

    meaning.block = block


@mutant("block-misses-pods", "pod addresses not matched by an ipBlock (cilium #9209)")
def _() -> None:
    true = meaning.blocks

    def blocks(peers: Iterable[Peer]) -> Blocks:
        found = true(peers)
        return found._replace(v4=_less(found.v4, [POD_NETWORK]))

    meaning.blocks = blocks


@mutant("block-only-is-wildcard", "an ipBlock-only peer becomes a wildcard (cilium #46305)")
def _() -> None:
    _rows(
        lambda row: row._replace(peers=ANY) if row.peers is not ANY and not row.peers.pods else row
    )


@mutant("except-spares-nodes", "except not enforced for a node's own address (weave #3924)")
def _() -> None:
    from harness.labs.netns.addresses import NODE_CIDRS

    nodes = ranges.of_network(NODE_CIDRS[4])[1]
    true = meaning.block

    def block(ip_block: Any) -> Any:
        from dataclasses import replace

        kept = tuple(
            cidr
            for cidr in ip_block.except_
            if not nodes[0] <= ranges.of_network(cidr)[1][0] <= nodes[1]
        )
        return true(replace(ip_block, except_=kept))

    meaning.block = block


@mutant("ipv6-block-aborts-the-sync", "an IPv6 CIDR aborts all syncing (kube-router #1245)")
def _() -> None:
    _refuse_all_when(
        lambda policy: any(
            peer.ip_block and ":" in peer.ip_block.cidr
            for rule in (*policy.ingress, *policy.egress)
            for peer in rule.peers
        )
    )


# Selectors


@mutant("match-labels-ored", "matchLabels ORed (AKS #1135)")
def _() -> None:
    def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
        wanted = selector.match_labels
        some = not wanted or any(labels.get(key) == value for key, value in wanted)
        return some and all(
            meaning.requirement_holds(one, labels) for one in selector.match_expressions
        )

    meaning.selects = selects
    meaning.anchor = lambda selector: None


@mutant("match-expressions-ignored", "matchExpressions ignored (kube-router #614)")
def _() -> None:
    meaning.requirement_holds = lambda requirement, labels: True


@mutant("not-in-needs-the-key", "NotIn does not match an object that lacks the key (Cyclonus)")
def _() -> None:
    true = meaning.requirement_holds
    meaning.requirement_holds = lambda requirement, labels: (
        true(requirement, labels)
        and (requirement.operator is not Operator.NOT_IN or requirement.key in labels)
    )


@mutant("empty-value-matches-missing", "an empty value matches a missing key (Cyclonus)")
def _() -> None:
    meaning.anchor = lambda selector: None
    meaning.selects = lambda selector, labels: (
        all(labels.get(key, "") == value for key, value in selector.match_labels)
        and all(meaning.requirement_holds(one, labels) for one in selector.match_expressions)
    )


@mutant("empty-namespace-selector-is-own", "empty namespaceSelector mishandled (libcalico #488)")
def _() -> None:
    true = meaning.pods_of_peer

    def pods_of_peer(peer: Peer, namespace: str) -> PodQuery:
        query = true(peer, namespace)
        return query._replace(namespaces=namespace) if query.namespaces == ALL else query

    meaning.pods_of_peer = pods_of_peer


@mutant("empty-namespace-selector-is-anything", "… or everything, outside too (cilium #4513)")
def _() -> None:
    _rows(
        lambda row: (
            row._replace(peers=ANY)
            if row.peers is not ANY and PodQuery(ALL, ALL) in row.peers.pods
            else row
        )
    )


@mutant("pod-selector-lost-beside-namespaces", "namespace AND pod selector (felix #1947)")
def _() -> None:
    true = meaning.pods_of_peer

    def pods_of_peer(peer: Peer, namespace: str) -> PodQuery:
        query = true(peer, namespace)
        return query if peer.namespace_selector is None else query._replace(pods=ALL)

    meaning.pods_of_peer = pods_of_peer


@mutant("and-taken-for-or", "namespace AND pod selector taken for OR")
def _() -> None:
    def queries(peers: Iterable[Peer], namespace: str) -> frozenset[PodQuery]:
        found = set()
        for peer in peers:
            if peer.ip_block is None:
                if peer.pod_selector is not None:
                    found.add(PodQuery(namespace, peer.pod_selector))
                if peer.namespace_selector is not None:
                    found.add(PodQuery(peer.namespace_selector, ALL))
        return frozenset(found)

    meaning.queries = queries


@mutant("pod-selector-crosses-namespaces", "podSelector crosses namespaces (kube-ovn #197)")
def _() -> None:
    true = meaning.pods_of_peer

    def pods_of_peer(peer: Peer, namespace: str) -> PodQuery:
        query = true(peer, namespace)
        return query._replace(namespaces=ALL) if peer.namespace_selector is None else query

    meaning.pods_of_peer = pods_of_peer


@mutant("empty-pod-selector-selects-none", "absent podSelector selects none (kube-router #90)")
def _() -> None:
    nobody = LabelSelector((("no-such-label.example/x", "x"),))
    meaning.target = lambda policy: PodQuery(
        policy.namespace, nobody if policy.pod_selector == ALL else policy.pod_selector
    )


@mutant("restart-misses-pods", "`namespaceSelector: {}` misses pods already there (Azure #865)")
def _() -> None:
    true = PodIndex.watch

    def watch(self: PodIndex, query: PodQuery) -> None:
        true(self, query)
        if query.namespaces == ALL:
            for key in self._members[query]:
                self._found[key].discard(query)
            self._members[query] = set()

    PodIndex.watch = watch


# Direction and order


@mutant("egress-always-isolated", "egress isolated though not in policyTypes (ovn #3162)")
def _() -> None:
    meaning.directions = lambda policy: tuple(Direction)


@mutant("ingress-not-isolated-beside-egress", "absent policyTypes with egress rules is Egress only")
def _() -> None:
    true = meaning.directions
    meaning.directions = lambda policy: (
        (Direction.EGRESS,) if not policy.policy_types and policy.egress else true(policy)
    )


@mutant("egress-rules-not-defaulted", "egress rules without policyTypes do nothing")
def _() -> None:
    meaning.directions = lambda policy: policy.policy_types or (Direction.INGRESS,)


@mutant("accept-ends-it-all", "ACCEPT skips the other end's policies (kube-router e858e262)")
def _() -> None:
    from harness.enforcer.iptables.render import Renderer
    from harness.enforcer.nftables import render as nft

    true_class, true_hooks = Renderer._class, nft.Renderer.hooks

    def class_(self: Any, direction: Direction, targets: Any) -> Any:
        return tuple(
            line.replace("-j RETURN", "-j ACCEPT") for line in true_class(self, direction, targets)
        )

    def hooks(self: Any) -> Any:
        chains = dict(true_hooks(self))
        out, into = list(chains["forward-out"]), chains.pop("forward-in")
        out += [rule for rule in into[1:] if rule not in out]
        chains["forward-out"] = tuple(out)
        return chains

    Renderer._class, nft.Renderer.hooks = class_, hooks


@mutant("first-policy-only", "only the first policy that selects a pod counts")
def _() -> None:
    true_way, true_settle = Compiler._way_of, Gathered.settle

    def way_of(self: Compiler, key: Any, direction: Direction) -> Any:
        way = true_way(self, key, direction)
        return way and way._replace(targets=way.targets and way.targets[:1])

    def settle(self: Gathered, before: Any) -> Any:
        first = Gathered()
        for policy, rows in [*self.policies.items()][:1]:
            first.put(policy, rows)
        return true_settle(first, None)

    Compiler._way_of, Gathered.settle = way_of, settle


@mutant("own-node-escapes-egress", "pod to a node's address escapes egress (kube-router 361d6fe)")
def _() -> None:
    from harness.enforcer.iptables.render import Renderer
    from harness.enforcer.nftables import render as nft

    for kind, name, rest in (
        (Renderer, "NETPOL-INPUT", ("-j RETURN",)),
        (nft.Renderer, "input-out", None),
    ):
        true = kind.hooks

        def hooks(self: Any, true: Any = true, name: str = name, rest: Any = rest) -> Any:
            chains = dict(true(self))
            chains[name] = rest if rest is not None else chains[name][:1]
            return chains

        kind.hooks = hooks


@mutant("empty-from-matches-nothing", "`from: []` matches nothing, as before Kubernetes 1.7")
def _() -> None:
    nobody = Peer(LabelSelector((("no-such-label.example/x", "x"),)), ALL)
    true = meaning.rules

    def rules(policy: NetworkPolicy, direction: Direction) -> Any:
        from dataclasses import replace

        return tuple(
            rule if rule.peers else replace(rule, peers=(nobody,))
            for rule in true(policy, direction)
        )

    meaning.rules = rules


@mutant("no-ports-is-no-port", "a rule without ports allows none, as before Kubernetes 1.7")
def _() -> None:
    true = meaning.ports

    def ports(written: Iterable[PolicyPort]) -> Any:
        listed = list(written)
        return true(listed) if listed else Ports((), ())

    meaning.ports = ports


@mutant("unlisted-direction-enforced", "rules of a direction that policyTypes does not list count")
def _() -> None:
    true = meaning.directions
    meaning.directions = lambda policy: tuple(
        direction
        for direction in Direction
        if direction in true(policy) or meaning.rules(policy, direction)
    )


# Stale state


@mutant("pod-relabel-ignored", "pod relabelled, ignored (kube-router #1035)")
def _() -> None:
    true = PodIndex.put
    PodIndex.put = lambda self, key, labels: [] if self.has(key) else true(self, key, labels)


@mutant("namespace-relabel-ignored", "namespace relabelled, ignored (kube-ovn #1920)")
def _() -> None:
    true = Compiler._put_namespace

    def put_namespace(self: Compiler, name: str, labels: Any) -> None:
        if labels is None or name not in self._namespaces:
            true(self, name, labels)

    Compiler._put_namespace = put_namespace


@mutant("new-pod-unknown-to-peers", "new pod's IP ignored (antrea #1807)")
def _() -> None:
    true = Compiler._settle_unions

    def settle(self: Compiler, before: Any, fresh: Any, *known: Any) -> Any:
        self._stale_unions = {
            (key, union)
            for key, union in self._stale_unions
            if key in self._union_pods.get(union, ())
        }
        return true(self, before, fresh, *known)

    Compiler._settle_unions = settle


@mutant("finished-pods-still-match", "finished pods still match (antrea #6507, weave #2632)")
def _() -> None:
    _keep_addresses(lambda pod: not pod.live, on_drop=False)


@mutant("address-never-given-back", "a deleted pod's address stays in the sets (weave 0a0dbe11)")
def _() -> None:
    _keep_addresses(lambda pod: False, on_drop=True)


@mutant("old-rules-not-flushed", "restore without flush (kube-router 99cb40b0)")
def _() -> None:
    from harness.enforcer.iptables.plane import Iptables
    from harness.enforcer.nftables import plane as nft

    # new rules are put ahead of the old ones, which stay
    def switch(self: Any, changes: Mapping[int, Any]) -> None:
        for family, one in changes.items():
            self._build(family, one.new_chains)
        self._restore(
            {
                family: [
                    f"-I {name} {index + 1} {rule}"
                    for name, rules in one.changed_chains.items()
                    for index, rule in enumerate(rules)
                ]
                for family, one in changes.items()
            }
        )

    true = nft.switched

    def switched(one: Any, table: str) -> Iterator[str]:
        for line in true(one, table):
            if line.startswith("add rule"):
                yield line.replace("add rule", "insert rule", 1)
            elif not line.startswith("flush chain"):
                yield line

    Iptables._switch, nft.switched = switch, switched


@mutant("policy-deletion-ignored", "flows survive their policy and namespace (origin #22158)")
def _() -> None:
    true = Compiler.drop

    def drop(self: Compiler, kind: str, *key: str, uid: str = "") -> None:
        if kind != "NetworkPolicy":
            true(self, kind, *key, uid=uid)

    Compiler.drop = drop


@mutant("update-to-no-rules-keeps-old", "an update to zero rules keeps the old (cilium #5731)")
def _() -> None:
    true = Compiler._put_policy

    def put(self: Compiler, policy: NetworkPolicy) -> None:
        from dataclasses import replace

        old = self._policies.get(policy.key)
        if old is not None:
            policy = replace(
                policy, ingress=policy.ingress or old.ingress, egress=policy.egress or old.egress
            )
        true(self, policy)

    Compiler._put_policy = put


@mutant("policy-update-ignored", "a policy that changes keeps its first form")
def _() -> None:
    true = Compiler._put_policy
    Compiler._put_policy = lambda self, policy: (
        None if policy.key in self._policies else true(self, policy)
    )


# Scale, names, time, host


@mutant("ambiguous-names", "a name with the delimiter in it is ambiguous (Azure #4574)")
def _() -> None:
    true = Compiler._put_policy

    def put(self: Compiler, policy: NetworkPolicy) -> None:
        joined = "-".join(policy.key)
        for key in [k for k in self._policies if k != policy.key and "-".join(k) == joined]:
            self._drop_policy(key)
        true(self, policy)

    Compiler._put_policy = put


@mutant("ninth-namespace-lost", "a set of 8 overflows at the ninth namespace (weave #3289)")
def _() -> None:
    true = podindex.PodIndex._meet_namespace

    def meet(self: PodIndex, namespace: str) -> None:
        true(self, namespace)
        for names in self._spaces.values():
            if len(names) > 8:
                names.discard(namespace)

    true_watch = PodIndex.watch

    def watch(self: PodIndex, query: PodQuery) -> None:
        true_watch(self, query)
        spaces = self._spaces.get(query.namespaces) if query.namespaces.__class__ is not str else ()
        for name in sorted(spaces or ())[8:]:
            spaces.discard(name)
            for key in [k for k in self._members[query] if k[0] == name]:
                self._members[query].discard(key)
                self._found[key].discard(query)

    PodIndex._meet_namespace, PodIndex.watch = meet, watch


@mutant("long-name-not-enforced", "a long name: silently not enforced (kube-router 703c8435)")
def _() -> None:
    true = Compiler._put_policy
    Compiler._put_policy = lambda self, policy: (
        None if len(policy.name) > 200 else true(self, policy)
    )


@mutant("pod-runs-before-its-policy", "a pod runs before its policy (kube-router #873, aws #271)")
def _() -> None:
    # The first moments of a pod: it is acknowledged at once and isolated half a second later.
    true = Compiler._settle_locals
    born: dict[Any, float] = {}

    def settle(self: Compiler, before: Any, known: Any) -> Any:
        pods = dict(true(self, before, known))
        now = time.monotonic()
        for key in list(pods):
            if born.setdefault(key, now) > now - 0.5:
                pods[key] = pods[key]._replace(ingress=None, egress=None)
                self._stale_locals.add(key)
        return pods

    Compiler._settle_locals = settle


@mutant("host-network-pod-enforced", "a host-network pod's node IP enforced (#380)")
def _() -> None:
    meaning.subject = lambda pod: pod.live
    meaning.peer = lambda pod: pod.live


@mutant("node-shut-out", "kubelet's probes blocked (kube-network-policies #150, #65)")
def _() -> None:
    from harness.enforcer.iptables import plane
    from harness.enforcer.nftables import render as nft

    plane.JUMPS["OUTPUT"] = "NETPOL"
    true = nft.Renderer.hooks

    def hooks(self: Any) -> Any:
        chains = dict(true(self))
        kind, *rules = chains["forward-in"]
        chains["output-in"] = (kind.replace("hook forward", "hook output"), *rules)
        return chains

    nft.Renderer.hooks = hooks


@mutant(
    "neighbour-discovery-blocked",
    "IPv6 neighbour discovery blocked (kube-router a0442e5a)",
    families=(4, 6),
)
def _() -> None:
    from harness.enforcer.iptables import render as ipt
    from harness.enforcer.nftables import render as nft

    ipt.neighbour_discovery = lambda: iter(())
    nft.NEIGHBOUR_DISCOVERY = (255,)


@mutant("established-not-accepted", "replies are judged as new connections")
def _() -> None:
    from harness.enforcer.iptables import render as ipt
    from harness.enforcer.nftables import render as nft

    ipt.ESTABLISHED = "-m conntrack --ctstate UNTRACKED"
    true = nft.Renderer.hooks

    def hooks(self: Any) -> Any:
        return {
            name: tuple(rule for rule in rules if not rule.startswith("ct state established"))
            for name, rules in true(self).items()
        }

    nft.Renderer.hooks = hooks


@mutant("enforces-nothing", "an engine that is there, Ready, and open (kindnet without nft queue)")
def _() -> None:
    Compiler._settle_locals = lambda self, before, known: {}


# What several of them need


def _refuse_all_when(bad: Callable[[NetworkPolicy], bool]) -> None:
    """One policy that cannot be handled stops everything."""
    true = Compiler.snapshot

    def snapshot(self: Compiler) -> Any:
        if any(bad(policy) for policy in self._policies.values()):
            raise ToolError("sync failed")
        return true(self)

    Compiler.snapshot = snapshot


def _rows(change: Callable[[Row], Row]) -> None:
    true = compiler.compile_rules
    compiler.compile_rules = lambda *arguments: (change(row) for row in true(*arguments))


def _blocks(row: Row) -> Any:
    return () if row.peers is ANY else row.peers.blocks.v4


def _less(found: Iterable[ranges.Range], holes: Iterable[ranges.Range]) -> Any:
    return ranges.union(
        piece for whole in ranges.union(found) for piece in ranges.minus(whole, holes)
    )


def _keep_addresses(kept: Callable[[Pod], bool], *, on_drop: bool) -> None:
    """A pod that should be out of all sets stays in them with its last addresses and labels.

    The enforcer gives each address to one pod alone, which would mend this by itself; so that goes
    as well.
    """
    Claims.of = lambda self, key: self._claimed.get(key, ((), ""))[0]
    true_put, true_drop = Compiler._put_pod, Compiler._drop_pod

    def put(self: Compiler, pod: Pod) -> None:
        if not (pod.key in self._pods and kept(pod)):
            true_put(self, pod)

    Compiler._put_pod = put
    if on_drop:
        Compiler._drop_pod = lambda self, key, uid: None
    else:
        Compiler._drop_pod = true_drop
