"""Cells of a reachability matrix, what is expected of them and what was seen.

The vocabulary that the oracle, the probes, the diff and the report share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.policy import Direction, Protocol, Source


class EndpointKind(StrEnum):
    """Who can be a client or a target."""

    POD = "pod"
    NODE = "node"
    EXTERNAL = "external"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A client or a target by name. ``namespace`` is empty for nodes and outside hosts.

    Its text form is what people type and what records hold: ``ns/pod``, ``node:NAME``,
    ``external:NAME``, ``svc:ns/name``.
    """

    kind: EndpointKind
    namespace: str
    name: str

    def __str__(self) -> str:
        match self.kind:
            case EndpointKind.POD:
                return f"{self.namespace}/{self.name}"
            case EndpointKind.SERVICE:
                return f"svc:{self.namespace}/{self.name}"
            case _:
                return f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The inverse of ``str``. Raises ValueError with a hint."""
        for prefix, kind in (
            ("node:", EndpointKind.NODE),
            ("external:", EndpointKind.EXTERNAL),
        ):
            if text.startswith(prefix) and text[len(prefix) :]:
                return cls(kind, "", text[len(prefix) :])
        kind = EndpointKind.POD
        rest = text
        if text.startswith("svc:"):
            kind, rest = EndpointKind.SERVICE, text[4:]
        namespace, slash, name = rest.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise ValueError(
                f"{text!r} names no endpoint: write NAMESPACE/POD, svc:NAMESPACE/NAME, "
                f"node:NAME or external:NAME"
            )
        return cls(kind, namespace, name)


class Via(StrEnum):
    """How the target is addressed."""

    POD_IP = "pod-ip"
    SERVICE_IP = "service-ip"
    SERVICE_NAME = "service-name"
    NODE_IP = "node-ip"
    NODE_PORT = "node-port"
    EXTERNAL_IP = "external-ip"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One question: can ``source`` reach ``target`` at ``port``/``protocol``, over ``family``?

    ``family`` is 4 or 6. ``port`` is the port that the client dials (a Service's own port where
    ``via`` is a Service).
    """

    source: Endpoint
    target: Endpoint
    port: int
    protocol: Protocol = Protocol.TCP
    via: Via = Via.POD_IP
    family: int = 4

    def __str__(self) -> str:
        suffix = "" if self.family == 4 else " (IPv6)"
        via = "" if self.via in (Via.POD_IP, Via.EXTERNAL_IP) else f" by {self.via}"
        return f"{self.source} -> {self.target}:{self.port}/{self.protocol}{via}{suffix}"


class Verdict(StrEnum):
    """What the specification says of a flow."""

    ALLOW = "allow"
    DENY = "deny"
    UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class Because:
    """Why one direction allows or denies.

    ``code`` is stable and machine readable (``open``, ``rule``, ``no-rule``, ``isolated``, …);
    ``text`` says it in words; ``policies``/``rule`` name the deciding rule where there is one
    (``rule`` is the index in the policy's list for that direction). ``flow`` is ``dns`` where it
    speaks of the lookup of a Service's name, and empty where of the connection itself.
    """

    direction: Direction
    verdict: Verdict
    code: str
    text: str
    policies: tuple[str, ...] = ()
    rule: int | None = None
    source: Source | None = None
    flow: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The oracle's answer for one cell. ``reason`` is a code where the verdict is undefined."""

    verdict: Verdict
    because: tuple[Because, ...] = ()
    reason: str = ""

    @property
    def text(self) -> str:
        """Why, in words: of a denial only what denies, of an open case only what is open."""
        deciding = [b.text for b in self.because if b.verdict is self.verdict]
        return "; ".join(deciding) or self.reason


class Outcome(StrEnum):
    """How one probe ended. Only ``harness-error`` is nobody's answer."""

    ALLOWED = "allowed"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    RESET = "reset"
    UNREACHABLE = "unreachable"
    NAME_FAILURE = "name-failure"
    WRONG_BACKEND = "wrong-backend"
    HARNESS_ERROR = "harness-error"


@dataclass(frozen=True, slots=True)
class Observation:
    """One probe's end. Times are seconds on the prober's monotonic clock."""

    cell: Cell
    outcome: Outcome
    sent: float
    answered: float
    backend: str = ""
    seen_source: str = ""
    raw: str = ""


class Finding(StrEnum):
    """The diff of one cell."""

    AGREES = "agrees"
    LEAK = "leak"  # expected deny, seen allowed
    OUTAGE = "outage"  # expected allow, seen anything else
    UNKNOWN = "unknown"  # never really probed: an error, never a pass
    FLAKY = "flaky"  # reached agreement and left it within the hold window
    UNDEFINED = "undefined"  # recorded, never judged
    KNOWN = "known-deviation"  # departs as the catalogue entry says that it does


@dataclass(frozen=True, slots=True)
class CellResult:
    """Expected against observed for one cell of one step.

    ``latency`` is seconds from just before the change was sent to the sending time of the first
    probe of the lasting run of agreeing probes; None where it never came to one.
    """

    cell: Cell
    decision: Decision
    finding: Finding
    observations: tuple[Observation, ...] = field(default=(), hash=False)
    latency: float | None = None
    note: str = ""
