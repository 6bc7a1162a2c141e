"""The oracle: what the specification says of each cell, with the reason. Pure.

This is the definition, written to be read beside the API reference of ``networking.k8s.io/v1`` and
the concept page "Network Policies". A flow between two pods is allowed iff egress of the source
and ingress of the destination allow it. What the specification leaves to the implementation is
``undefined``, with a reason code out of :data:`harness.model.profile.REASONS`; but only where the
verdict really *rests* on that: what every reading allows is allowed.

Here it is found who connects to whom, and as what each side's policies see the other; what they
say of it is in :mod:`harness.model.sides` (NetworkPolicy) and :mod:`harness.model.tiers`
(ClusterNetworkPolicy). The in-house enforcer must import none of the three, nor ``selectors`` or
``cidr``: it reads the specification a second time, on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.model import cidr, words
from harness.model.flow import Because, Cell, Decision, Verdict, Via
from harness.model.policy import Direction, NetworkPolicy, Protocol
from harness.model.profile import NO_PROFILE, Profile, check_profile
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
    named,
    node_port,
)
from harness.model.sides import Arrival, Seeing, Seen, Sides, doubt, rules_of
from harness.model.tiers import Tiers
from harness.model.world import ContainerPort, External, Node, Pod, Service, World

__all__ = ["Oracle", "UnknownEndpointError", "decide", "expected", "listens", "rules_of"]

# Who answers names where the world does not say: what every cluster's DNS add-on looks like.
_USUAL_DNS = Pod(
    DNS_NAMESPACE,
    DNS_SERVICE,
    {"k8s-app": "kube-dns"},
    ports=(ContainerPort(53, Protocol.UDP, "dns"), ContainerPort(53, Protocol.TCP, "dns-tcp")),
)


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


class Oracle:
    """A reader of one world that remembers who is selected by what."""

    def __init__(self, world: World, profile: Profile = NO_PROFILE) -> None:
        check_profile(profile)
        self.world = world
        self.profile = profile
        self._sides = Sides(world, profile)
        self._tiers = Tiers(world, self._sides)

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
        if cell.via is Via.SERVICE_IP:
            return self._through(source, service, cell.port, cell.protocol, cell.family)
        if not isinstance(source, Pod):
            return _undefined("no-cluster-dns", str(source.name))
        lookup = self._lookup(source, cell.family)
        connection = self._through(
            source, service, cell.port, cell.protocol, cell.family, named=True
        )
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
        own = () if isinstance(ip, tuple) else ((ip, "ipblock-service"),)
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
                parts.append(self._side(source, Direction.EGRESS, _hidden(cell, pod), to))
            if keeps_client and isinstance(source, External):
                client = self._seen(source, pod, cell.family, Direction.INGRESS)
            else:
                client = _hidden(cell, source)
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
        service: tuple[Seeing, ...] | None = None,
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
        who = named(other)
        if isinstance(other, Node):
            return self._seen_node(other, subject, family, direction)
        ip = address(other.ips, family)
        if isinstance(other, External):
            return Seen(family, addresses=((ip, ""),), who=who)
        if not other.host_network:
            return Seen(family, other, ((ip, "ipblock-pod"),), who=who)
        node = other.node or ""
        match self.profile.get("host-network-peer"):
            case "address":
                own = bool(node) and node == subject.node and direction is Direction.INGRESS
                always = "own-node" if own else ""  # whose address it has
                return Seen(family, None, ((ip, ""),), node, always=always, who=who)
            case "pod":
                return Seen(family, other, ((ip, "ipblock-pod"),), node, who=who)
            case _:
                reason = "host-network-peer"
                return Seen(family, None, ((ip, reason),), node, unclear=reason, who=who)

    def _seen_node(self, node: Node, subject: Pod, family: int, direction: Direction) -> Seen:
        own = subject.node == node.name
        by_address = Seen(
            family, None, ((address(node.ips, family), ""),), node.name, who=named(node)
        )
        if own and direction is Direction.INGRESS:
            return replace(by_address, always="own-node")
        if direction is Direction.INGRESS:
            reason = "node-to-pod"
        else:
            reason = "pod-to-own-node" if own else "pod-to-node"
        match self.profile.get(reason):
            case "allow":
                return replace(by_address, always=reason)
            case "address":
                return by_address
            case _ if direction is Direction.EGRESS:
                # The address is the one that is dialled: a rule for it holds in every reading.
                return replace(by_address, unclear=reason)
            case _:  # Another node may come from any of its addresses, tunnels' included.
                return replace(by_address, addresses=(), unclear=reason)

    def _side(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        """Every verdict on one direction of one pod comes through here (explain listens)."""
        return self._tiers.because(pod, direction, seen, to)

    def isolating(self, pod: Pod, direction: Direction) -> tuple[NetworkPolicy, ...]:
        """The NetworkPolicies that select the pod for this direction, by name."""
        return self._sides.isolating(pod, direction)


def _hidden(cell: Cell, end: End) -> Seen:
    """An end whose address may be replaced by a node's on the way."""
    return Seen(cell.family, unclear="snat", hidden=True, who=named(end))


# -- putting verdicts together ---------------------------------------------------------------------


def _undefined(reason: str, who: str) -> Decision:
    return _both([doubt(Direction.INGRESS, reason, who)])


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
