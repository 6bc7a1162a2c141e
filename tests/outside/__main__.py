"""The oracle held against an independent analyser, network-config-analyzer, on random worlds.

    python -m tests.outside --python VENV/bin/python [--count 2000] [--seed 1]

It wants older versions of packages that we use as well, so it has an environment of its own
(`make outside` makes one). Exit code 1: a difference that :mod:`tests.outside.known` does not name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from harness.model.flow import Endpoint, Verdict, Via
from harness.model.manifest import to_yaml
from harness.model.oracle import expected
from harness.model.policy import Direction, NetworkPolicy, Protocol
from harness.model.world import World
from harness.scenarios import generate
from harness.scenarios.cells import cells
from harness.scenarios.check import EVERYTHING, worlds_of
from harness.scenarios.presume import OUTSIDE, presume
from harness.scenarios.scenario import Probes
from tests.outside.known import KNOWN

ANALYSER = Path(__file__).with_name("analyser.py")
PROBES = Probes(
    ports=((80, Protocol.TCP), (81, Protocol.TCP), (80, Protocol.UDP)),
    vias=(Via.POD_IP, Via.EXTERNAL_IP),
    sources=(Endpoint.parse("*/*"), Endpoint.parse(f"external:{OUTSIDE.name}")),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.outside", description=__doc__)
    parser.add_argument("--python", required=True, help="that of the analyser's environment")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    told: Counter[str] = Counter()
    with subprocess.Popen(
        [options.python, ANALYSER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what it thinks of odd policies
        text=True,
    ) as analyser:
        assert analyser.stdin is not None
        assert analyser.stdout is not None
        for number in range(1, options.count + 1):
            world = worlds_of(generate.random(options.seed, number))[-1]
            found = presume(world)
            asked = cells(found, PROBES, EVERYTHING)
            decisions = expected(found, asked)
            hosts = {
                str(Endpoint.parse(f"external:{e.name}")): e.ips[0]
                for e in found.externals.values()
            }
            ends = [
                [hosts.get(str(e), str(e)) for e in (cell.source, cell.target)]
                + [cell.port, str(cell.protocol)]
                for cell in asked
            ]
            line = json.dumps({"manifests": manifests(world), "cells": ends})
            analyser.stdin.write(line + "\n")
            analyser.stdin.flush()
            answer = json.loads(analyser.stdout.readline())
            told["worlds"] += 1
            if "error" in answer:
                told[f"world not read by the analyser ({answer['error'][:60]})"] += 1
                continue
            for cell, allowed in zip(asked, answer["allowed"], strict=True):
                verdict = decisions[cell].verdict
                if verdict is Verdict.UNDEFINED:
                    told["cells left open by the specification"] += 1
                elif allowed == (verdict is Verdict.ALLOW):
                    told["cells that agree"] += 1
                else:
                    why = next((name for name, is_it in KNOWN.items() if is_it(found, cell)), "")
                    told[f"deviation: {why}" if why else "DIFFERENCE"] += 1
                    if not why and told["DIFFERENCE"] <= 5:
                        print(
                            f"seed {options.seed}, world {number}: {cell}: the oracle says "
                            f"{verdict}, the analyser {'allow' if allowed else 'deny'}\n"
                            f"{decisions[cell].text}\n{manifests(world)}",
                            file=sys.stderr,
                        )
        analyser.stdin.close()
    for what, count in told.most_common():
        print(f"{count:8} {what}")
    return 1 if told["DIFFERENCE"] else 0


def manifests(world: World) -> str:
    """The world for a reader that knows Namespaces, Pods and NetworkPolicies, without what it
    refuses to read although the API takes it (see :mod:`tests.outside.known`)."""
    policies = [plainer(policy) for policy in world.policies.values()]
    return to_yaml([*world.namespaces.values(), *world.pods.values(), *policies])


def plainer(policy: NetworkPolicy) -> NetworkPolicy:
    """Ingress before Egress in policyTypes, and no rules of a direction that is not listed."""
    types = tuple(sorted(policy.policy_types, key=list(Direction).index))
    return replace(
        policy,
        policy_types=types,
        ingress=policy.ingress if not types or Direction.INGRESS in types else (),
        egress=policy.egress if not types or Direction.EGRESS in types else (),
    )


if __name__ == "__main__":
    sys.exit(main())
