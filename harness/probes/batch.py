"""The words spoken with a client's shell: probes as shell text, and what comes back. Pure.

Every client is one long-lived ``busybox sh``. :func:`opening` teaches it four functions; after
that a probe is one short line, and costs the client two forks and one exec (about 1 ms):

``w TOKEN SLOT HOST:PORT``
    ``busybox wget`` of ``/t/TOKEN`` there.
``u TOKEN SLOT HOST PORT``
    one UDP datagram there, and the first answer.
``x TOKEN SLOT COMMAND…``
    any command, as the demo has it.
``k SLOT…``
    end what still runs in these slots. The probe then answers that it was cut: silence of the
    *server* is told from silence of the *client* in that the client always answers.

An answer is one line, written at once: ``!NONCE TOKEN STATUS TEXT``. The nonce is new for every
shell, so that nothing else that the shell prints is taken for an answer, and a line without its
newline is no answer yet.

Why not ``wget -T`` or ``timeout``: Debian's busybox 1.35 knows no ``-T`` (it crashes), and the
``timeout`` applet counts whole seconds. Why not ``wget -q``: without it, ``Connecting to`` is
printed just before ``connect()``, the proof that the name was resolved and the probe went out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from harness.model.flow import Outcome
from harness.model.policy import Protocol

#: ``128 + SIGTERM``: the exit status of a command that ``k`` ended.
CUT = 143

# `b` bounds wget where the kernel does not list a process' children and `k` can end nothing.
# A datagram is read by dd, at once and whole: the shells' own `read` takes one byte of it and
# the kernel throws the rest away.
_OPENING = r"""set -f
exec 2>&1
c=- b='busybox timeout 1'; [ -e /proc/$$/task/$$/children ] && c=cut b=
u=-; command -v bash >/dev/null && u=bash
[ $u = - ] && busybox nc --help 2>&1 | busybox grep -q -- ' -u' && u=nc
case $u in
bash) B='exec 3<>"/dev/udp/$0/$1" && echo . >&3 && echo sent && exec busybox dd bs=4096 count=1 status=none <&3'
d() { exec bash -c "$B" "$1" "$2"; };;
nc) d() { echo sent; echo . | busybox nc -u -w 1 "$1" "$2"; };;
*) d() { echo cannot; };;
esac
w() { ( o=$($b busybox wget -O - "http://$3/t/$1" 2>&1); echo "!NONCE $1 $? "$o ) & eval "p$2=$!"; }
u() { ( o=$(d "$3" "$4" 2>&1); echo "!NONCE $1 $? "$o ) & eval "p$2=$!"; }
x() { t=$1 s=$2; shift 2; ( o=$("$@" 2>&1); e=$?; echo "!NONCE $t $e $(printf %s "$o" | busybox tr '\n' '\037')" ) & eval "p$s=$!"; }
k() { for s; do eval "p=\$p$s"; q=; read -r q r </proc/$p/task/$p/children; [ "$q" ] && kill $q; done; } 2>/dev/null
echo "!NONCE ready 0 $c $u"
"""  # noqa: E501 - shell, one function a line
_UNREACHABLE = (
    "unreachable",
    "No route to host",
    "Permission denied",
    "Operation not permitted",
    "Invalid argument",
)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a client's shell can do. ``cut``: end single probes (else they are bounded at one
    second); ``udp``: by ``bash``, ``nc``, or not at all (empty)."""

    cut: bool
    udp: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a shell, to the probe of that token."""

    token: str
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply means. ``backend``, ``server`` (ADDRESS:PORT), ``client`` (an address) and
    ``client_port`` (0: it was not told) are as the server itself said them."""

    outcome: Outcome
    raw: str = ""
    backend: str = ""
    server: str = ""
    client: str = ""
    client_port: int = 0


def opening(nonce: str) -> bytes:
    """The first words to a new shell. It answers them with the token ``ready``."""
    return _OPENING.replace("NONCE", nonce).encode()


