"""Fan-out: messages in pieces, who gets whom, and workers that are slow, refuse, or die."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.labs.base import LabError, ShellLostError
from harness.labs.cluster.fanout import Workers
from harness.labs.cluster.frames import (
    GREETING,
    FrameError,
    Kind,
    Message,
    Messages,
    packed,
    read_target,
    target,
)
from harness.labs.cluster.line import WorkerLine, wait_open
from harness.labs.cluster.spread import FanOut, shares
from harness.labs.cluster.worker import Worker, main
from harness.model.flow import Cell, Endpoint, Outcome
from harness.model.world import Pod, World
from harness.probes.prober import Prober

# -- messages --------------------------------------------------------------------------------------

MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=40))
)


@given(MESSAGES, st.lists(st.integers(1, 30)))
def test_messages_come_out_as_they_went_in_whatever_the_pieces(
    messages: list[Message], sizes: list[int]
) -> None:
    data = b"".join(packed(*one) for one in messages)
    found, reader = [], Messages()
    for size in sizes:
        found += reader.feed(data[:size])
        data = data[size:]
    found += reader.feed(data)
    assert found == messages


def test_what_is_no_message_is_told() -> None:
    with pytest.raises(FrameError, match="Traceback"):
        list(Messages().feed(b"Traceback (most recent call last)"))
    with pytest.raises(FrameError, match="no message begins with"):
        list(Messages().feed(b"\x01\0\0\0\1\xff\xff\xff\xff"))


def test_targets() -> None:
    data = target("x", "a", "client", ("v5", "v4"))
    assert read_target(data) == ("x", "a", "client", ("v5", "v4"))
    with pytest.raises(FrameError):
        read_target(b"x\na")


# -- shares ----------------------------------------------------------------------------------------


def test_every_client_goes_to_the_worker_that_has_the_fewest() -> None:
    assert shares({0: 0, 1: 0}, "abcd") == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert shares({0: 2, 3: 0}, "abc") == {"a": 3, "b": 3, "c": 0}  # 1 and 2 are not there
    many = [f"c{n}" for n in range(1000)]
    found = shares(dict.fromkeys(range(8), 0), many)
    assert list(found) == many
    loads = [list(found.values()).count(n) for n in range(8)]
    assert loads == [125] * 8


def test_how_many_workers() -> None:
    asked = FanOut(share=125, least=2, most=20)
    sizes = {0: 2, 9: 2, 250: 2, 251: 3, 1000: 8, 100_000: 20}
    assert {clients: asked.workers(clients) for clients in sizes} == sizes


# -- a line and a worker, with shells that are made up ---------------------------------------------


class Pipe:
    """A shell whose stream is a socket: what :class:`ExecShell` is to a worker's program."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setblocking(False)
        self.sent: list[bytes] = []

    def fileno(self) -> int:
        return self.end.fileno()

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.end.setblocking(True)
        try:
            self.end.sendall(data)
        except OSError as error:
            raise ShellLostError(f"the stream broke: {error.strerror}") from None
        finally:
            self.end.setblocking(False)

    def receive(self) -> bytes:
        try:
            data = self.end.recv(1 << 16)
        except BlockingIOError:
            return b""
        if not data:
            raise ShellLostError("the stream was cut")
        return data

    def close(self) -> None:
        self.end.close()


def answers(said: bytes) -> bytes:
    """As busybox in a client does, with a server behind every address."""
    found = []
    for line in said.decode().splitlines():
        words = line.split()
        if words[:1] == ["w"]:
            told = f"{words[1]} x/{words[3].split(':')[0]} 10.0.0.9 80 10.0.0.1 4711"
            found.append(f"!NONCE {words[1]} 0 Connecting to x {told} - 100%")
    return "".join(f"{line}\n" for line in found).encode()


