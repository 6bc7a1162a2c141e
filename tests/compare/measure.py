"""What is measured of one engine, all of it on one node of the embedded lab with an API.

* Change to enforcement on the wire: from just before the request is sent to the API until the
  sending time of the first attempt of the lasting run; with 0, 100, 1,000 policies that select the
  probed pod.
* The cost of a new connection, in processor time of both ends and the node between them, with 10
  to 10,000 policies: ten of them select the probed pod, and then all.
* What it takes: rules, elements of sets, memory, processor time.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from harness.labs.base import LabError
from harness.labs.controlplane.lab import EmbeddedClusterLab
from harness.labs.netns.client import Process
from harness.labs.netns.topology import node_box
from harness.model.actions import Apply
from harness.model.flow import Endpoint
from harness.model.world import Namespace, Pod, Workload, World
from harness.run import place
from tests.benchmarks import wire
from tests.compare.contenders import Contender

NAMESPACE = "compared"
OTHERS = 10
BEAT = 0.004  # seconds between attempts
WATCH = 1.2  # seconds that a change is watched: more than any engine takes at 1,000 policies
TURNS = 8
ROUNDS = 20
QUIET = 0.05  # of a processor: an engine that takes less has done its work
QUIET_SECONDS = 120.0
Json = dict[str, Any]


def policy(name: str, subject: str, friend: Json | None, port: int = 0) -> Json:
    """Ingress to the pods of an app from those with these labels, at one port (0: all); None:
    from nobody."""
    rule: Json = {"from": [{"podSelector": {"matchLabels": friend}}]}
    if port:
        rule["ports"] = [{"port": port}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": subject}},
            "policyTypes": ["Ingress"],
            "ingress": [] if friend is None else [rule],
        },
    }


def crowd(number: int, selecting: int) -> Json:
    """One of many: it lets another application in, at a port of its own, so that none of them can
    be left out or be taken together with others."""
    subject = "server" if number < selecting else f"other-{number % OTHERS}"
    return policy(f"p-{number}", subject, {"app": f"other-{number % OTHERS}"}, 1000 + number)


class Bench:
    """A lab with an engine, a server that is probed, and a client that is its friend."""

    def __init__(self, lab: EmbeddedClusterLab) -> None:
        self.lab = lab
        self.node = lab.node_names[0]
        pods = [
            Pod(NAMESPACE, "server", {"app": "server"}, node=self.node, workload=Workload.CLIENT),
            Pod(NAMESPACE, "client", {"friend": "yes"}, node=self.node, workload=Workload.CLIENT),
        ]
        pods += [
            Pod(NAMESPACE, f"other-{i}", {"app": f"other-{i}"}, node=self.node)
            for i in range(OTHERS)
        ]
        lab.apply([Apply(Namespace(NAMESPACE)), *(Apply(pod) for pod in pods)])
        world = lab.resolve(World(pods={pod.key: pod for pod in pods}))
        self.address = world.pods[NAMESPACE, "server"].ips[0]
        self.server = lab.box(Endpoint.parse(f"{NAMESPACE}/server"))
        self.client = lab.box(Endpoint.parse(f"{NAMESPACE}/client"))

    # -- policies ----------------------------------------------------------------------------

    def fill(self, policies: int, selecting: int) -> None:
        """This many policies, of which so many select the server; none lets the client in."""
        self.empty()
        made = [crowd(number, selecting) for number in range(policies)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.lab.api.create, made))
        self.settle()

    def empty(self) -> None:
        """One by one: an engine that takes thousands out of the kernel at once needs a transaction
        that is larger than a user namespace allows."""
        names = [one["metadata"]["name"] for one in self.lab.api.every("NetworkPolicy", NAMESPACE)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(partial(self.lab.api.delete, "NetworkPolicy", NAMESPACE), names))
        self.settle()

    def allow(self) -> None:
        self.lab.api.create(policy("access", "server", {"friend": "yes"}))

    def settle(self) -> None:
        """Until the engine has nothing more to do."""
        deadline = time.monotonic() + QUIET_SECONDS
        while True:
            before = self.used()
            time.sleep(0.5)
            if self.used() - before < QUIET * 0.5:
                return
            assert time.monotonic() < deadline, "the engine does not come to rest"

    # -- the engine --------------------------------------------------------------------------

    def used(self) -> float:
        """Processor seconds of the engine so far, the tools that it ran and runs included."""
        if self.lab.engines is None:
            return 0.0
        pid = str(self.lab.engines.running[self.node].pid)
        script = (
            "cat /proc/$1/stat; "
            "for child in $(cat /proc/$1/task/*/children); do cat /proc/$child/stat; done"
        )
        found = 0
        for line in self.lab.holder.run("", ["sh", "-c", script, "-", pid]).out.splitlines():
            fields = line.rpartition(")")[2].split()
            found += sum(map(int, fields[11:15]))
        return found / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB that it has resident."""
        found = re.search(r"VmRSS:\s+(\d+)", self._proc("status"))
        return int(found[1]) / 1024 if found else 0.0

    def _proc(self, what: str) -> str:
        if self.lab.engines is None:
            return ""
        pid = self.lab.engines.running[self.node].pid
        return self.lab.holder.run("", ["cat", f"/proc/{pid}/{what}"]).out

    def rules(self) -> dict[str, int]:
        """Rules and elements of sets that are in the node's kernel, kube-proxy's among them."""

        def ask(*argv: str) -> str:
            return self.lab.holder.run(node_box(self.node), argv, timeout=120).out

        listed = [ask(*words) for words in (("iptables-save",), ("iptables-legacy-save",))]
        rules = sum(len(re.findall(r"^-A ", text, re.M)) for text in listed)
        elements = len(re.findall(r"^add ", ask("ipset", "save"), re.M))
        told = json.loads(ask("nft", "-j", "list", "ruleset") or "{}")
        for one in told.get("nftables", ()):
            if "rule" in one and not _of_iptables(one["rule"]):
                rules += 1
            for kind in ("set", "map"):
                elements += len(one.get(kind, {}).get("elem", ()))
        return {"rules": rules, "elements": elements}

    # -- the wire ----------------------------------------------------------------------------

    @contextmanager
    def program(self, box: str, *words: str) -> Iterator[tuple[Any, Any]]:
        """One of :mod:`tests.benchmarks.wire`'s programs; its input and its output."""
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        argv = [sys.executable, wire.__file__, *words]
        process: Process | None = None
        with os.fdopen(ours_in, "w") as told, os.fdopen(ours_out) as said:
            try:
                process = self.lab.holder.spawn(
                    box, argv, stdin=theirs_in, stdout=theirs_out, stderr=2
                )
            finally:
                os.close(theirs_in)
                os.close(theirs_out)
            try:
                yield told, said
            finally:
                process.close()

    def latencies(self, policies: int) -> Json:
        """Seconds from change to enforcement, for allow and for deny, and the engine's processor
        seconds for one change."""
        self.fill(policies, policies)
        turn: tuple[Callable[[], object], Callable[[], object]] = (self.allow, self._no_access)
        if not policies:  # nothing isolates the pod: one policy does
            turn = (self._open, lambda: self.lab.api.create(policy("deny", "server", None)))
            turn[1]()
        changes: list[tuple[str, float]] = []
        begun = self.used()
        with ExitStack() as stack:
            _, said = stack.enter_context(self.program(self.server, "serve"))
            assert said.readline() == "ready\n"
            told, said = stack.enter_context(
                self.program(self.client, "beat", self.address, str(BEAT))
            )
            assert said.readline() == "ready\n"
            time.sleep(WATCH)
            for _ in range(TURNS):
                for name, change in zip(("allow", "deny"), turn, strict=True):
                    changes.append((name, time.monotonic()))
                    change()
                    time.sleep(WATCH)
            told.close()
            attempts = json.loads(said.readline())
        ends = [at for _, at in changes[1:]] + [float("inf")]
        found: dict[str, list[float]] = {"allow": [], "deny": []}
        late = 0
        for (name, at), end in zip(changes, ends, strict=True):
            seen = lasting(attempts, at, end, allow=name == "allow")
            if seen is None:
                late += 1
            else:
                found[name].append(seen)
        used = (self.used() - begun) / len(changes)
        return {**found, "late": late, "used": used, "memory": self.memory(), **self.rules()}

    def _open(self) -> None:
        self.lab.api.delete("NetworkPolicy", NAMESPACE, "deny")

    def _no_access(self) -> None:
        self.lab.api.delete("NetworkPolicy", NAMESPACE, "access")

    def cost(self, policies: int, selecting: int) -> float:
        """Processor seconds of a new connection that the last policy allows."""
        if policies:
            self.fill(policies, selecting)
            self.allow()
            self.settle()
        with ExitStack() as stack:
            ends = []
            for box in (self.client, self.server):
                sleeper = self.lab.holder.spawn(box, ["sleep", "1000"], stdin=0, stdout=2, stderr=2)
                stack.callback(sleeper.close)
                ends.append(f"/proc/{sleeper.pid}/ns/net")
            argv = [sys.executable, wire.__file__, "cost", *ends, self.address, str(ROUNDS)]
            done = self.lab.holder.run("", argv, timeout=120)
        assert done.code == 0, done.err
        return median(json.loads(done.out))


