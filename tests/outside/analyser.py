"""network-config-analyzer answers: run by the Python of its own environment, knows nothing of ours.

A line of JSON in, a line out: ``{"manifests": YAML, "cells": [[SOURCE, TARGET, PORT, PROTOCOL]]}``
gives ``{"allowed": [true, …]}`` or ``{"error": TEXT}``. An end is ``ns/pod`` or an address.
"""

import contextlib
import io
import json
import os
import sys
import tempfile

from nca.CoreDS.Peer import BasePeerSet, IpBlock, Pod
from nca.NetworkConfig.ResourcesHandler import ResourcesHandler


def answer(asked):
    with tempfile.TemporaryDirectory(prefix="netpol-outside-") as directory:
        with open(os.path.join(directory, "world.yaml"), "w", encoding="utf-8") as file:
            file.write(asked["manifests"])
        BasePeerSet.reset()
        config = ResourcesHandler().get_network_config([directory], [directory], [directory], None)
    allowed = config.allowed_connections().all_allowed_conns
    cubes = [allowed.get_connectivity_cube(cube) for cube in allowed]
    rows = [
        (c["src_peers"], c["dst_peers"], c["protocols"], c.get_dim_directly("dst_ports"))
        for c in cubes
    ]
    return [any(holds(row, *cell) for row in rows) for cell in asked["cells"]]


def holds(row, source, target, port, protocol):
    sources, targets, protocols, ports = row
    return (
        protocol in protocols
        and port in ports
        and among(source, sources)
        and among(target, targets)
    )


def among(end, peers):
    if "/" in end:
        return any(isinstance(p, Pod) and f"{p.namespace.name}/{p.name}" == end for p in peers)
    address = IpBlock(f"{end}/32")
    return any(isinstance(peer, IpBlock) and address.contained_in(peer) for peer in peers)


def main():
    out = sys.stdout
    for line in sys.stdin:
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                told = {"allowed": answer(json.loads(line))}
        except Exception as error:  # told to the one who asks
            told = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(told) + "\n")
        out.flush()


main()
