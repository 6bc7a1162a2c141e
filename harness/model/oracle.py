"""The oracle: what the specification says of each cell, with the reason. Pure.

This is the definition, written to be read beside the API reference of ``networking.k8s.io/v1`` and
the concept page "Network Policies". A flow between two pods is allowed iff egress of the source
and ingress of the destination allow it. What the specification leaves to the implementation is
``undefined``, with a reason code out of :data:`harness.model.profile.REASONS`; but only where the
verdict really *rests* on that: what every reading allows is allowed.

The in-house enforcer must not import this module, nor ``selectors`` or ``cidr``: it reads the
specification a second time, on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.model import cidr, words
from harness.model.flow import Because, Cell, Decision, Verdict, Via
from harness.model.policy import Direction, IPBlock, NetworkPolicy, Peer, PolicyPort, Protocol, Rule
from harness.model.profile import NO_PROFILE, REASONS, Profile, check_profile
from harness.model.routing import (
    DNS_NAMESPACE,
    DNS_SERVICE,
    End,
    UnknownEndpointError,
    absent,
    address,
    endpoints,
    find,
    find_service,
    listens,
    node_port,
)
from harness.model.selectors import selects
from harness.model.world import ContainerPort, External, Node, Pod, Service, World

__all__ = ["Oracle", "UnknownEndpointError", "decide", "expected", "listens"]

# How a peer or a rule matches: YES, NO, or else the reason code of a doubt.
YES, NO = "yes", "no"

# Who answers names where the world does not say: what every cluster's DNS add-on looks like.
_USUAL_DNS = Pod(
    DNS_NAMESPACE,
    DNS_SERVICE,
    {"k8s-app": "kube-dns"},
    ports=(ContainerPort(53, Protocol.UDP, "dns"), ContainerPort(53, Protocol.TCP, "dns-tcp")),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The other end of a flow, as the policies of one pod may see it.

    ``pod`` is what selectors see (None: nothing). ``addresses`` are what ipBlocks see: pairs of
    an address (None: not known) and the reason code of the doubt that a match leaves ("": none).
    ``unclear`` is the reason code that stands where nothing matches for sure ("": it is denied).
    ``always`` is a code for which it is allowed whatever the policies say ("": there is none).
    """

    family: int
    pod: Pod | None = None
    addresses: tuple[tuple[str | None, str], ...] = ()
    unclear: str = ""
    always: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a flow arrives, after a Service's translation: the pod whose port names count (None:
    not a pod) and the port there."""

    pod: Pod | None
    port: int
    protocol: Protocol


def decide(world: World, cell: Cell, profile: Profile = NO_PROFILE) -> Decision:
    """What the specification says of one cell, as ``profile`` completes it.

    For many cells of one world use :func:`expected`. Raises :class:`UnknownEndpointError` where
    the cell names somebody who is not there, ValueError for an impossible profile.
    """
    return Oracle(world, profile).decide(cell)


def expected(
    world: World, cells: Iterable[Cell], profile: Profile = NO_PROFILE
) -> dict[Cell, Decision]:
    """The decision for each cell, in the cells' order. Raises as :func:`decide`."""
    oracle = Oracle(world, profile)
    return {cell: oracle.decide(cell) for cell in cells}


def isolated_directions(policy: NetworkPolicy) -> tuple[Direction, ...]:
    """The directions that a policy isolates: ``policyTypes``; without it Ingress always, and
    Egress iff ``egress`` holds a rule (API reference, ``policyTypes``)."""
    if policy.policy_types:
        return policy.policy_types
    return (Direction.INGRESS, Direction.EGRESS) if policy.egress else (Direction.INGRESS,)


def rules_of(policy: NetworkPolicy, direction: Direction) -> tuple[Rule, ...]:
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def port_matches(wanted: PolicyPort, to: Arrival) -> bool:
    """One item of ``ports``. Names are the destination pod's, in both directions; a name that it
    lacks matches nothing."""
    if wanted.protocol is not to.protocol:
        return False
    if wanted.port is None:
        return True
    if isinstance(wanted.port, int):
        return wanted.port <= to.port <= (wanted.end_port or wanted.port)
    return to.pod is not None and any(
        own.name == wanted.port and own.protocol is to.protocol and own.port == to.port
        for own in to.pod.ports
    )


