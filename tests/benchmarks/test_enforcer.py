"""The in-house enforcer's figures, taken on one node and seen by a client on the wire.

Run alone, with ``-s`` to see the tables; what they hold is also written to
``build/benchmarks/enforcer.json``, which :mod:`tests.benchmarks.draw` makes plots of. Where two
things are compared, it is in one run and turn by turn; bounds of absolute figures are far above
what an idle machine shows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import pytest

from harness.enforcer.compiled import Compiled
from harness.enforcer.compiler import Compiler
from harness.enforcer.intake import Intake
from harness.enforcer.iptables import render as iptables
from harness.enforcer.nftables import render as nftables
from harness.enforcer.ruleset import Ruleset, change
from tests.benchmarks import shapes, wire
from tests.benchmarks.enforcer_worlds import (
    CLIENT,
    SERVER,
    Json,
    crowd,
    of_app,
    pod,
    policy,
    probed,
)
from tests.netns.onenode import Enforcer, OneNode

pytestmark = pytest.mark.timeout(1800)

OUT = Path(__file__).parents[2] / "build" / "benchmarks" / "enforcer.json"
PLANES = ("iptables", "nftables")
TURNS = 50  # of each kind of change
BEAT = 0.001  # seconds between attempts
SEEN = 0.3  # of the attempts there should have been, for a look to count
AFTER = 0.06  # seconds that a change is watched after it was acknowledged
SIZES = (10, 100, 1000, 10_000)
ALL_SELECT = (10, 100, 1000)
ROUNDS = 60
SUBJECT = {"role": "server"}
FRIENDS = [{"podSelector": {"matchLabels": {"friend": "yes"}}}]


def record(name: str, figures: Any) -> None:
    """Keep figures, with the machine that they were taken on."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    known[name] = figures
    known["machine"] = {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": max(os.getloadavg()[0], known.get("machine", {}).get("load", 0)),
    }
    OUT.write_text(json.dumps(known, indent=1))


@pytest.fixture
def node() -> Iterator[OneNode]:
    with OneNode() as node:
        node.add("server", SERVER)
        node.add("client", CLIENT)
        yield node


def program(node: OneNode, where: str, *words: str) -> subprocess.Popen[str]:
    """Start one of :mod:`tests.benchmarks.wire`'s programs."""
    argv = [*node.enter(where), sys.executable, wire.__file__, *words]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    assert started.stdout.readline() == "ready\n"
    return started


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": 1e3 * median(seconds), "p99": 1e3 * cuts[98], "most": 1e3 * max(seconds)}


# -- change to enforced ----------------------------------------------------------------------------


class Change(NamedTuple):
    """One change: when it was sent, acknowledged, and looked at for the last time."""

    kind: str
    begun: float
    acknowledged: float
    until: float


def enforced(
    attempts: Sequence[Sequence[float | None]], change: Change, *, allow: bool
) -> float | None:
    """Seconds from a change to the first attempt of the lasting run of right ones. None: the
    client itself had so little of a processor meanwhile that it saw too little."""
    those = [
        (at, done is not None) for at, done in attempts if at and change.begun <= at < change.until
    ]
    for since in (change.begun, change.acknowledged):
        if sum(at > since for at, _ in those) < SEEN * (change.until - since) / BEAT:
            return None
    wrong = [at for at, passed in those if passed != allow]
    right = [at for at, passed in those if passed == allow and (not wrong or at > wrong[-1])]
    assert right, "it was never enforced"
    return right[0] - change.begun


