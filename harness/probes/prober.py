"""Asks cells of a lab: one shell for each client, all probes at once, one loop that listens."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Shape

from harness.labs.base import LabError, Line, Shell
from harness.model.flow import Cell, Endpoint, EndpointKind, Observation, Outcome, Via
from harness.model.policy import Protocol
from harness.model.world import World
from harness.probes import batch
from harness.probes.address import NoAddressError, answering, dial

#: Probes that run at once in one client, and in all of them: a machine that is busy forking
#: answers late, and late answers look like drops.
PER_CLIENT = 64
AT_ONCE = 512
#: Probes that begin at once for each processor, where all clients share this machine's: above it
#: they only wait for each other. One that is out for several times as long as answers have taken
#: lately has begun, and counts no more: it is met with silence.
PER_PROCESSOR = 32
_BEGUN = 3.0
_BEGUN_SECONDS = (0.1, 0.9)
#: Answers that "lately" means.
_LATELY = 32
#: Seconds after which a probe that was cut, and a shell that was opened, must have said so.
GRACE = 5.0
#: Seconds for which connection tracking may remember a datagram that was answered (twice the
#: kernel's ``nf_conntrack_udp_timeout_stream``): another one from the same port is no new flow.
FLOW_SECONDS = 240.0
_FLOWS = 50_000
_AGAIN = 3
_CUT_AGAIN = 0.25


class Listening(Shape):
    """Where shells are listened to; the tests have one with a clock of its own."""

    def now(self) -> float: ...

    def add(self, shell: Shell) -> None: ...

    def remove(self, shell: Shell) -> None: ...

    def wait(self, seconds: float) -> list[Shell]: ...


class Selected:
    """The real one: the monotonic clock, and a selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sources: dict[int, int] = {}  # id of a shell, or of a line -> its descriptor
        self._lines: dict[Line, set[int]] = {}  # with the ids of its shells

    def now(self) -> float:
        return time.monotonic()

    def add(self, shell: Shell) -> None:
        line: Line | None = getattr(shell, "line", None)
        if line is None:
            self._register(shell)
            return
        if line not in self._lines:
            self._register(line)
            self._lines[line] = set()
            line.held = True
        self._lines[line].add(id(shell))

    def remove(self, shell: Shell) -> None:
        line: Line | None = getattr(shell, "line", None)
        if line is None:
            self._unregister(shell)
        elif line in self._lines:
            self._lines[line].discard(id(shell))
            if not self._lines[line]:
                del self._lines[line]
                self._unregister(line)
                line.held = False

    def wait(self, seconds: float) -> list[Shell]:
        found: list[Shell] = []
        for line in list(self._lines):
            line.flush()
            found += line.news()  # something may have been read while somebody else waited
        if not self._sources:
            time.sleep(max(0.0, seconds))
            return found
        for key, _ in self._selector.select(0.0 if found else max(0.0, seconds)):
            found += key.data.news() if key.data in self._lines else [key.data]
        return found

    def _register(self, source: Shell | Line) -> None:
        self._sources[id(source)] = source.fileno()
        self._selector.register(source.fileno(), selectors.EVENT_READ, source)

    def _unregister(self, source: Shell | Line) -> None:
        fd = self._sources.pop(id(source), None)
        if fd is not None:
            self._selector.unregister(fd)


class Clients(Shape):
    """What of a lab is needed here."""

    def shell(self, client: Endpoint) -> Shell: ...

    # A lab where namespaces have other names than in scenarios has ``dns_namespace(name)`` too, and
    # one that opens many shells at once more quickly than one after the other ``gather(clients)``.
    # One whose clients all run on this machine says on how many ``processors``.


@dataclass(eq=False, slots=True)
class Probe:
    """One probe. ``sent`` is None while it waits for its turn, ``seen`` until it has ended."""

    cell: Cell
    token: str
    sent: float | None = None
    cut: float | None = None
    seen: Observation | None = None
    command: tuple[str, ...] = ()
    reply: batch.Reply | None = None
    again: int = 0