class Client(Pipe):
    """A client's shell as a worker has it: it answers probes at once, and echoes all else."""

    def __init__(self, where: bytes) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours)
        self.where = where
        self.closed = False
        self.nonce = ""

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        if b" ready 0" in data:
            self.nonce = data.split(b" ready 0")[0].rpartition(b"!")[2].decode()
            self.theirs.sendall(f"!{self.nonce} ready 0 cut bash\n".encode())
            data = data.partition(b" ready 0")[2].partition(b"\n")[2]
        if self.nonce:
            reply = answers(data).replace(b"NONCE", self.nonce.encode())
        else:
            reply = b"<" + data + b">"
        if reply:
            self.theirs.sendall(reply)

    def close(self) -> None:
        self.closed = True
        super().close()
        self.theirs.close()


@dataclass
class Running:
    """A worker in a thread, the line to it, and the clients that it has opened."""

    line: WorkerLine
    stream: Pipe
    thread: threading.Thread
    clients: list[Client] = field(default_factory=list)
    opener: Callable[[bytes], None] = lambda _: None

    def open(self, name: str) -> object:
        return self.line.open(name, target("x", name, "client", ("v5",)))

    def end(self) -> None:
        self.line.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


def start(name: str = "worker 0") -> Running:
    ours, theirs = socket.socketpair()
    stream = Pipe(ours)

    def opener(where: bytes) -> Client:
        running.opener(where)
        client = Client(where)
        running.clients.append(client)
        return client

    def run() -> None:
        with theirs:
            fds = os.dup(theirs.fileno()), os.dup(theirs.fileno())
            try:
                Worker(opener, *fds).run()
            finally:
                for fd in fds:
                    os.close(fd)

    running = Running(WorkerLine(stream, name), stream, threading.Thread(target=run, daemon=True))
    running.thread.start()
    return running


@pytest.fixture
def worker() -> Iterator[Running]:
    running = start()
    yield running
    running.end()


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_shells_share_one_stream(worker: Running) -> None:
    shells = [worker.open(f"p{n}") for n in range(40)]
    wait_open(shells)
    assert all(shell.opened and not shell.why for shell in shells)
    assert {read_target(c.where)[1] for c in worker.clients} == {f"p{n}" for n in range(40)}
    worker.line.held = True
    before = len(worker.stream.sent)
    for number, shell in enumerate(shells):
        shell.send(f"word {number}".encode())
    assert len(worker.stream.sent) == before
    worker.line.flush()
    assert len(worker.stream.sent) == before + 1  # one message for all of them
    heard: dict[int, bytes] = {}

    def all_heard() -> bool:
        for shell in worker.line.news():
            heard[shells.index(shell)] = shell.receive()
        return len(heard) == 40

    eventually(all_heard)
    assert heard == {n: f"<word {n}>".encode() for n in range(40)}


def test_a_shell_that_is_closed_is_closed_at_the_other_end(worker: Running) -> None:
    shell = worker.open("p")
    wait_open([shell])
    shell.close()
    eventually(lambda: worker.clients[0].closed)
    assert worker.line.load == 0
    with pytest.raises(ShellLostError, match="the shell in p was closed"):
        shell.send(b"more")


def test_what_cannot_be_opened_is_told_and_costs_no_other(worker: Running) -> None:
    def opener(where: bytes) -> None:
        if b"bad" in where:
            raise LabError("no stream to x/bad: pods are forbidden")

    worker.opener = opener
    good, bad = worker.open("good"), worker.open("bad")
    wait_open([good, bad])
    assert good.opened
    assert (bad.opened, bad.why) == (False, "no stream to x/bad: pods are forbidden")
    with pytest.raises(ShellLostError, match="forbidden"):
        bad.receive()


def test_a_worker_that_opens_nothing_is_not_waited_for_without_end(worker: Running) -> None:
    release = threading.Event()
    worker.opener = lambda _: release.wait(20) and None
    shell = worker.open("slow")
    wait_open([shell], seconds=0.05)
    assert "worker 0 has not opened slow within 0.05 s" in shell.why
    release.set()
    eventually(lambda: worker.clients and worker.clients[0].closed)  # nobody wants it any more


