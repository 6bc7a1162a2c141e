"""Does a policy act at all? Asked on every node once an engine says that it is ready.

"Ready" is an engine's own word. A namespace with a server on each node is made, shut by one
policy, opened again, and taken away. An engine that does not act is no failure of the lab: what
it does not enforce comes out as leaks, and this says that it was so from the beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.model.actions import Apply, Delete
from harness.model.flow import Endpoint, EndpointKind
from harness.model.policy import Direction, LabelSelector, NetworkPolicy
from harness.model.world import Namespace, Pod, Workload, World

if TYPE_CHECKING:
    from harness.labs.controlplane.lab import EmbeddedClusterLab

NAMESPACE = "netpol-acts"
SECONDS = 15.0
"""How long a policy may take to act before it is said that it does not."""
_SILENCE_SECONDS = 1.5
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Acts:
    """``wrong``: what did not come to be, in words; empty where all did. ``seconds``: how long it
    took until the policy acted on all nodes."""

    seconds: float
    wrong: str = ""

    def __str__(self) -> str:
        if self.wrong:
            return f"{self.wrong} within {self.seconds:.0f} s, although the engine said it is ready"
        return f"a policy acted on every node within {self.seconds:.2f} s"


def see(lab: EmbeddedClusterLab) -> Acts:
    """Try it. Raises LabError where the lab itself fails."""
    servers = [
        Pod(NAMESPACE, f"server-{node}", {"app": "server"}, node=node) for node in lab.node_names
    ]
    client = Pod(NAMESPACE, "client", node=lab.node_names[0], workload=Workload.CLIENT)
    policy = NetworkPolicy(
        NAMESPACE, "deny", LabelSelector((("app", "server"),)), (Direction.INGRESS,)
    )
    pods = (*servers, client)
    lab.apply([Apply(Namespace(NAMESPACE)), *(Apply(pod) for pod in pods)])
    try:
        world = lab.resolve(World(pods={pod.key: pod for pod in pods}))
        asker = Endpoint(EndpointKind.POD, NAMESPACE, client.name)
        left = {pod.node: world.pods[pod.key].ips[0] for pod in servers}

        def wait(shut: bool, wrong: str) -> Acts:
            return _wait(lab, lambda: _answering(lab, asker, left, shut), wrong)

        opened = wait(False, "pods could not be reached before any policy")
        if opened.wrong:
            return opened
        lab.apply([Apply(policy)])
        acted = wait(True, "a policy that denies all did not act")
        if acted.wrong:
            return acted
        lab.apply([Delete("NetworkPolicy", NAMESPACE, "deny")])
        reopened = wait(False, "pods stayed shut when their policy was deleted")
        return reopened if reopened.wrong else acted
    finally:
        lab.apply([Delete("Namespace", "", NAMESPACE)])


def _wait(lab: EmbeddedClusterLab, bad: Callable[[], Sequence[str]], wrong: str) -> Acts:
    """Until no node is bad any more."""
    begun = time.monotonic()
    while nodes := bad():
        lab.check()
        if time.monotonic() - begun > SECONDS:
            return Acts(SECONDS, f"{wrong} on {', '.join(nodes)}")
        time.sleep(_POLL_SECONDS)
    return Acts(time.monotonic() - begun)


def _answering(
    lab: EmbeddedClusterLab, client: Endpoint, servers: dict[str | None, str], shut: bool
) -> list[str]:
    """Nodes whose server answers although it is to be shut, or does not although it is not."""
    asked = ""
    for node, address in servers.items():
        host = f"[{address}]" if ":" in address else address
        get = f"busybox timeout {_SILENCE_SECONDS} busybox wget -q -O /dev/null http://{host}/"
        asked += f"( {get} 2>/dev/null; echo {node} $? ) &\n"
    done = lab.exec(client, ["sh", "-c", f"{asked}wait"])
    codes = dict(line.split() for line in done.out.splitlines() if len(line.split()) == 2)
    return [str(node) for node in servers if (codes.get(str(node)) == "0") is shut]