@dataclass(eq=False, slots=True)
class _Client:
    """An open shell, what runs in it, and which of its slots are free."""

    shell: Shell
    answers: batch.Answers
    opened: float
    identity: object
    tools: batch.Tools | None = None
    running: dict[str, tuple[int, Probe]] = field(default_factory=dict)
    free: list[int] = field(default_factory=lambda: list(range(PER_CLIENT)))
    untidy: int = 0
    nagged: float = 0.0


class Prober:
    """Probes of one lab. ``losses`` tells why shells were lost since :meth:`begin`, by client.

    A lost shell is opened again once; a client that loses a second one before :meth:`begin` is
    called again answers everything with a harness error.
    """

    def __init__(self, lab: Clients, listening: Listening | None = None) -> None:
        self._lab = lab
        self._called: Callable[[str], str] = getattr(lab, "dns_namespace", str)
        self._gather: Callable[[list[Endpoint]], None] | None = getattr(lab, "gather", None)
        self._listening = listening or Selected()
        self._clients: dict[Endpoint, _Client] = {}
        self._by_shell: dict[int, tuple[Endpoint, _Client]] = {}
        self._waiting: deque[Probe] = deque()
        self._full: dict[Endpoint, deque[Probe]] = {}  # had their turn when no slot was free
        self._begun: dict[Probe, float] = {}  # those that may not have begun, in order of sending
        processors: int = getattr(lab, "processors", 0)
        self._pace = PER_PROCESSOR * processors or AT_ONCE
        self._ended: list[Probe] = []
        self._tokens = itertools.count(1)
        self._in_flight = 0
        self._flows: dict[tuple[str, int, str], float] = {}
        self.world = World()
        self.losses: dict[Endpoint, list[str]] = {}
        #: Seconds that the quickest answer of the last look took, and that answers have taken
        #: lately; guesses before the first.
        self.quickest = 0.1
        self.usual = 0.1
        self._answers = 0

    # -- the world -----------------------------------------------------------------------------

    def now(self) -> float:
        """The clock on which all of this is timed."""
        return self._listening.now()

    def begin(self, world: World) -> None:
        """From now on cells are those of ``world`` (resolved by the lab). Shells of clients that
        are gone, or that are others under an old name, are closed."""
        self.world = world
        self.losses.clear()
        for endpoint, client in list(self._clients.items()):
            if self._identity(endpoint) != client.identity:
                self._drop(endpoint, f"{endpoint} is not there any more")

    def _identity(self, endpoint: Endpoint) -> object:
        if endpoint.kind is EndpointKind.POD:
            pod = self.world.pods.get((endpoint.namespace, endpoint.name))
            return (pod.uid, pod.node, pod.ips) if pod and pod.live else None
        mapping = self.world.nodes if endpoint.kind is EndpointKind.NODE else self.world.externals
        return endpoint.name in mapping or None

    def forget(self, endpoint: Endpoint) -> None:
        """Close a client's shell: another pod may come to have its name."""
        if endpoint in self._clients:
            self._drop(endpoint, f"{endpoint} was let go")

    def close(self) -> None:
        """Close all shells."""
        for endpoint in list(self._clients):
            self._drop(endpoint, "the prober was closed")

    # -- probes --------------------------------------------------------------------------------

    def look(self, cells: Iterable[Cell], timeout: float) -> list[Observation]:
        """Ask each cell once; a probe is cut ``timeout`` seconds after it was sent."""
        probes = self.launch(cells)
        while any(probe.seen is None for probe in probes):
            now = self.now()
            running = [p for p in probes if p.seen is None and p.sent is not None]
            self.cut(p for p in running if now >= (p.sent or 0) + timeout)
            ends = [(p.sent or 0) + timeout for p in running if p.cut is None]
            self.collect(min(ends, default=now + _CUT_AGAIN))
        return [probe.seen for probe in probes if probe.seen]

    def run(self, client: Endpoint, argv: Sequence[str], timeout: float) -> tuple[int, str, float]:
        """Run a command in a client: exit status (143: it was cut after ``timeout`` seconds),
        what it wrote, and how many seconds it took. Raises :class:`LabError`."""
        cell = Cell(client, client, 0)
        probe = Probe(cell, f"t{next(self._tokens)}", command=tuple(argv))
        self._wait_for_turn([probe])
        while probe.seen is None:
            if probe.sent is not None and self.now() >= probe.sent + timeout:
                self.cut([probe])
            self.collect(self.now() + _CUT_AGAIN)
        if probe.reply is None or probe.sent is None:
            raise LabError(f"{argv[0]} could not be run in {client}: {probe.seen.raw}")
        taken = probe.seen.answered - probe.sent
        return probe.reply.status, batch.lines(probe.reply), taken

    def launch(self, cells: Iterable[Cell]) -> list[Probe]:
        """Send a probe for each cell, in this order, now or as soon as there is room."""
        probes = [Probe(cell, f"t{next(self._tokens)}") for cell in cells]
        self._wait_for_turn(probes)
        return probes

    def running(self) -> list[Probe]:
        """The probes that are out now, :data:`AT_ONCE` at most."""
        return [p for c in self._clients.values() for _, p in c.running.values()]

    @property
    def backlog(self) -> bool:
        """Whether probes wait for their turn."""
        return bool(self._waiting or self._full)

    def cut(self, probes: Iterable[Probe]) -> None:
        """End these probes if they still run. Their ends are collected as all others."""
        now = self.now()
        slots: dict[Endpoint, list[int]] = {}
        for probe in probes:
            client = self._clients.get(probe.cell.source)
            entry = client.running.get(probe.token) if client else None
            if entry and (probe.cut is None or now - probe.cut >= _CUT_AGAIN):
                probe.cut = probe.cut or now
                slots.setdefault(probe.cell.source, []).append(entry[0])
        for endpoint, numbers in slots.items():
            self._say(endpoint, self._clients[endpoint], batch.cut(numbers))

    def collect(self, until: float) -> list[Probe]:
        """Wait until something has ended, or until the time ``until``; return what has ended."""
        while True:
            if not self._ended:
                wake = min(until, self._next_turn())
                for shell in self._listening.wait(max(0.0, wake - self.now())):
                    self._hear(shell)
                self._hurry()
            self._pump()
            if self._ended or self.now() >= until:
                ended, self._ended = self._ended, []
                return ended

    # -- inside --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what waits and has room, one write for each client."""
        lines: dict[Endpoint, list[bytes]] = {}
        started: list[Probe] = []
        while self._has_room() and (probe := self._next()):
            endpoint = probe.cell.source
            try:
                client = self._open(endpoint)
                line = self._line(client, probe)
            except (LabError, NoAddressError, OSError, ValueError) as wrong:
                self._end(probe, Outcome.HARNESS_ERROR, str(wrong))
                continue
            if line is None:
                self._full[endpoint] = deque([probe])
                continue
            lines.setdefault(endpoint, []).append(line)
            started.append(probe)
            self._in_flight += 1
            self._begun[probe] = self.now()
        now = self.now()
        for probe in started:
            probe.sent = self._begun[probe] = now
        for endpoint, text in lines.items():
            if endpoint in self._clients:
                self._say(endpoint, self._clients[endpoint], b"".join(text))

    def _has_room(self) -> bool:
        while self._begun:
            oldest, sent = next(iter(self._begun.items()))
            if oldest.seen is None and self.now() < sent + self._begun_after:
                break
            del self._begun[oldest]
        return self._in_flight < AT_ONCE and len(self._begun) < self._pace

    def _next_turn(self) -> float:
        """When a probe that waits may be sent, though none ends before."""
        if not self.backlog or len(self._begun) < self._pace:
            return float("inf")
        return next(iter(self._begun.values())) + self._begun_after

    @property
    def _begun_after(self) -> float:
        least, most = _BEGUN_SECONDS
        return min(most, max(least, _BEGUN * self.usual))

    def _next(self) -> Probe | None:
        """The probe whose turn it is. Clients of which too many run are passed over."""
        for endpoint, queue in self._full.items():
            client = self._clients.get(endpoint)
            if client is None or client.free:
                probe = queue.popleft()
                if not queue:
                    del self._full[endpoint]
                return probe
        while self._waiting:
            probe = self._waiting.popleft()
            if probe.cell.source not in self._full:
                return probe
            self._full[probe.cell.source].append(probe)
        return None

    def _wait_for_turn(self, probes: Iterable[Probe]) -> None:
        probes = list(probes)
        self._open_together(dict.fromkeys(probe.cell.source for probe in probes))
        self._waiting += probes
        self._pump()

    def _line(self, client: _Client, probe: Probe) -> bytes | None:
        """The shell text of a probe, which then counts as running; None: no slot is free."""
        if not client.free:
            return None
        tidy = b""
        if not client.running and client.untidy >= PER_CLIENT:
            tidy, client.untidy = batch.TIDY, 0
        slot = client.free[-1]
        if probe.command:
            line = batch.command(probe.token, slot, probe.command)
        else:
            host, port = dial(self.world, probe.cell, self._called)
            line = batch.probe(probe.token, slot, probe.cell.protocol, host, port)
        client.free.pop()
        client.untidy += 1
        client.running[probe.token] = (slot, probe)
        return tidy + line

    def _open_together(self, endpoints: Iterable[Endpoint]) -> None:
        """Have the lab open the shells that will be asked for; what fails is told by asking."""
        if self._gather is None:
            return
        fresh = [e for e in endpoints if e not in self._clients and self._may_open(e)]
        if len(fresh) > 1:
            with contextlib.suppress(LabError, OSError):
                self._gather(fresh)

    def _may_open(self, endpoint: Endpoint) -> bool:
        return len(self.losses.get(endpoint, ())) <= 1

    def _open(self, endpoint: Endpoint) -> _Client:
        client = self._clients.get(endpoint)
        if client is not None:
            return client
        if not self._may_open(endpoint):
            raise LabError(f"{self.losses[endpoint][-1]}; it was lost before as well")
        nonce = secrets.token_hex(4)
        shell = self._lab.shell(endpoint)
        client = _Client(shell, batch.Answers(nonce), self.now(), self._identity(endpoint))
        self._clients[endpoint] = client
        self._by_shell[id(shell)] = (endpoint, client)
        self._listening.add(shell)
        self._say(endpoint, client, batch.opening(nonce))
        if endpoint not in self._clients:
            raise LabError(f"the shell in {endpoint} ended at once")
        return client

    def _say(self, endpoint: Endpoint, client: _Client, text: bytes) -> None:
        try:
            client.shell.send(text)
        except (LabError, OSError) as lost:
            self._lost(endpoint, str(lost))

    def _hear(self, shell: Shell) -> None:
        endpoint, client = self._by_shell.get(id(shell), (None, None))
        if endpoint is None or client is None:
            return
        try:
            data = shell.receive()
        except (LabError, OSError) as lost:
            self._lost(endpoint, str(lost))
            return
        now = self.now()
        for reply in client.answers.feed(data):
            if reply.token == "ready":
                client.tools = batch.tools(reply)
                continue
            slot, probe = client.running.pop(reply.token, (None, None))
            if slot is None or probe is None:
                continue  # of a probe that was given up
            client.free.append(slot)
            self._in_flight -= 1
            self._begun.pop(probe, None)
            probe.reply = reply
            self._understand(probe, reply, now)

    def _understand(self, probe: Probe, reply: batch.Reply, now: float) -> None:
        cell = probe.cell
        if probe.command:
            self._end(probe, Outcome.ALLOWED, "", now=now)
            return
        reading = batch.read(reply, cell.protocol, named=cell.via is Via.SERVICE_NAME)
        outcome = reading.outcome
        if cell.protocol is Protocol.UDP and self._is_of_before(reading, now):
            probe.again += 1
            if probe.again <= _AGAIN:
                probe.sent = probe.cut = None
                self._wait_for_turn([probe])
                return
        if outcome is Outcome.ALLOWED and probe.sent is not None:
            self._answers += 1
            self.usual += (now - probe.sent - self.usual) / min(self._answers, _LATELY)
        right = self._right(cell) if outcome is Outcome.ALLOWED else None
        if right is not None and reading.backend not in right:
            outcome = Outcome.WRONG_BACKEND
        if outcome is Outcome.HARNESS_ERROR and cell.protocol is Protocol.UDP:
            reading = self._without_udp(cell.source, reading)
        self._end(probe, outcome, reading.raw, reading.backend, reading.client, now)

    def _is_of_before(self, reading: batch.Reading, now: float) -> bool:
        """Whether a datagram happened to leave from the port of one that was answered before. For
        connection tracking the two are one flow, and an established one passes any policy."""
        if not reading.client_port:
            return False
        flow = reading.client, reading.client_port, reading.server
        before = self._flows.pop(flow, -FLOW_SECONDS)
        self._flows[flow] = now
        if len(self._flows) > _FLOWS:
            del self._flows[next(iter(self._flows))]  # the oldest
        return now - before < FLOW_SECONDS

    def _right(self, cell: Cell) -> frozenset[str] | None:
        try:
            return answering(self.world, cell)
        except LookupError:  # the answer came after its target had left the world
            return frozenset()

    def _without_udp(self, endpoint: Endpoint, reading: batch.Reading) -> batch.Reading:
        client = self._clients.get(endpoint)
        if client and client.tools and not client.tools.udp:
            return batch.Reading(
                reading.outcome, f"{endpoint} has no UDP client: neither bash nor `nc -u`"
            )
        return reading

    def _end(
        self,
        probe: Probe,
        outcome: Outcome,
        raw: str,
        backend: str = "",
        client: str = "",
        now: float | None = None,
    ) -> None:
        at = self.now() if now is None else now
        sent = at if probe.sent is None else probe.sent
        probe.seen = Observation(probe.cell, outcome, sent, at, backend, client, raw)
        self._ended.append(probe)

    def _hurry(self) -> None:
        """Say again what was not heeded, and give up what does not answer."""
        now = self.now()
        for endpoint, client in list(self._clients.items()):
            cut = [p for _, p in client.running.values() if p.cut is not None]
            if any(now - (p.cut or now) > GRACE for p in cut):
                self._lost(endpoint, f"the shell in {endpoint} does not answer")
            elif cut and now - max(client.nagged, *(p.cut or 0 for p in cut)) >= _CUT_AGAIN:
                client.nagged = now
                self._say(endpoint, client, batch.cut(client.running[p.token][0] for p in cut))

    def _lost(self, endpoint: Endpoint, why: str) -> None:
        self.losses.setdefault(endpoint, []).append(why)
        self._drop(endpoint, why)

    def _drop(self, endpoint: Endpoint, why: str) -> None:
        client = self._clients.pop(endpoint, None)
        if client is None:
            return
        self._by_shell.pop(id(client.shell), None)
        self._listening.remove(client.shell)
        client.shell.close()
        self._in_flight -= len(client.running)
        stray = " | ".join(client.answers.stray[-3:])
        for _, probe in client.running.values():
            self._end(
                probe, Outcome.HARNESS_ERROR, f"{why}; it had said: {stray}" if stray else why
            )