def test_a_client_whose_stream_ends_is_lost_and_no_other(worker: Running) -> None:
    one, other = worker.open("one"), worker.open("other")
    wait_open([one, other])
    first = next(c for c in worker.clients if read_target(c.where)[1] == "one")
    first.theirs.close()
    eventually(lambda: worker.line.read() or one.why)
    with pytest.raises(ShellLostError, match="the stream was cut"):
        one.receive()
    other.send(b"still there")
    eventually(lambda: other.receive() == b"<still there>")


def test_a_worker_that_dies_takes_its_clients_with_it(worker: Running) -> None:
    shells = [worker.open("a"), worker.open("b")]
    wait_open(shells)
    worker.line.held = True
    worker.stream.end.shutdown(socket.SHUT_RDWR)
    assert set(worker.line.news()) == set(shells)
    for shell in shells:
        with pytest.raises(ShellLostError, match=r"worker 0 is gone: the stream was cut"):
            shell.receive()
    with pytest.raises(ShellLostError, match="worker 0 is gone"):
        worker.open("c")
    assert worker.line.load == 0
    eventually(lambda: all(client.closed for client in worker.clients))  # it left nothing open


def test_a_program_that_does_not_start_has_its_last_words() -> None:
    ours, theirs = socket.socketpair()
    line = WorkerLine(Pipe(ours), "worker 3")
    theirs.sendall(b"sh: python3: not found\n")
    theirs.close()
    shell = line.open("a", b"")
    wait_open([shell])
    line.close()
    assert shell.why.startswith("worker 3 is gone: ")
    assert shell.why.endswith("it had said: sh: python3: not found")


def test_a_stream_that_speaks_otherwise() -> None:
    ours, theirs = socket.socketpair()
    line = WorkerLine(Pipe(ours), "worker 3")
    theirs.sendall(GREETING + b"Hello, I am a shell. How are you?\n")
    line.read()
    assert "no message begins with" in line.over
    theirs.close()
    line.close()


def test_the_program_says_what_is_wrong_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "wait" in capsys.readouterr().err
    assert main(["wait"]) == 1  # this is no pod
    assert "this is no pod with a service account" in capsys.readouterr().err


# -- probes by way of them -------------------------------------------------------------------------


class Lab:
    """Ten pods, whose shells two workers open."""

    def __init__(self) -> None:
        self.workers = [start("worker 0"), start("worker 1")]
        self.opened: list[str] = []
        self.gathered: list[int] = []

    def gather(self, clients: list[Endpoint]) -> None:
        self.gathered.append(len(clients))

    def shell(self, client: Endpoint) -> object:
        living = [one for one in self.workers if not one.line.over]
        if not living:
            raise LabError("no worker is left")
        worker = min(living, key=lambda one: one.line.load)
        shell = worker.open(client.name)
        wait_open([shell])
        self.opened.append(client.name)
        return shell

    def end(self) -> None:
        for one in self.workers:
            with contextlib.suppress(OSError):
                one.end()


PODS = [Pod("x", f"p{n}", ips=(f"10.0.0.{n}",), uid=str(n)) for n in range(10)]
WORLD = World(pods={pod.key: pod for pod in PODS})
CELLS = [
    Cell(Endpoint.parse(f"x/p{a}"), Endpoint.parse(f"x/p{b}"), 80)
    for a in range(10)
    for b in range(10)
    if a != b
]


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.end()


def test_a_prober_asks_all_clients_over_two_streams(lab: Lab) -> None:
    prober = Prober(lab)
    prober.begin(WORLD)
    seen = prober.look(CELLS, 5.0)
    assert lab.gathered == [10]
    assert len(seen) == 90
    assert not {one.outcome for one in seen} & {Outcome.HARNESS_ERROR, Outcome.TIMEOUT}
    assert [one.line.load for one in lab.workers] == [5, 5]
    sent = [len(one.stream.sent) for one in lab.workers]
    prober.look(CELLS, 5.0)
    more = [len(one.stream.sent) - n for one, n in zip(lab.workers, sent, strict=True)]
    assert more == [1, 1]  # 90 probes of ten clients, and a message for each worker
    prober.close()
    eventually(lambda: all(c.closed for one in lab.workers for c in one.clients))


