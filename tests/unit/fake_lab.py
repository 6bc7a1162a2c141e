"""A lab in one process with a clock of its own: shells that understand probes, packets by rule.

What gets through is what the oracle says of the world ``lag`` seconds ago, unless ``rule`` says
otherwise. Time passes only while the prober waits, so a test of ten seconds takes none.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.labs.base import Evidence, LabError, Shell, ShellLostError
from harness.model.actions import Action
from harness.model.flow import Cell, Endpoint, EndpointKind, Verdict, Via
from harness.model.oracle import decide
from harness.model.policy import Protocol
from harness.model.transition import step
from harness.model.world import World
from harness.scenarios.presume import OUTSIDE, presume


@dataclass(frozen=True)
class Answer:
    """How a probe ends: after ``delay`` (None: never) with this exit status and text."""

    delay: float | None
    status: int = 0
    text: str = ""
    backend: str = ""
    client_port: int = 0


DROP = Answer(None, text="Connecting to x (x)")
REFUSE = Answer(
    0.001, 1, "Connecting to x (x) wget: can't connect to remote host: Connection refused"
)


def allowed(backend: str, delay: float = 0.002) -> Answer:
    return Answer(delay, 0, "", backend)


@dataclass
class Asked:
    """One probe as the rule of a test sees it."""

    time: float
    source: Endpoint
    host: str
    port: int
    protocol: Protocol
    number: int  # how many such probes there were before


Rule = Callable[[Asked, Answer], Answer]
Event = tuple[float, int, "FakeShell", bytes]


class FakeShell:
    def __init__(self, lab: FakeLab, client: Endpoint) -> None:
        self.lab = lab
        self.client = client
        self.buffer = b""
        self.lost = False
        self.closed = False
        self.nonce = ""
        self.slots: dict[str, tuple[str, Answer, Event | None]] = {}

    def fileno(self) -> int:
        raise AssertionError("nobody selects on a fake")

    def receive(self) -> bytes:
        if self.lost:
            raise ShellLostError(f"the shell in {self.client} is gone")
        data, self.buffer = self.buffer, b""
        return data

    def close(self) -> None:
        self.closed = True

    def send(self, data: bytes) -> None:
        if self.lost:
            raise ShellLostError(f"the shell in {self.client} is gone")
        text = data.decode()
        if "ready 0" in text:
            self.nonce = re.findall(r"!(\w+) ready", text)[0]
            self.lab.at(0.001, self, f"!{self.nonce} ready 0 cut bash\n")
            return
        for line in text.splitlines():
            word, *rest = line.split()
            if word == "k":
                for slot in rest:
                    self._cut(slot)
            elif word in ("w", "u"):
                self._probe(word, *rest)
            elif word != "wait":
                raise AssertionError(f"not understood: {line}")

    def _probe(self, word: str, token: str, slot: str, host: str, port: str = "") -> None:
        if word == "w":
            host, _, port = host.rpartition(":")
        protocol = Protocol.TCP if word == "w" else Protocol.UDP
        answer = self.lab.ask(self.client, host.strip("[]"), int(port), protocol)
        if answer.delay is None:
            self.slots[slot] = (token, answer, None)
            return
        text = answer.text
        if answer.backend:
            echoed = token if word == "w" else "-"
            ends = f"10.0.0.1 {port} 10.0.0.2 {answer.client_port}"
            text = f"Connecting to a {echoed} {answer.backend} {ends} - 100% |**|"
        said = f"!{self.nonce} {token} {answer.status} {text}\n"
        self.slots[slot] = (token, answer, self.lab.at(answer.delay, self, said))

    def _cut(self, slot: str) -> None:
        if slot in self.slots:
            token, answer, event = self.slots.pop(slot)
            if event in self.lab.events:
                self.lab.events.remove(event)
                heapq.heapify(self.lab.events)
            elif event:
                return  # it had been answered
            if answer.text != "stuck":
                self.lab.at(0.001, self, f"!{self.nonce} {token} 143 {answer.text}\n")


class Listening:
    def __init__(self, lab: FakeLab) -> None:
        self.lab = lab

    def now(self) -> float:
        return self.lab.time

    def add(self, shell: Shell) -> None:
        pass

    def remove(self, shell: Shell) -> None:
        pass

    def wait(self, seconds: float) -> list[Shell]:
        return self.lab.pass_time(seconds)


@dataclass
class FakeLab:
    """Implements harness.labs.base.Lab, and what a Prober listens with (``listening``)."""

    lag: float = 0.0
    rule: Rule | None = None
    name: str = "fake"
    features: frozenset[str] = frozenset({"ipv4", "ipv6", "udp", "dns", "node-client", "external"})
    missing: Mapping[str, str] = field(default_factory=dict)
    time: float = 100.0
    probes: int = 0
    fault: str = ""  # what check() raises
    processors: int = 0  # of the machine that all clients run on
    applied: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listening = Listening(self)
        self.history: list[tuple[float, World]] = [(0.0, World())]
        self.shells: list[FakeShell] = []
        self.events: list[Event] = []
        self.numbers = itertools.count()
        self.counts: dict[Any, int] = {}
        self.refuse_shells: set[Endpoint] = set()
        self.ups = 0

    # -- Lab -----------------------------------------------------------------------------------

    def up(self) -> None:
        self.ups += 1
        self.history = [(0.0, World(externals={OUTSIDE.name: OUTSIDE}))]

    def down(self) -> None:
        pass

    def apply(self, actions: Sequence[Action]) -> float:
        started = self.time
        world = self.world
        for action in actions:
            self.applied.append(action)
            world = step(world, action)
        self.history.append((self.time, world))
        return started

    def resolve(self, world: World) -> World:
        return presume(world.with_(externals={**self.world.externals, **world.externals}))

    def evidence(self, world: World, cells: Sequence[Cell]) -> tuple[Evidence, ...]:
        return (Evidence("rules", "worker", "iptables-save", f"{len(cells)} cells"),)

    def check(self) -> None:
        if self.fault:
            raise LabError(self.fault)

    def facts(self) -> Mapping[str, Any]:
        return {"lab": self.name}

    def shell(self, client: Endpoint) -> FakeShell:
        if client in self.refuse_shells:
            raise LabError(f"no shell in {client}")
        shell = FakeShell(self, client)
        self.shells.append(shell)
        return shell

    # -- the simulation ------------------------------------------------------------------------

    @property
    def world(self) -> World:
        return self.history[-1][1]

    def in_force(self, at: float) -> World:
        """The policies and labels of ``lag`` ago, with the pods of now."""
        old = next(w for t, w in reversed(self.history) if t <= at - self.lag)
        return presume(self.world.with_(policies=old.policies, namespaces=self.world.namespaces))

    def ask(self, source: Endpoint, host: str, port: int, protocol: Protocol) -> Answer:
        self.probes += 1
        key = (source, host, port, protocol)
        number = self.counts[key] = self.counts.get(key, -1) + 1
        answer = self._lawful(source, host, port, protocol)
        if self.rule:
            answer = self.rule(Asked(self.time, source, host, port, protocol, number), answer)
        return answer

    def _lawful(self, source: Endpoint, host: str, port: int, protocol: Protocol) -> Answer:
        world = self.in_force(self.time)
        family = 6 if ":" in host else 4
        for pod in world.pods.values():
            if host in pod.ips:
                target = Endpoint(EndpointKind.POD, *pod.key)
                if target == source:
                    return allowed(str(pod))
                cell = Cell(source, target, port, protocol, Via.POD_IP, family)
                verdict = decide(world, cell).verdict
                return DROP if verdict is Verdict.DENY else allowed(str(pod))
        for service in world.services.values():
            if host in (*service.cluster_ips, f"{service.name}.{service.namespace}"):
                target = Endpoint(EndpointKind.SERVICE, *service.key)
                cell = Cell(source, target, port, protocol, Via.SERVICE_IP, family)
                verdict = decide(world, cell).verdict
                if not (backends := world.backends(service)):
                    return REFUSE
                return DROP if verdict is Verdict.DENY else allowed(str(backends[0]))
        for external in world.externals.values():
            if host in external.ips:
                target = Endpoint(EndpointKind.EXTERNAL, "", external.name)
                cell = Cell(source, target, port, protocol, Via.EXTERNAL_IP, family)
                denied = source != target and decide(world, cell).verdict is Verdict.DENY
                return DROP if denied else allowed(str(target))
        return DROP

    def at(self, delay: float, shell: FakeShell, text: str) -> Event:
        event = (self.time + delay, next(self.numbers), shell, text.encode())
        heapq.heappush(self.events, event)
        return event

    def pass_time(self, seconds: float) -> list[Shell]:
        end = self.time + max(seconds, 0.0)
        lost = [s for s in self.shells if s.lost and not s.closed]
        if lost:
            return list(lost)
        if not self.events or self.events[0][0] > end:
            self.time = end
            return []
        self.time = max(self.time, self.events[0][0])
        ready = []
        while self.events and self.events[0][0] <= self.time:
            _, _, shell, data = heapq.heappop(self.events)
            if not shell.closed:
                shell.buffer += data
                ready.append(shell)
        return list(dict.fromkeys(ready))
