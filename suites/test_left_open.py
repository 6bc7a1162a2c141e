"""What the API leaves open and is no new connection: connections that were open already, and ICMP.

Recorded for every CNI; judged where the catalogue's entry pins it (``[profile]``: ``established``
is ``kept`` or ``cut``; ``icmp`` is ``open`` or ``policy``).
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.labs.base import Shell
from harness.model.actions import Apply, Delete
from harness.model.flow import Endpoint
from harness.model.policy import (
    EVERYTHING,
    Direction,
    LabelSelector,
    NetworkPolicy,
    Peer,
    PolicyPort,
    Rule,
)
from harness.run.runner import Looked
from harness.scenarios.scenario import Checked, Probes, Scenario, Step
from harness.scenarios.worlds import world

pytestmark = [pytest.mark.profile, pytest.mark.tcp]
CLIENT, SERVER = Endpoint.parse("y/a"), Endpoint.parse("x/a")
SECONDS = 10
A, B = (LabelSelector((("pod", name),)) for name in "ab")
SHUT = {
    "ingress": NetworkPolicy("x", "shut", A, (Direction.INGRESS,)),
    "egress": NetworkPolicy("y", "shut", A, (Direction.EGRESS,)),
}


def address(looked: Looked, pod: Endpoint) -> str:
    return looked.world.pods[pod.namespace, pod.name].ips[0]


def read(shell: Shell, until: bytes, seconds: float) -> bytes:
    """What comes, until these bytes have come or the time is over."""
    seen = b""
    deadline = time.monotonic() + seconds
    while until not in seen and (left := deadline - time.monotonic()) > 0:
        if select.select([shell.fileno()], [], [], left)[0]:
            seen += shell.receive()
    return seen


class Connection:
    """Half a request now, the rest of it later: nothing but the connection itself is old."""

    def __init__(self, looked: Looked) -> None:
        self.shell = looked.lab.shell(CLIENT)
        self.shell.send(f"echo up; exec busybox nc {address(looked, SERVER)} 80\n".encode())
        assert b"up" in read(self.shell, b"up\n", SECONDS)
        self.shell.send(b"GET /t/old HTTP/1.1\r\n")

    def there(self, looked: Looked) -> bool:
        """Whether the client's kernel has it as established."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            argv = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
            _, text, _ = looked.prober.run(CLIENT, argv, SECONDS)
            rows = (line.split() for line in text.splitlines())
            if any(len(row) > 3 and row[2].endswith(":0050") and row[3] == "01" for row in rows):
                return True
        return False

    def answers(self) -> bool:
        """Whether the rest of the request still gets through, and the answer back."""
        self.shell.send(b"Host: old\r\n\r\n")
        return str(SERVER).encode() in read(self.shell, str(SERVER).encode(), 2.0)


def judged(looked: Looked, row: str, seen: str, what: str) -> Checked:
    """What was seen, held against what the entry pins."""
    wanted = looked.cni.profile.get(row, "") if looked.cni else ""
    text = f"{what}: {seen}" + (f", pinned: {wanted}" if wanted else ", left open by the API")
    return Checked(f"{row} is {seen}", "failed" if wanted and seen != wanted else "passed", text)


class Old:
    """A connection that one step opens and a later one asks of: their checks."""

    connection: Connection | None = None

    def opened(self, looked: Looked) -> Iterator[Checked]:
        self.connection = Connection(looked)
        good = self.connection.there(looked)
        yield Checked("a connection is open", "passed" if good else "error", str(SERVER))

    def recorded(self, looked: Looked) -> Iterator[Checked]:
        assert self.connection is not None
        seen = "kept" if self.connection.answers() else "cut"
        yield judged(looked, "established", seen, "half a request before, the rest after")


@pytest.fixture
def old() -> Iterator[Old]:
    old = Old()
    yield old
    if old.connection is not None:
        old.connection.shell.close()