class Oracle:
    """A reader of one world that remembers who is selected by what."""

    def __init__(self, world: World, profile: Profile = NO_PROFILE) -> None:
        check_profile(profile)
        self.world = world
        self.profile = profile
        self._policies_of: dict[str, list[NetworkPolicy]] = {}
        for _, policy in sorted(world.policies.items()):
            self._policies_of.setdefault(policy.namespace, []).append(policy)
        self._isolating: dict[tuple[str, str, Direction], tuple[NetworkPolicy, ...]] = {}

    # -- who connects to whom ------------------------------------------------------------------

    def decide(self, cell: Cell) -> Decision:
        """See :func:`decide`."""
        source = find(self.world, cell.source)
        if isinstance(source, Pod) and (reason := absent(source, cell.family)):
            return _undefined(reason, str(source))
        match cell.via:
            case Via.SERVICE_IP | Via.SERVICE_NAME:
                return self._by_service(source, cell)
            case Via.NODE_PORT:
                return self._by_node_port(source, cell)
            case _:
                target = find(self.world, cell.target)
                if isinstance(target, Pod) and (reason := absent(target, cell.family)):
                    return _undefined(reason, str(target))
                return self._connect(source, target, cell.port, cell.protocol, cell.family)

    def _by_service(self, source: End, cell: Cell) -> Decision:
        service = find_service(self.world, cell.target)
        if isinstance(source, External):
            return _undefined("outside-service", str(service))
        connection = self._through(
            source,
            service,
            cell.port,
            cell.protocol,
            cell.family,
            named=cell.via is not Via.SERVICE_IP,
        )
        if cell.via is Via.SERVICE_IP:
            return connection
        if not isinstance(source, Pod):
            return _undefined("no-cluster-dns", str(source.name))
        lookup = self._lookup(source, cell.family)
        because = tuple(
            replace(b, flow="dns", text=f"looking up the name: {b.text}") for b in lookup.because
        )
        return _all_of([replace(lookup, because=because), connection])

    def _lookup(self, source: Pod, family: int) -> Decision:
        """The name's own flow, to the cluster's DNS at 53/UDP. Resolvers turn to TCP only for
        answers that do not fit a datagram, so TCP never makes up for UDP."""
        service = self.world.services.get((DNS_NAMESPACE, DNS_SERVICE))
        if service is not None:
            if service.cluster_ips and address(service.cluster_ips, family) is None:
                family = cidr.family(service.cluster_ips[0])
            return self._through(source, service, 53, Protocol.UDP, family)
        servers = [
            pod
            for key, pod in sorted(self.world.pods.items())
            if key[0] == DNS_NAMESPACE
            and pod.labels.get("k8s-app") == "kube-dns"
            and not absent(pod, family)
        ]
        return self._pick(
            source,
            [(pod, 53) for pod in servers or [_USUAL_DNS]],
            Protocol.UDP,
            family,
            "the cluster's DNS",
            None,
        )

    def _through(
        self,
        source: End,
        service: Service,
        port: int,
        protocol: Protocol,
        family: int,
        *,
        named: bool = False,
    ) -> Decision:
        """A connection to a Service: it may arrive at any ready backend."""
        if service.headless:
            if not named:
                return _undefined("no-address", f"{service} is headless")
            # The name gives the pods' own addresses, and nothing is translated.
            found = [(p, port) for p in self.world.backends(service) if not absent(p, family)]
            return self._pick(source, found, protocol, family, str(service), ())
        ip = address(service.cluster_ips, family)
        if service.cluster_ips and ip is None:
            return _undefined("no-address", str(service))
        backends = endpoints(self.world, service, port, protocol, family)
        if backends is None:
            return _undefined("no-such-port", f"{service}:{port}/{protocol}")
        return self._pick(source, backends, protocol, family, str(service), ip)

    def _pick(
        self,
        source: End,
        backends: Sequence[tuple[Pod, int]],
        protocol: Protocol,
        family: int,
        name: str,
        ip: str | tuple[()] | None,
    ) -> Decision:
        """Whichever backend is picked. ``ip`` is the Service's own address; (): it has none."""
        own = () if isinstance(ip, tuple) else self._doubtful(ip, "ipblock-service")
        return _any_of(
            name,
            [
                (str(pod), self._connect(source, pod, port, protocol, family, service=own))
                for pod, port in backends
            ],
        )

    def _by_node_port(self, source: End, cell: Cell) -> Decision:
        """A node's port leads to pods. What policies see of the client depends on where the
        address is translated, and on whether a node puts its own in the client's place."""
        node = find(self.world, cell.target)
        found = node_port(self.world, cell)
        assert isinstance(node, Node)
        decisions = []
        for pod, port, keeps_client in found:
            to = Arrival(pod, port, cell.protocol)
            parts = []
            if isinstance(source, Pod):
                parts.append(
                    self._side(source, Direction.EGRESS, Seen(cell.family, unclear="snat"), to)
                )
            if keeps_client and isinstance(source, External):
                client = self._seen(source, pod, cell.family, Direction.INGRESS)
            else:
                client = Seen(cell.family, unclear="snat")
            parts.append(self._side(pod, Direction.INGRESS, client, to))
            decisions.append((str(pod), _both(parts)))
        return _any_of(str(cell.target), decisions)

    # -- one connection ------------------------------------------------------------------------

    def _connect(
        self,
        source: End,
        target: End,
        port: int,
        protocol: Protocol,
        family: int,
        *,
        service: tuple[tuple[str | None, str], ...] | None = None,
    ) -> Decision:
        """From one end to one other. ``service``: what ipBlocks may see of the Service between
        them; None: there is no Service."""
        to = Arrival(target if isinstance(target, Pod) else None, port, protocol)
        parts = []
        if isinstance(source, Pod):
            if isinstance(target, Pod) and source.key == target.key:
                return self._itself(source, through_service=service is not None)
            seen = self._seen(target, source, family, Direction.EGRESS)
            seen = replace(seen, addresses=seen.addresses + (service or ()))
            parts.append(self._side(source, Direction.EGRESS, seen, to))
        if isinstance(target, Pod):
            seen = self._seen(source, target, family, Direction.INGRESS)
            parts.append(self._side(target, Direction.INGRESS, seen, to))
        if not parts:
            text = "neither end is a pod, and policies speak of pods alone"
            parts.append(Because(Direction.INGRESS, Verdict.ALLOW, "no-pod", text))
        return _both(parts)

    def _itself(self, pod: Pod, *, through_service: bool) -> Decision:
        if not through_service:
            return _undefined("self", str(pod))
        reading = self.profile.get("hairpin")
        if reading is None:
            return _undefined("hairpin", str(pod))
        verdict = Verdict(reading)
        text = f"{pod} reaches itself through its Service, and this profile says {verdict}"
        return _both([Because(Direction.INGRESS, verdict, "hairpin", text)])

    def _seen(self, other: End, subject: Pod, family: int, direction: Direction) -> Seen:
        """``other`` as the policies of ``subject`` see it."""
        if isinstance(other, External):
            return Seen(family, addresses=_sure(address(other.ips, family)))
        if isinstance(other, Node):
            return self._seen_node(other, subject, family, direction)
        ip = address(other.ips, family)
        if not other.host_network:
            return Seen(family, other, self._doubtful(ip, "ipblock-pod"))
        match self.profile.get("host-network-peer"):
            case "address":
                return Seen(family, addresses=_sure(ip))
            case "pod":
                return Seen(family, other, self._doubtful(ip, "ipblock-pod"))
            case _:
                return Seen(family, unclear="host-network-peer")

    def _seen_node(self, node: Node, subject: Pod, family: int, direction: Direction) -> Seen:
        own = subject.node == node.name
        if own and direction is Direction.INGRESS:
            return Seen(family, always="own-node")
        if direction is Direction.INGRESS:
            reason = "node-to-pod"
        else:
            reason = "pod-to-own-node" if own else "pod-to-node"
        by_address = Seen(family, addresses=_sure(address(node.ips, family)))
        match self.profile.get(reason):
            case "allow":
                return Seen(family, always=reason)
            case "address":
                return by_address
            case _ if direction is Direction.EGRESS:
                # The address is the one that is dialled: a rule for it holds in every reading.
                return replace(by_address, unclear=reason)
            case _:  # Another node may come from any of its addresses, tunnels' included.
                return Seen(family, unclear=reason)

    def _doubtful(self, ip: str | None, reason: str) -> tuple[tuple[str | None, str], ...]:
        """What ipBlocks see of an address of which it is open whether they see it at all."""
        match self.profile.get(reason):
            case "match":
                return _sure(ip)
            case "no-match":
                return ()
            case _:
                return ((ip, reason),)

    # -- one pod, one direction ----------------------------------------------------------------

    def _side(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        """What the policies of ``pod`` say, pods on the host's network included."""
        because = self._network_policies(pod, direction, seen, to)
        if not pod.host_network or because.verdict is Verdict.ALLOW:
            return because
        match self.profile.get("host-network-subject"):
            case "policy":
                return because
            case "open":
                text = f"{pod} is on the host's network, where policies leave it alone"
                return Because(direction, Verdict.ALLOW, "host-network-subject", text)
            case _:
                return _doubt(direction, "host-network-subject", str(pod), because.policies)

    def _network_policies(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        isolating = self.isolating(pod, direction)
        if not isolating:
            return Because(direction, Verdict.ALLOW, "open", _open_text(pod, direction))
        names = tuple(str(policy) for policy in isolating)
        if seen.always:
            text = (
                f"{pod} is restricted for {direction.lower()}, but traffic between a pod and its "
                f"own node is always let through"
                if seen.always == "own-node"
                else f"{pod} is restricted, but this profile always lets its nodes through"
            )
            return Because(direction, Verdict.ALLOW, seen.always, text, names)
        doubt = seen.unclear
        doubted: NetworkPolicy | None = None
        any_rule = False
        for policy in isolating:
            for index, rule in enumerate(rules_of(policy, direction)):
                any_rule = True
                match = self.rule_matches(rule, policy.namespace, seen, to)
                if match == YES:
                    return _allowed_by(policy, direction, index, rule)
                if match != NO and not doubt:
                    doubt, doubted = match, policy
        if doubt:
            return _doubt(direction, doubt, str(doubted or pod), names)
        code = "no-rule" if any_rule else "isolated"
        return Because(
            direction,
            Verdict.DENY,
            code,
            _denied_text(pod, direction, names, code),
            names,
            source=isolating[0].source,
        )

    def isolating(self, pod: Pod, direction: Direction) -> tuple[NetworkPolicy, ...]:
        """The policies that select the pod for this direction, by name."""
        key = (*pod.key, direction)
        found = self._isolating.get(key)
        if found is None:
            found = tuple(
                policy
                for policy in self._policies_of.get(pod.namespace, ())
                if direction in isolated_directions(policy)
                and selects(policy.pod_selector, pod.labels)
            )
            self._isolating[key] = found
        return found

    def rule_matches(self, rule: Rule, namespace: str, seen: Seen, to: Arrival) -> str:
        """YES, NO, or the reason code of a doubt; ``namespace`` is the policy's own."""
        if rule.ports and not any(port_matches(port, to) for port in rule.ports):
            return NO
        if not rule.peers:
            return YES
        result = NO
        for peer in rule.peers:
            match = self.peer_matches(peer, namespace, seen)
            if match == YES:
                return YES
            if result == NO:
                result = match
        return result

    def peer_matches(self, peer: Peer, namespace: str, seen: Seen) -> str:
        """YES, NO, or the reason code of a doubt; ``namespace`` is the policy's own."""
        if peer.ip_block is not None:
            block, result = peer.ip_block, NO
            for ip, doubt in seen.addresses:
                held = _holds(block, ip, seen.family)
                if held == YES and not doubt:
                    return YES
                if held != NO:
                    result = doubt if held == YES else held
            return result
        pod = seen.pod
        if pod is None:
            return NO
        if peer.namespace_selector is None:
            if pod.namespace != namespace:
                return NO
        elif not selects(peer.namespace_selector, self.world.namespace_labels(pod.namespace)):
            return NO
        if peer.pod_selector is not None and not selects(peer.pod_selector, pod.labels):
            return NO
        return YES


def _sure(ip: str | None) -> tuple[tuple[str | None, str], ...]:
    return ((ip, ""),)


def _holds(block: IPBlock, ip: str | None, family: int) -> str:
    """Whether the range holds the address: in ``cidr`` and in no ``except`` of this block."""
    if ip is not None:
        inside = cidr.contains(block.cidr, ip)
        return YES if inside and not any(cidr.contains(b, ip) for b in block.except_) else NO
    if cidr.family(block.cidr) != family:
        return NO
    everything = cidr.network(block.cidr).prefixlen == 0 and not block.except_
    return YES if everything else "unknown-address"


# -- putting verdicts together ---------------------------------------------------------------------


def _doubt(direction: Direction, reason: str, who: str, policies: tuple[str, ...] = ()) -> Because:
    return Because(direction, Verdict.UNDEFINED, reason, f"{who}: {REASONS[reason]}", policies)


def _undefined(reason: str, who: str) -> Decision:
    return _both([_doubt(Direction.INGRESS, reason, who)])


def _both(parts: Sequence[Because]) -> Decision:
    """All parts must allow; one denial is enough, whatever is open about the others."""
    verdicts = [part.verdict for part in parts]
    if Verdict.DENY in verdicts:
        return Decision(Verdict.DENY, tuple(parts))
    for part in parts:
        if part.verdict is Verdict.UNDEFINED:
            return Decision(Verdict.UNDEFINED, tuple(parts), part.code)
    return Decision(Verdict.ALLOW, tuple(parts))


def _all_of(decisions: Sequence[Decision]) -> Decision:
    """Several flows that must all succeed."""
    because = tuple(b for decision in decisions for b in decision.because)
    verdicts = [decision.verdict for decision in decisions]
    if Verdict.DENY in verdicts:
        return Decision(Verdict.DENY, because)
    reason = next((d.reason for d in decisions if d.verdict is Verdict.UNDEFINED), None)
    if reason is not None:
        return Decision(Verdict.UNDEFINED, because, reason)
    return Decision(Verdict.ALLOW, because)


def _any_of(name: str, decisions: Sequence[tuple[str, Decision]]) -> Decision:
    """One of several backends, nobody knows which: a verdict only where they all agree."""
    if not decisions:
        return _undefined("no-backends", name)
    verdicts = {decision.verdict for _, decision in decisions}
    if len(verdicts) == 1:
        return decisions[0][1]
    for _, decision in decisions:
        if decision.verdict is Verdict.UNDEFINED:
            return decision
    who = {verdict: [pod for pod, d in decisions if d.verdict is verdict] for verdict in verdicts}
    text = (
        f"{name} may pick {words.listed(who[Verdict.ALLOW], conjunction='or')}, which is allowed, "
        f"or {words.listed(who[Verdict.DENY], conjunction='or')}, which is denied"
    )
    denied = next(d for _, d in decisions if d.verdict is Verdict.DENY)
    mixed = Because(Direction.INGRESS, Verdict.UNDEFINED, "mixed-backends", text)
    return Decision(Verdict.UNDEFINED, (mixed, *denied.because), "mixed-backends")


# -- in words --------------------------------------------------------------------------------------


def _open_text(pod: Pod, direction: Direction) -> str:
    may = (
        "it takes connections from everybody"
        if direction is Direction.INGRESS
        else "it may connect to everything"
    )
    return f"no policy selects {pod} for {direction.lower()}, so {may}"


def _denied_text(pod: Pod, direction: Direction, names: Sequence[str], code: str) -> str:
    who = words.listed(names)
    verb = "selects" if len(names) == 1 else "select"
    if code == "isolated":
        rest = f"{'has' if len(names) == 1 else 'have'} no rule that allows anything"
        return f"{who} {verb} {pod} for {direction.lower()} and {rest}"
    rest = "no rule of it matches" if len(names) == 1 else "no rule of theirs matches"
    return f"{who} {verb} {pod} for {direction.lower()}, and {rest} this connection"


def _allowed_by(policy: NetworkPolicy, direction: Direction, index: int, rule: Rule) -> Because:
    source = rule.source or policy.source
    text = (
        f"{policy}, {direction.lower()} rule {index + 1}, allows it: "
        f"{words.rule(rule, direction, policy.namespace)}"
    )
    return Because(direction, Verdict.ALLOW, "rule", text, (str(policy),), index, source)
