"""Probes as shell text, against a real busybox shell and real sockets on loopback."""

from __future__ import annotations

import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.model.flow import Outcome
from harness.model.policy import Protocol
from harness.probes import batch
from harness.probes.batch import Answers, Reply, read
from tests.processes import arguments, children

busybox = pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        token = self.path.removeprefix("/t/")
        body = "nobody's answer\n"
        if self.path.startswith("/t/") and self.server.server_port != stranger:
            host, port = self.connection.getsockname()[:2]
            body = f"{token} x/a {host} {port} {self.client_address[0]}\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        pass


stranger = 0


class Place:
    """Loopback ports that answer, refuse, stay silent, close at once."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.web = self.server.server_port
        self.other = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        global stranger
        stranger = self.other.server_port
        self.stranger = stranger
        self.silent_socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.silent = self.silent_socket.getsockname()[1]
        self.held: list[socket.socket] = []
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.closed = unused.getsockname()[1]
        self.udp_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp_socket.bind(("127.0.0.1", 0))
        self.udp = self.udp_socket.getsockname()[1]
        self.mute_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.mute_socket.bind(("127.0.0.1", 0))
        self.mute = self.mute_socket.getsockname()[1]
        for run in (self.server.serve_forever, self.other.serve_forever, self._answer):
            threading.Thread(target=run, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                data, client = self.udp_socket.recvfrom(100)
            except OSError:
                return
            if not data:
                return
            line = f"- x/a 127.0.0.1 {self.udp} {client[0]}\n"
            self.udp_socket.sendto(line.encode(), client)

    def connected(self) -> None:
        """A client of ``silent`` has come so far that it is connected: it can be cut now."""
        self.silent_socket.settimeout(20)
        self.held.append(self.silent_socket.accept()[0])

    def close(self) -> None:
        self.server.shutdown()
        self.other.shutdown()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.udp))
        for one in (self.server, self.other):
            one.server_close()
        for one_socket in (self.silent_socket, self.udp_socket, self.mute_socket, *self.held):
            one_socket.close()


class Shell:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["busybox", "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.answers = Answers("n0nce")
        self.seen: dict[str, Reply] = {}
        self.say(batch.opening("n0nce"))

    def say(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait(self, *tokens: str, seconds: float = 20) -> list[Reply]:
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not self.seen.keys() >= set(tokens):
                assert selector.select(end - time.monotonic()), f"{tokens}: {self.seen}"
                data = self.process.stdout.raw.read(65536)  # type: ignore[union-attr]
                assert data, "the shell ended"
                self.seen.update((r.token, r) for r in self.answers.feed(data))
        return [self.seen[token] for token in tokens]

    def running(self) -> int:
        """How many processes have come of the shell."""
        return len(children(self.process.pid)) - 1

    def listens(self, seconds: float = 20) -> None:
        """Wait until the only UDP client has sent its datagram and said so: it is ``dd`` then."""
        end = time.monotonic() + seconds
        while not any("dd" in arguments(pid) for pid in children(self.process.pid)):
            assert time.monotonic() < end, "no client has come to its dd"
            time.sleep(0.01)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.close()


def tcp(token: str, slot: int, port: int, host: str = "127.0.0.1") -> bytes:
    return batch.probe(token, slot, Protocol.TCP, host, port)


@busybox
def test_the_shell_says_what_it_can(shell: Shell) -> None:
    (ready,) = shell.wait("ready")
    assert batch.tools(ready) == batch.Tools(cut=True, udp="bash")


@busybox
def test_how_tcp_probes_end(shell: Shell, place: Place) -> None:
    shell.say(
        tcp("t1", 1, place.web)
        + tcp("t2", 2, place.closed)
        + tcp("t3", 3, place.stranger)
        + tcp("t4", 4, 80, "nobody.invalid")
        + tcp("t5", 5, place.silent)
    )
    answered = shell.wait("t1", "t2", "t3", "t4")
    allowed, *others = (read(reply, named=reply.token == "t4") for reply in answered)
    assert allowed.outcome is Outcome.ALLOWED
    assert (allowed.backend, allowed.client) == ("x/a", "127.0.0.1")
    assert allowed.server == f"127.0.0.1:{place.web}"
    assert [o.outcome for o in others] == [
        Outcome.REFUSED,
        Outcome.WRONG_BACKEND,
        Outcome.NAME_FAILURE,
    ]
    assert "Connection refused" in others[0].raw
    assert "t5" not in shell.seen
    place.connected()
    shell.say(batch.cut([5]))
    (cut,) = shell.wait("t5")
    assert cut.status == batch.CUT
    assert read(cut).outcome is Outcome.TIMEOUT


@busybox
def test_how_udp_probes_end(shell: Shell, place: Place) -> None:
    for number, port in enumerate((place.udp, place.closed, place.mute)):
        shell.say(batch.probe(f"u{number}", number, Protocol.UDP, "127.0.0.1", port))
    allowed, refused = (read(r, Protocol.UDP) for r in shell.wait("u0", "u1"))
    assert allowed.outcome is Outcome.ALLOWED
    assert (allowed.backend, allowed.client) == ("x/a", "127.0.0.1")
    assert refused.outcome is Outcome.REFUSED
    assert "u2" not in shell.seen
    shell.listens()
    shell.say(batch.cut([2]))
    (cut,) = shell.wait("u2")
    assert read(cut, Protocol.UDP).outcome is Outcome.TIMEOUT


@busybox
def test_many_at_once_and_nothing_is_left_of_them(shell: Shell, place: Place) -> None:
    count = 64
    for turn in range(3):
        tokens = [f"t{turn}.{n}" for n in range(count)]
        shell.say(
            batch.TIDY
            + b"".join(
                tcp(token, n, place.silent if n % 2 else place.web)
                for n, token in enumerate(tokens)
            )
        )
        shell.wait(*tokens[::2])
        for _ in tokens[1::2]:
            place.connected()
        shell.say(batch.cut(range(1, count, 2)))
        replies = shell.wait(*tokens)
        outcomes = {read(reply).outcome for reply in replies[1::2]}
        assert outcomes == {Outcome.TIMEOUT}
        assert {read(reply).outcome for reply in replies[::2]} == {Outcome.ALLOWED}
    shell.say(batch.TIDY + batch.command("end", 0, ["echo", "over"]))
    shell.wait("end")
    shell.say(batch.TIDY + b'echo "!n0nce tidy 0 x"\n')
    shell.wait("tidy")
    assert shell.running() == 0


@busybox
def test_commands_keep_their_lines(shell: Shell) -> None:
    shell.say(batch.command("c1", 0, ["printf", r"a b\n\nit's *\\c\n"]))
    shell.say(batch.command("c2", 1, ["busybox", "sh", "-c", "echo oh dear >&2; exit 3"]))
    first, second = shell.wait("c1", "c2")
    assert batch.lines(first) == "a b\n\nit's *\\c"
    assert (second.status, batch.lines(second)) == (3, "oh dear")


@busybox
def test_cutting_what_has_ended_hurts_nobody(shell: Shell, place: Place) -> None:
    shell.say(tcp("t1", 1, place.web))
    shell.wait("t1")
    shell.say(batch.cut([1, 2, 63]) + tcp("t2", 2, place.web))
    (reply,) = shell.wait("t2")
    assert read(reply).outcome is Outcome.ALLOWED


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_come_in_any_pieces(size: int) -> None:
    stream = (
        b"noise\n!abc t1 0 Connecting to a (a) t1 x/a 10.0.0.1 80 10.0.0.2\nTerm"
        b"inated\n!abc t2 143 \nwget: prompt !abc t3 1 wget: no\n!xyz t4 0 forged\n!abc t5 0 cut of"
    )
    answers = Answers("abc")
    replies = [r for at in range(0, len(stream), size) for r in answers.feed(stream[at:][:size])]
    assert [(r.token, r.status) for r in replies] == [("t1", 0), ("t2", 143), ("t3", 1)]
    assert answers.stray == ["noise", "Terminated", "wget: prompt ", "!xyz t4 0 forged"]


def reading(status: int, text: str, **more: bool) -> Outcome:
    return read(Reply("t9", status, text), **more).outcome


def test_silence_counts_only_if_the_probe_went_out() -> None:
    connecting = "Connecting to 10.0.0.1:80 (10.0.0.1:80)"
    assert reading(143, connecting) is Outcome.TIMEOUT
    assert reading(143, "") is Outcome.HARNESS_ERROR
    assert "ended before it had sent anything" in read(Reply("t9", 143, "")).raw
    assert reading(143, "", named=True) is Outcome.NAME_FAILURE
    assert read(Reply("u", 143, "sent"), Protocol.UDP).outcome is Outcome.TIMEOUT
    assert read(Reply("u", 143, ""), Protocol.UDP).outcome is Outcome.HARNESS_ERROR
    assert read(Reply("u", 0, "cannot"), Protocol.UDP).outcome is Outcome.HARNESS_ERROR


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("wget: can't connect to remote host (10.0.0.1): Connection refused", Outcome.REFUSED),
        ("wget: can't connect to remote host (10.0.0.1): No route to host", Outcome.UNREACHABLE),
        ("wget: can't connect to remote host: Network is unreachable", Outcome.UNREACHABLE),
        ("wget: can't connect to remote host: Operation not permitted", Outcome.UNREACHABLE),
        ("wget: error getting response: Connection reset by peer", Outcome.RESET),
        ("wget: error getting response", Outcome.RESET),
        ("wget: download timed out", Outcome.TIMEOUT),
        ("wget: can't connect to remote host: Connection timed out", Outcome.TIMEOUT),
        ("wget: server returned error: HTTP/1.1 404 Not Found", Outcome.WRONG_BACKEND),
        ("wget: short read", Outcome.HARNESS_ERROR),
    ],
)
def test_what_wget_complains_of(text: str, outcome: Outcome) -> None:
    assert reading(1, f"Connecting to 10.0.0.1:80 (10.0.0.1:80) {text}") is outcome


@pytest.mark.parametrize(
    "text", ["sh: busybox: not found", "sh: can't fork: Resource temporarily unavailable", ""]
)
def test_a_client_that_cannot_run_is_no_denial(text: str) -> None:
    for status in (0, 1, 2, 127, 139):
        assert reading(status, text) is Outcome.HARNESS_ERROR


def test_an_answer_to_another_probe_is_none() -> None:
    text = "Connecting to a (a) writing to stdout t8 x/a 10.0.0.1 80 10.0.0.2"
    assert reading(0, text) is Outcome.WRONG_BACKEND


def test_addresses_of_both_families() -> None:
    assert batch.probe("t1", 2, Protocol.TCP, "fd00::1", 80) == b"w t1 2 [fd00::1]:80\n"
    assert batch.probe("t1", 2, Protocol.UDP, "fd00::1", 80) == b"u t1 2 fd00::1 80\n"
    with pytest.raises(ValueError, match="SCTP"):
        batch.probe("t1", 2, Protocol.SCTP, "10.0.0.1", 80)