def lasting(
    attempts: Sequence[Sequence[float | None]], begun: float, end: float, *, allow: bool
) -> float | None:
    """Seconds from a change to the first attempt of the lasting run; None: there was none."""
    those = [(at, done is not None) for at, done in attempts if at and begun <= at < end]
    if end == float("inf"):  # the last attempts had no time to be answered
        those = [one for one in those if one[0] < those[-1][0] - wire.PATIENCE]
    wrong = [at for at, passed in those if passed is not allow]
    right = [at for at, passed in those if passed is allow and (not wrong or at > wrong[-1])]
    return right[0] - begun if len(right) > 3 else None


def _of_iptables(rule: Json) -> bool:
    """Whether iptables has made it, which lists it itself."""
    return "xt" in json.dumps(rule) or rule["table"] in ("filter", "nat", "mangle", "raw")


@contextmanager
def bench(contender: Contender) -> Iterator[Bench]:
    """A lab with it. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="netpol-compare-") as directory:
        lab = place.make(contender.cni, contender.place, Path(directory))
        assert isinstance(lab, EmbeddedClusterLab)
        lab.up()
        try:
            yield Bench(lab)
        finally:
            lab.down()


def measured(
    contender: Contender, changes: Sequence[int], sizes: Sequence[int], say: Callable[[str], None]
) -> Json:
    """All of it, of one engine."""
    found: Json = {"says": contender.says, "change": {}, "ten": {}, "all": {}, "notes": []}
    with bench(contender) as one:
        found["command"] = one.lab.engines.command_line() if one.lab.engines else ""

        def take(kind: str, policies: int, what: Callable[[], Any]) -> None:
            """What one engine cannot do at one size is a figure that is missing, and no more."""
            try:
                found[kind][policies] = what()
                say(f"{contender.name}: {kind}, {policies} policies")
            except (LabError, AssertionError) as error:
                found[kind][policies] = None
                note = f"{contender.name}, {kind}, {policies}: {str(error).splitlines()[0]}"
                found["notes"].append(note)
                say(note)

        for policies in changes:
            take("change", policies, partial(one.latencies, policies))
        for policies in sizes:
            take("ten", policies, partial(one.cost, policies, 10))
        for policies in sizes:
            take("all", policies, partial(one.cost, policies, policies))
    return found


def without(contender: Contender) -> Json:
    """The same network without an engine: rules and cost that are not the engine's."""
    with bench(contender) as one:
        return {"cost": one.cost(0, 0), **one.rules()}