@pytest.mark.parametrize("plane", PLANES)
def test_change_to_enforced(node: OneNode, plane: str) -> None:
    """1,000 policies and 250 pods are in force; one policy, or one pod's labels, change."""
    deny = policy("probed", "deny", SUBJECT, None)
    allow = policy("probed", "allow", SUBJECT, FRIENDS)
    stranger = pod("probed", "client", CLIENT, role="client", friend="no")
    friend = pod("probed", "client", CLIENT, role="client", friend="yes")
    kinds: dict[str, tuple[str, Json, bool]] = {
        "policy, deny": ("ADDED", deny, False),
        "policy, allow": ("DELETED", deny, True),
        "pod, deny": ("MODIFIED", stranger, False),
        "pod, allow": ("MODIFIED", friend, True),
    }
    with Enforcer(node, plane) as enforcer:
        enforcer.sync(*crowd(pods=248, local=248, policies=1000), *probed())
        server, client = (
            program(node, "server", "serve"),
            program(node, "client", "beat", SERVER, str(BEAT)),
        )
        changes: list[Change] = []

        def change(name: str) -> None:
            type_, thing, _ = kinds[name]
            begun = time.monotonic()
            assert enforcer.tell((type_, thing))["ok"]
            acknowledged = time.monotonic()
            time.sleep(AFTER)
            changes.append(Change(name, begun, acknowledged, time.monotonic() - 0.005))

        used = processor_seconds(enforcer)
        for _ in range(TURNS):
            change("policy, deny")
            change("policy, allow")
        used = 1e3 * (processor_seconds(enforcer) - used) / (2 * TURNS)
        enforcer.put(allow)
        time.sleep(AFTER)
        for _ in range(TURNS):
            change("pod, allow")
            change("pod, deny")
        output, _ = client.communicate("")
        server.communicate("")
        busy = cpu_share(enforcer, 10.0)
    attempts = json.loads(output)
    found = {}
    for kind, (_, _, allow_) in kinds.items():
        looks = [enforced(attempts, one, allow=allow_) for one in changes if one.kind == kind]
        seen = [seconds for seconds in looks if seconds is not None]
        assert len(seen) > TURNS / 2, f"{kind}: the client was starved; use a quieter machine"
        found[kind] = {**percentiles(seen), "n": len(seen)}
    print(f"\n{plane}: 1,000 policies, 250 pods; change to enforced on the wire, milliseconds")
    for kind, figures in found.items():
        print(f"  {kind:14} " + "  ".join(f"{n} {ms:6.1f}" for n, ms in figures.items()))
    print(f"  processor time of a policy's change: {used:.1f}")
    print(f"  idle: {100 * busy:.2f} % of a processor")
    record(f"processor time of a change {plane}", used)
    record(f"change {plane}", found)
    record(f"idle {plane}", busy)
    assert all(figures["p50"] < 1000 for figures in found.values())
    assert busy < 0.05


def child(enforcer: Enforcer) -> int:
    """The enforcer itself: what was started is nsenter."""
    pid = enforcer.program.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def cpu_share(enforcer: Enforcer, seconds: float) -> float:
    """The share of one processor that it takes while nothing changes, its children included."""

    time.sleep(1.0)
    before, begun = processor_seconds(enforcer), time.monotonic()
    time.sleep(seconds)
    return (processor_seconds(enforcer) - before) / (time.monotonic() - begun)