def probe(token: str, slot: int, protocol: Protocol, host: str, port: int) -> bytes:
    """One probe. ``host`` is an address or a name. Raises ValueError for SCTP: no client has it."""
    if protocol is Protocol.TCP:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"w {token} {slot} {where}\n".encode()
    if protocol is Protocol.UDP:
        return f"u {token} {slot} {host} {port}\n".encode()
    raise ValueError(f"busybox has no client for {protocol}")


def command(token: str, slot: int, argv: Iterable[str]) -> bytes:
    """Any command, its output to be had as it is."""
    return f"x {token} {slot} {shlex.join(argv)}\n".encode()


def cut(slots: Iterable[int]) -> bytes:
    """End what still runs in these slots."""
    return ("k " + " ".join(map(str, slots)) + "\n").encode()


#: Let the shell forget the jobs that have ended; to be said while nothing runs, or it blocks.
TIDY = b"wait\n"


class Answers:
    """Takes a shell's output apart: bytes in, replies out, in whatever pieces they come."""

    def __init__(self, nonce: str) -> None:
        self._mark = f"!{nonce} ".encode()
        self._rest = b""
        self.stray: list[str] = []

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete now. Lines that are no replies go to ``stray``."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        replies = []
        for line in lines:
            # Something without a newline of its own may stand before the mark.
            before, mark, after = line.partition(self._mark)
            if before.strip():
                self.stray.append(before.decode(errors="replace"))
            if not mark:
                continue
            token, _, rest = after.decode(errors="replace").partition(" ")
            status, _, text = rest.partition(" ")
            if status.isdigit():
                replies.append(Reply(token, int(status), text.strip()))
        return replies


def tools(ready: Reply) -> Tools:
    """What the answer to the opening says."""
    can_cut, _, udp = ready.text.partition(" ")
    return Tools(can_cut == "cut", "" if udp == "-" else udp)


def lines(reply: Reply) -> str:
    """The output of a :func:`command`, its line ends restored."""
    return reply.text.replace("\x1f", "\n")


def read(reply: Reply, protocol: Protocol = Protocol.TCP, *, named: bool = False) -> Reading:
    """What the answer to a probe means. ``named``: the target was given by name."""
    token = reply.token if protocol is Protocol.TCP else "-"
    words = reply.text.split()
    if token in words:
        said = words[words.index(token) + 1 :]
        if len(said) >= 4 and said[2].isdigit():
            backend, server, port, client, *more = said
            number = int(more[0]) if more and more[0].isdigit() else 0
            return Reading(Outcome.ALLOWED, "", backend, f"{server}:{port}", client, number)
    outcome = _failure(reply, protocol, named)
    raw = _essence(reply.text)
    if outcome is Outcome.HARNESS_ERROR and not raw:
        # A machine too slow for its load: the client had not come to its first word.
        when = "was ended before it had sent anything" if reply.status == CUT else "said nothing"
        raw = f"the client {when} (exit status {reply.status})"
    return Reading(outcome, raw)


def _failure(reply: Reply, protocol: Protocol, named: bool) -> Outcome:
    text = reply.text
    went_out = ("Connecting to" if protocol is Protocol.TCP else "sent") in text
    if "bad address" in text or "Name or service not known" in text:
        return Outcome.NAME_FAILURE
    if "Connection refused" in text:
        return Outcome.REFUSED
    if "reset by peer" in text:
        return Outcome.RESET
    if any(words in text for words in _UNREACHABLE):
        return Outcome.UNREACHABLE
    if "timed out" in text:
        return Outcome.TIMEOUT
    if reply.status == CUT or (protocol is Protocol.UDP and went_out):
        if went_out:
            return Outcome.TIMEOUT
        # Cut while it still waited for the name server; without a name it never began.
        return Outcome.NAME_FAILURE if named else Outcome.HARNESS_ERROR
    if not went_out:
        return Outcome.HARNESS_ERROR
    if "error getting response" in text:  # closed before a byte was answered
        return Outcome.RESET
    if reply.status == 0 or "server returned error" in text:
        return Outcome.WRONG_BACKEND  # somebody answers, and it is none of ours
    return Outcome.HARNESS_ERROR


def _essence(text: str) -> str:
    """The error itself, without the progress that wget prints before it."""
    at = text.rfind("wget: ")
    return text[at:][:300] if at >= 0 else text[:300]
