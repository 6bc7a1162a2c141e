"""The last proof that a cluster's network is up: a pod on every node reaches every other.

A node that says Ready may still lack a route, and CoreDNS may not have an address yet. So pods are
made as scenarios make them, and ask each other until all answer, and a name is known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.labs.base import LabError
from harness.labs.cluster import objects, stream
from harness.labs.cluster.lab import ClusterLab
from harness.model.actions import Apply
from harness.model.world import Namespace, Pod, World

SECONDS = 120.0
NAME = "kubernetes.default.svc"
_LOOK_SECONDS = 30.0
_PAUSE = 0.25


def wait(lab: ClusterLab, seconds: float = SECONDS, *, names: bool = True) -> int:
    """Make the pods, ask until all answer, take the pods away; how many pairs there were.

    ``lab`` is connected and of a run of its own. Raises LabError with the pairs that fail.
    """
    namespace = f"{lab.node_namespace}-reach"
    pods = [Pod(namespace, f"on-{name}", node=name) for name in lab.world.nodes]
    try:
        lab.apply([Apply(Namespace(namespace)), *(Apply(pod) for pod in pods)])
        world = lab.resolve(World(pods={pod.key: pod for pod in pods}))
        there = [world.pods[pod.key] for pod in pods]
        deadline = time.monotonic() + seconds
        left = there
        while True:
            told = {pod.name: _fails(lab, pod, there, names) for pod in left}
            left = [pod for pod in left if told[pod.name]]
            if not left:
                return len(there) ** 2
            if time.monotonic() > deadline:
                raise LabError(
                    f"pods on some nodes do not reach others after {seconds:g} s",
                    detail="\n".join(f"  {line}" for lines in told.values() for line in lines),
                )
            time.sleep(_PAUSE)
    finally:
        lab.down()


def _fails(lab: ClusterLab, source: Pod, targets: Sequence[Pod], names: bool) -> list[str]:
    """What a pod does not reach, in words."""
    wanted = {ip: target for target in targets for ip in target.ips}
    container = objects.client_container(source)
    try:
        _, said = stream.run(
            lab.api,
            *source.key,
            container,
            ["sh", "-c", script(list(wanted), names)],
            seconds=_LOOK_SECONDS,
            protocols=lab.protocols,
        )
    except LabError as error:
        return [f"{source.node}: {error.message}"]
    answers = {words[1]: words[2:] for line in said.splitlines() if len(words := line.split()) > 1}
    fails = [
        f"{source.node} -> {target.node} ({ip}): " + (" ".join(answers.get(ip, [])) or "no answer")
        for ip, target in wanted.items()
        if answers.get(ip, [])[1:2] != [str(target)]
    ]
    if names and answers.get("name") != ["known"]:
        fails.append(f"{source.node}: the name {NAME} is not known: CoreDNS does not answer")
    return fails


def script(ips: Sequence[str], names: bool) -> str:
    """What the pod runs: a line ``at IP ANSWER`` for each address, and one for the name.

    Not ``wget -T``: some builds of busybox have no such option, and crash.
    """
    lines = []
    for ip in ips:
        host = f"[{ip}]" if ":" in ip else ip
        lines.append(f'echo "at {ip} $(timeout 2 wget -q -O - http://{host}/t/1 2>&1)"')
    if names:
        # The API server answers plain HTTP with an error, which is answer enough; silence is none.
        lines.append(
            f"case $(timeout 10 wget -q -O - http://{NAME}:443/ 2>&1) in "
            "''|*'bad address'*) echo at name unknown;; *) echo at name known;; esac"
        )
    return "; ".join(lines)