def processor_seconds(enforcer: Enforcer) -> float:
    """What it has used so far, the tools that it ran included."""
    fields = Path(f"/proc/{child(enforcer)}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def test_work_of_a_change() -> None:
    """Processor time to compile and render one policy that comes, goes, and comes, where all
    policies select one pod and each speaks of another port: its growth with their number."""
    found: dict[str, dict[int, float]] = {}
    renderers: dict[str, Callable[[], tuple[Callable[[Compiled], Ruleset], ...]]] = {
        "iptables": lambda: (iptables.Renderer(4, "NPa4-"), iptables.Renderer(6, "NPa6-")),
        "nftables": lambda: (nftables.Renderer(4), nftables.Renderer(6)),
    }
    for plane, make in renderers.items():
        for size in SIZES:
            compiler, render = Compiler("node"), make()
            intake = Intake(compiler)
            for number in range(size):
                mine = policy("probed", f"p{number}", SUBJECT, of_app(number % 10), 1000 + number)
                intake.take("ADDED", mine)
            for one in probed():
                intake.take("ADDED", one)
            there = [one(compiler.snapshot()) for one in render]
            one_more = policy("probed", "one-more", SUBJECT, FRIENDS)
            took = []
            for turn in range(2 * TURNS):
                begun = time.process_time()
                intake.take("DELETED" if turn % 2 else "ADDED", one_more)
                snapshot = compiler.snapshot()
                wanted = [one(snapshot) for one in render]
                changes = [change(*pair) for pair in zip(there, wanted, strict=True)]
                took.append(time.process_time() - begun)
                assert any(changes)
                there = wanted
            found.setdefault(plane, {})[size] = 1e3 * median(took)
    print("\nprocessor time of a policy's change where all select one pod, milliseconds")
    for plane, row in found.items():
        print(f"  {plane:10} " + "  ".join(f"{n:>6}: {ms:6.2f}" for n, ms in row.items()))
        assert row[1000] < 20 * row[10]  # a hundred times as many; else each is done anew
    record("work of a change", found)


# -- mending ---------------------------------------------------------------------------------------

MESSES = {
    "iptables": ("iptables -F NETPOL", "iptables -I FORWARD 1 -j ACCEPT", "ipset flush"),
    "nftables": ("nft flush ruleset", 'nft "flush chain ip $T forward-in"'),
}


@pytest.mark.parametrize("plane", PLANES)
def test_mending(node: OneNode, plane: str) -> None:
    """From somebody's hand in the rules to the last forbidden connection that got through."""
    with Enforcer(node, plane) as enforcer:
        deny = policy("probed", "deny", SUBJECT, of_app(1))
        enforcer.sync(*crowd(pods=248, local=248, policies=1000), *probed(), deny)
        server, client = (
            program(node, "server", "serve"),
            program(node, "client", "beat", SERVER, str(BEAT)),
        )
        spans: dict[str, list[tuple[float, float]]] = {}
        for mess in MESSES[plane] * 5:
            before = len(enforcer.mendings())
            name = "T=$(nft list tables | sed -n 's/table ip \\(netpol.*\\)/\\1/p'); "
            node.run("sh", "-c", name + mess)
            begun = time.monotonic()
            while len(enforcer.mendings()) == before or not enforcer.is_calm():
                assert time.monotonic() < begun + 60, f"{mess} was not mended: {enforcer.said()}"
                time.sleep(0.01)
            spans.setdefault(mess, []).append((begun, time.monotonic()))
            time.sleep(0.5)
        output, _ = client.communicate("")
        server.communicate("")
        mended = len(enforcer.mendings())
    through = [at for at, done in json.loads(output) if done is not None]
    found = {}
    for mess, those in spans.items():
        open_ = [max([t - a for t in through if a <= t < b], default=0.0) for a, b in those]
        whole = [1e3 * (b - a) for a, b in those]
        found[mess] = {
            "open": 1e3 * median(open_),
            "open, most": 1e3 * max(open_),
            "until all is mended": median(whole),
        }
    print(f"\n{plane}: open after somebody changed the rules, milliseconds ({mended} mendings)")
    for mess, figures in found.items():
        print(f"  {mess:36} " + "  ".join(f"{n} {ms:6.1f}" for n, ms in figures.items()))
    record(f"mending {plane}", found)
    assert mended >= len(MESSES[plane]) * 5
    assert all(figures["open"] < 1000 for figures in found.values())


# -- the whole at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
def test_full_build(node: OneNode, plane: str) -> None:
    """10,000 policies and 5,000 pods, 100 of them on the node: from the first event to in force."""
    events = [("ADDED", one) for one in crowd(pods=5000, local=100, policies=10_000)]
    with Enforcer(node, plane) as enforcer:
        enforcer.send(*events, ("SYNCED", None))
        begun = time.monotonic()  # the pipe is full of them: most are read by now
        ack = enforcer.acknowledged()
        waited = time.monotonic() - begun
        seconds = max(ack["seconds"], waited)
        lines = Path(f"/proc/{child(enforcer)}/status").read_text().splitlines()
        memory = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
        processor = processor_seconds(enforcer)
    assert ack["ok"], ack["errors"]
    print(
        f"\n{plane}: 10,000 policies, 5,000 pods (100 local): {seconds:.2f} s, "
        f"{processor:.2f} s of a processor, {memory:.0f} MiB"
    )
    found = {"seconds": seconds, "processor seconds": processor, "mebibytes": memory}
    record(f"build {plane}", found)
    assert seconds < 60
    assert memory < 500


# -- cost of a new connection ----------------------------------------------------------------------


def cost(node: OneNode) -> float:
    """Microseconds of a new connection: of many short rounds the fast quarter, for a round that was
    interrupted says nothing of the rules."""
    ends = [f"/run/netns/{who}" for who in ("client", "server")]
    argv = [sys.executable, wire.__file__, "cost", *ends, SERVER, str(ROUNDS)]
    found = sorted(json.loads(node.run(*argv)))
    node.run("conntrack", "-F", check=False)
    return 1e6 * float(median(found[: ROUNDS // 4]))


def with_enforcer(node: OneNode, plane: str, policies: int, *, all_select: bool) -> float:
    """The probed pod is selected by ten policies, or by all: then each speaks of another port."""
    own = policies if all_select else shapes.OF_ONE_POD
    mine = [
        policy("probed", f"p{i}", SUBJECT, of_app(i), 1000 + i if all_select else 80)
        for i in range(own - 1)
    ]
    mine.append(
        policy("probed", "last", SUBJECT, [{"podSelector": {"matchLabels": {"role": "client"}}}])
    )
    others = crowd(pods=1000, local=shapes.PODS, policies=policies - own)
    with Enforcer(node, plane) as enforcer:
        enforcer.sync(*others, *probed(), *mine)
        found = cost(node)
    node.run(sys.executable, "-m", "harness.enforcer", "clean", "--dataplane", plane)
    return found


SHAPES = {
    "linear list": shapes.linear,
    "per pod": shapes.per_pod,
    "per cluster": shapes.per_cluster,
}


def with_shape(node: OneNode, name: str, policies: int) -> float:
    """In pieces: inside a user namespace a transaction has to be small."""
    lines = list(SHAPES[name](policies, CLIENT, SERVER))
    chains = [line for line in lines if line.startswith(":")]
    rules = [line for line in lines if not line.startswith(":")]
    node.run("ipset", "restore", text="\n".join([*shapes.sets(CLIENT, SERVER), ""]))
    size = 200
    for piece in [chains, *(rules[i : i + size] for i in range(0, len(rules), size))]:
        text = "\n".join(["*filter", *piece, "COMMIT", ""])
        node.run("iptables-restore", "--noflush", text=text)
    assert node.run("iptables", "-S").count("\n-A ") == len(rules)
    found = cost(node)
    node.run("nft", "flush", "ruleset")
    node.run("ipset", "destroy")
    return found


def test_cost_of_a_new_connection(node: OneNode) -> None:
    """Growth with the number of policies: ours, and the shapes of others."""
    found: dict[str, dict[int, float]] = {"no rules": {size: cost(node) for size in SIZES}}
    for size in SIZES:
        for plane in PLANES:
            found.setdefault(plane, {})[size] = with_enforcer(node, plane, size, all_select=False)
        for name in SHAPES:
            own = shapes.OF_ONE_POD if name == "per pod" else size
            found.setdefault(name, {})[size] = with_shape(node, name, own)
    every: dict[str, dict[int, float]] = {}
    for size in ALL_SELECT:
        for plane in PLANES:
            every.setdefault(plane, {})[size] = with_enforcer(node, plane, size, all_select=True)
        for name in SHAPES:
            every.setdefault(name, {})[size] = with_shape(node, name, size)
    for title, table in (("ten select the pod", found), ("all select the pod", every)):
        print(f"\nmicroseconds of a new connection; {title}")
        for name, row in table.items():
            print(f"  {name:12} " + " ".join(f"{n:>6}: {us:7.1f}" for n, us in row.items()))
    record("cost, ten select", found)
    record("cost, all select", every)
    for plane in PLANES:
        assert found[plane][10_000] < 1.5 * found[plane][10]
    assert found["linear list"][10_000] > 2 * found["nftables"][10_000]


def test_established_connections(node: OneNode) -> None:
    """Bytes over one connection for a second of processor time, turn by turn: with no rule at all,
    with connections tracked (as any proxy of Services has it), with the enforcer."""
    ends = [f"/run/netns/{who}" for who in ("client", "server")]
    argv = [sys.executable, wire.__file__, "stream", *ends, SERVER, "0.5"]
    rates: dict[str, list[float]] = {}
    mine = policy("probed", "p", SUBJECT, [{"podSelector": {"matchLabels": {"role": "client"}}}])

    def turn(name: str) -> None:
        rates.setdefault(name, []).append(float(node.run(*argv).split()[0]))

    for _ in range(STREAMS):
        turn("no rule")
        node.run("nft", "-f", "-", text=TRACKED)
        turn("tracked")
        node.run("nft", "delete", "table", "ip", "tracked")
        for plane in PLANES:
            with Enforcer(node, plane) as enforcer:
                enforcer.sync(*crowd(pods=248, local=248, policies=1000), *probed(), mine)
                turn(plane)
            node.run(sys.executable, "-m", "harness.enforcer", "clean", "--dataplane", plane)
    found = {name: 8 * median(those) / 1e9 for name, those in rates.items()}
    print("\nGbit over one connection, for a second of processor time")
    for name, rate in found.items():
        print(f"  {name:10} {rate:6.2f}   {rate / found['tracked']:.2f} of tracked")
    record("throughput", found)
    for plane in PLANES:
        assert found[plane] > 0.7 * found["tracked"]


STREAMS = 7
TRACKED = """
table ip tracked {
  chain forward { type filter hook forward priority 0; ct state established,related accept; }
}
"""