@pytest.mark.established
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_connections_that_were_open_before(direction: str, old: Old, run_scenario: Any) -> None:
    """A connection from before the policy: new ones are denied, the old one is recorded."""
    run_scenario(
        Scenario(
            id=f"left-open/established-{direction}",
            title="A connection that was open before the policy that denies it",
            why="the API says nothing of connections that are there already",
            world=world("two-by-two"),
            steps=(
                Step("nobody is restricted", checks=(old.opened,)),
                Step("the policy comes", (Apply(SHUT[direction]),), checks=(old.recorded,)),
            ),
            features=frozenset({"profile", "established", direction, "deny-all", "tcp"}),
            probes=Probes(sources=(CLIENT,), targets=(SERVER,)),
        )
    )


@pytest.mark.established
def test_a_connection_outlives_the_policy_that_allowed_it(old: Old, run_scenario: Any) -> None:
    """The policy that let it in goes, one that lets nobody in stays."""
    lets_in = NetworkPolicy("x", "open", A, (Direction.INGRESS,), (Rule((Peer(A, EVERYTHING),)),))
    run_scenario(
        Scenario(
            id="left-open/established-policy-deleted",
            title="A connection outlives the policy that allowed it",
            why="the API says nothing of connections that are there already",
            world=world("two-by-two"),
            steps=(
                Step(
                    "only a's are let in",
                    (Apply(SHUT["ingress"]), Apply(lets_in)),
                    checks=(old.opened,),
                ),
                Step(
                    "nobody is let in any more",
                    (Delete("NetworkPolicy", "x", "open"),),
                    checks=(old.recorded,),
                ),
            ),
            features=frozenset(
                {"profile", "established", "ingress", "delete-policy", "policy-stack", "tcp"}
            ),
            probes=Probes(sources=(CLIENT,), targets=(SERVER,)),
        )
    )


@pytest.mark.icmp
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_echo_requests(direction: str, run_scenario: Any) -> None:
    """Who may send echo requests where some may connect on every port, and some on one."""
    whole, one_port, nobody = (Endpoint.parse(name) for name in ("y/b", "y/a", "x/b"))
    if direction == "ingress":
        rules = (
            Rule((Peer(B, LabelSelector((("ns", "y"),))),)),
            Rule((Peer(A, LabelSelector((("ns", "y"),))),), (PolicyPort(port=80),)),
        )
        policy = NetworkPolicy("x", "some", A, (Direction.INGRESS,), rules)
        ways = {name: (name, SERVER) for name in (whole, one_port, nobody)}
    else:
        rules = (
            Rule((Peer(B, LabelSelector((("ns", "y"),))),)),
            Rule((Peer(A, LabelSelector((("ns", "y"),))),), (PolicyPort(port=80),)),
        )
        policy = NetworkPolicy("x", "some", A, (Direction.EGRESS,), (), rules)
        ways = {name: (SERVER, name) for name in (whole, one_port, nobody)}

    def echo(looked: Looked, who: Endpoint) -> bool:
        source, target = ways[who]
        argv = ["ping", "-c", "2", "-i", "0.2", "-W", "1", address(looked, target)]
        return looked.prober.run(source, argv, SECONDS)[0] == 0

    def before(looked: Looked) -> Iterator[Checked]:
        good = all(echo(looked, who) for who in ways)
        yield Checked("everybody is answered", "passed" if good else "error", "without a policy")

    def after(looked: Looked) -> Iterator[Checked]:
        seen = {who: echo(looked, who) for who in ways}
        kind = {(True, True, True): "open", (True, False, False): "policy"}.get(
            tuple(seen.values()), "neither"
        )
        told = ", ".join(f"{who} {'answered' if good else 'silent'}" for who, good in seen.items())
        yield judged(looked, "icmp", kind, told)

    run_scenario(
        Scenario(
            id=f"left-open/icmp-{direction}",
            title="Echo requests of a restricted pod",
            why="policies speak of TCP, UDP and SCTP; what becomes of others is left open",
            world=world("two-by-two"),
            steps=(
                Step("nobody is restricted", checks=(before,)),
                Step("some may connect", (Apply(policy),), checks=(after,)),
            ),
            features=frozenset(
                {"profile", "icmp", direction, "pods-by-label", "namespaces-by-label", "tcp"}
            ),
        )
    )
