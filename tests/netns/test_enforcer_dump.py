"""What is in force is shown, and each rule says which policy it comes from."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from onenode import ROOT, Enforcer, OneNode

POD = "10.244.1.2"
MANY = [f"policy-with-a-name-that-is-rather-long-{number:03}" for number in range(8)]


def pod(name: str, *addresses: str, node: str = "node") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "a"}}, **spec},
    }


def peers(name: str) -> list[Any]:
    return [{"podSelector": {"matchLabels": {"app": name}}}]


OBJECTS = [
    pod("a", POD, "fd00:1::2"),
    pod("b", "10.244.1.3"),
    policy("friends", ingress=[{"from": peers("b"), "ports": [{"port": 80}]}]),
    policy("away", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]),
    *(policy(name, ingress=[{"from": peers(name), "ports": [{"port": 443}]}]) for name in MANY),
    {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "never-udp"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "ingress": [
                {
                    "name": "udp",
                    "action": "Deny",
                    "from": [{"namespaces": {}}],
                    "protocols": [{"udp": {"destinationPort": {"range": {"start": 1, "end": 99}}}}],
                }
            ],
        },
    },
]


def run(node: OneNode, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [*node.enter(), sys.executable, "-m", "harness.enforcer", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("plane", ["iptables", "nftables"])
def test_each_rule_says_where_it_comes_from(plane: str) -> None:
    with OneNode() as node, Enforcer(node, plane) as enforcer:
        none = run(node, "dump", "--dataplane", plane)
        assert none.returncode == 1
        assert "no rules of the enforcer" in none.stderr

        enforcer.sync({"kind": "Namespace", "metadata": {"name": "x", "labels": {}}}, *OBJECTS)
        shown = run(node, "dump", "--explain", "--dataplane", plane)
        assert shown.returncode == 0, shown.stderr
        text = shown.stdout
        assert f"{plane}, IPv4" in text
        assert f"{plane}, IPv6" in text
        four = text.partition(f"{plane}, IPv6")[0]
        rule = rule_of(four, "x/friends ingress[0]")
        assert "80" in rule
        assert re.search(r"p-[0-9a-f]{16}: 10\.244\.1\.3$", after(four, "x/friends ingress[0]"))
        assert re.search(r"b-[0-9a-f]{16}: 10\.9\.0\.0/16$", after(four, "x/away egress[0]"))
        assert "drop" in rule_of(four, "Ingress isolated by policies of namespace x").lower()
        assert "drop" in rule_of(four, "never-udp ingress[0] udp").lower()
        assert re.search(rf"connections to {re.escape(POD)}\b", four)
        # each rule has a line that says what it is for
        lines = four.splitlines()
        rules = [i for i, line in enumerate(lines) if is_rule(line)]
        assert len(rules) > 10
        assert all(re.match(r" +  = \S", lines[i + 1]) for i in rules)
        # without --explain the rules alone, and as many
        bare = run(node, "dump", "--dataplane", plane).stdout.partition(f"{plane}, IPv6")[0]
        assert sum(map(is_rule, bare.splitlines())) == len(rules)

        enforcer.kill()
        assert run(node, "clean", "--dataplane", plane).returncode == 0
        assert run(node, "dump", "--dataplane", plane).returncode == 1


def is_rule(line: str) -> bool:
    """Rules are told from what is said of them by their place."""
    return line.startswith("    ") and not re.match(r" {14}", line) and "chain " not in line[:8]


def rule_of(text: str, origin: str) -> str:
    lines = text.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.endswith(f"= {origin}")) - 1]


def after(text: str, origin: str) -> str:
    lines = text.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.endswith(f"= {origin}")) + 1]