def test_the_clients_of_a_lost_worker_are_opened_again_once(lab: Lab) -> None:
    """What was under way is unknown, never a denial; the next look is whole again."""
    prober = Prober(lab)
    prober.begin(WORLD)
    prober.look(CELLS, 5.0)
    for client in lab.workers[0].clients:
        client.send = lambda _: None  # silent from here on
    probes = prober.launch(CELLS)
    lab.workers[0].stream.end.shutdown(socket.SHUT_RDWR)
    while any(probe.seen is None for probe in probes):
        prober.collect(prober.now() + 1)
    lost = {p.cell.source.name for p in probes if p.seen.outcome is Outcome.HARNESS_ERROR}
    assert len(lost) == 5
    assert {"worker 0 is gone" in p.seen.raw for p in probes if p.cell.source.name in lost} == {
        True
    }
    again = prober.look(CELLS, 5.0)
    assert not {one.outcome for one in again} & {Outcome.HARNESS_ERROR, Outcome.TIMEOUT}
    assert [one.line.load for one in lab.workers] == [0, 10]
    lab.workers[1].stream.end.shutdown(socket.SHUT_RDWR)
    last = prober.look(CELLS, 5.0)
    assert {one.outcome for one in last} == {Outcome.HARNESS_ERROR}
    last = prober.look(CELLS, 5.0)
    assert {one.outcome for one in last} == {Outcome.HARNESS_ERROR}
    assert any("was lost twice" in one.raw or "no worker is left" in one.raw for one in last)
    prober.close()


# -- a Job that makes no pods ----------------------------------------------------------------------


class Refusing:
    """An API that takes everything and whose Job controller can make no pods."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def find(self, *_: str) -> None:
        return None

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.made.append((manifest["kind"], manifest["metadata"]["name"]))
        return manifest

    apply = create

    def list(self, kind: str, namespace: str, **_: str) -> dict[str, Any]:
        assert (kind, namespace) == ("Event", "netpol-r")
        return {"items": [{"message": "pods are forbidden: hostNetwork"}]}


class NoPods:
    node_namespace = "netpol-r"
    fan_out_name = "fan-out"
    ready_seconds = 30.0

    def __init__(self) -> None:
        self.api = Refusing()
        self.waits = 0
        self.watch = SimpleNamespace(pods={}, wait=self._wait)

    def _wait(self, until: Callable[[dict[Any, Any]], bool], seconds: float) -> bool:
        self.waits += 1
        return until({})

    def marks(self, namespace: str) -> dict[str, str]:
        return {"run": namespace}

    def fan_out_marks(self) -> dict[str, str]:
        return {"run": "r"}


def test_a_job_without_pods_is_told_with_what_its_controller_says() -> None:
    lab = NoPods()
    workers = Workers(lab, FanOut("job"))
    for _ in range(3):  # a hundred clients are not to wait one after the other
        with pytest.raises(LabError, match=r"0 of 2 workers of Job netpol-r/fan-out") as caught:
            workers.take(9)
    assert lab.waits == 1
    assert "pods are forbidden: hostNetwork" in caught.value.detail
    assert "--lab-fanout exec does without them" in caught.value.hint
    kinds = [kind for kind, _ in lab.api.made]
    assert kinds == ["Namespace", "ServiceAccount", "Job"]


def test_auto_takes_workers_for_very_many_and_goes_on_without_them() -> None:
    lab = NoPods()
    workers = Workers(lab, FanOut("auto", many=250))
    assert not workers.take(250)
    assert lab.api.made == []
    assert not workers.take(251)
    assert workers.note.startswith("no fan-out by a Job, but exec streams: 0 of 3 workers of Job")
    assert str(workers) == "exec streams from this machine"
    assert not workers.take(500)
    assert lab.waits == 1
    assert not Workers(lab, FanOut("exec")).take(10_000)
