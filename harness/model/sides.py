"""One pod, one direction: what its policies say of one other end. The heart of the oracle.

NetworkPolicy is read here, cluster policies (which come before and after it) in
:mod:`harness.model.tiers`. Matches are three-valued: what the specification leaves open is a
*doubt*, and a verdict is undefined only where it rests on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.model import cidr, words
from harness.model.flow import Because, Verdict
from harness.model.policy import (
    Direction,
    IPBlock,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Protocol,
    Rule,
)
from harness.model.profile import REASONS, Profile
from harness.model.selectors import selects
from harness.model.world import Pod, World

# How a peer or a rule matches: YES, NO, or else the reason code of a doubt.
YES, NO = "yes", "no"

# An address and what it is: "" for a plain one, or the reason code of the doubt in which an
# ipBlock that holds it leaves us. None: nobody has given it out yet.
Seeing = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The other end of a flow, as the policies of one pod may see it.

    ``pod`` is what selectors see (None: nothing), ``addresses`` is what ipBlocks see, ``node`` is
    the node that it is, or whose network it is on ("": none).
    ``unclear`` is the reason code that stands where NetworkPolicy matches nothing for sure ("":
    then it is denied). ``always`` is a code for which it is allowed whatever NetworkPolicy says
    ("": there is none). ``hidden`` is whether it cannot be told at all who policies see.
    ``who`` is its name, for people.
    """

    family: int
    pod: Pod | None = None
    addresses: tuple[Seeing, ...] = ()
    node: str = ""
    unclear: str = ""
    always: str = ""
    hidden: bool = False
    who: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a flow arrives, after a Service's translation: the pod whose port names count (None:
    not a pod) and the port there."""

    pod: Pod | None
    port: int
    protocol: Protocol


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


class Sides:
    """Reads the NetworkPolicies of one world, and remembers who is selected by what."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world = world
        self.profile = profile
        self._policies_of: dict[str, list[NetworkPolicy]] = {}
        for _, policy in sorted(world.policies.items()):
            self._policies_of.setdefault(policy.namespace, []).append(policy)
        self._isolating: dict[tuple[str, str, Direction], tuple[NetworkPolicy, ...]] = {}

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

    def because(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        """What NetworkPolicy says, pods on the host's network included."""
        because = self._because(pod, direction, seen, to)
        if not pod.host_network or because.verdict is Verdict.ALLOW:
            return because
        match self.profile.get("host-network-subject"):
            case "policy":
                return because
            case "open":
                text = f"{pod} is on the host's network, where policies leave it alone"
                return Because(direction, Verdict.ALLOW, "host-network-subject", text)
            case _:
                return doubt(direction, "host-network-subject", str(pod), because.policies)

    def _because(self, pod: Pod, direction: Direction, seen: Seen, to: Arrival) -> Because:
        isolating = self.isolating(pod, direction)
        if not isolating:
            return Because(direction, Verdict.ALLOW, "open", _open_text(pod, direction))
        names = tuple(str(policy) for policy in isolating)
        if seen.always:
            return always(pod, direction, seen.always, names)
        unclear, doubted = seen.unclear, ""
        any_rule = False
        for policy in isolating:
            for index, rule in enumerate(rules_of(policy, direction)):
                any_rule = True
                match = self.rule_matches(rule, policy.namespace, seen, to)
                if match == YES:
                    return _allowed_by(policy, direction, index, rule)
                if match != NO and not unclear:
                    unclear, doubted = match, str(policy)
        if unclear:
            return doubt(direction, unclear, doubted or str(pod), names)
        code = "no-rule" if any_rule else "isolated"
        text = _denied_text(pod, direction, names, code)
        source = isolating[0].source
        return Because(direction, Verdict.DENY, code, text, names, source=source)

    def rule_matches(self, rule: Rule, namespace: str, seen: Seen, to: Arrival) -> str:
        """YES, NO, or the reason code of a doubt; ``namespace`` is the policy's own."""
        if rule.ports and not any(port_matches(port, to) for port in rule.ports):
            return NO
        if not rule.peers:
            return YES
        return any_of(self.peer_matches(peer, namespace, seen) for peer in rule.peers)

    def peer_matches(self, peer: Peer, namespace: str, seen: Seen) -> str:
        """YES, NO, or the reason code of a doubt; ``namespace`` is the policy's own."""
        if peer.ip_block is not None:
            return self.block_matches(peer.ip_block, seen)
        if peer.pod_selector is None and peer.namespace_selector is None:
            return NO  # a kind of peer that this reader does not know: it fails closed
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

    def block_matches(self, block: IPBlock, seen: Seen) -> str:
        """An ipBlock against all that it may see; pods' addresses leave a doubt."""
        return any_of(self._holds(block, ip, kind, seen.family) for ip, kind in seen.addresses)

    def _holds(self, block: IPBlock, ip: str | None, kind: str, family: int) -> str:
        held = holds(block, ip, family)
        reading = self.profile.get(kind, "") if kind else "match"
        if held == NO or reading == "no-match":
            return NO
        return held if reading == "match" else (kind if held == YES else held)


def any_of(matches: Iterable[str]) -> str:
    """YES if any is, else the first doubt, else NO."""
    result = NO
    for match in matches:
        if match == YES:
            return YES
        if result == NO:
            result = match
    return result


def holds(block: IPBlock, ip: str | None, family: int) -> str:
    """Whether the range holds the address: in ``cidr`` and in no ``except`` of this block. For an
    address that nobody has given out yet: the code of that doubt, unless it cannot matter."""
    if ip is not None:
        inside = cidr.contains(block.cidr, ip)
        return YES if inside and not any(cidr.contains(b, ip) for b in block.except_) else NO
    if cidr.family(block.cidr) != family:
        return NO
    everything = cidr.network(block.cidr).prefixlen == 0 and not block.except_
    return YES if everything else "unknown-address"


# -- in words --------------------------------------------------------------------------------------


def doubt(direction: Direction, reason: str, who: str, policies: tuple[str, ...] = ()) -> Because:
    """Why a direction is undefined; ``reason`` is a code of :data:`profile.REASONS`."""
    return Because(direction, Verdict.UNDEFINED, reason, f"{who}: {REASONS[reason]}", policies)


def always(pod: Pod, direction: Direction, code: str, policies: tuple[str, ...] = ()) -> Because:
    """Why policies do not count: a pod's own node, or nodes at all under some profile."""
    who = "a pod and its own node" if code == "own-node" else "pods and this node"
    text = (
        f"{pod} is restricted for {direction.lower()}, but traffic between {who} is always let "
        f"through"
    )
    return Because(direction, Verdict.ALLOW, code, text, policies)


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
