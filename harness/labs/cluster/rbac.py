"""The least rights with which the harness runs on a cluster (or reads one), and whether a user has
them.

Rights on pods and policies are cluster-wide because scenarios make namespaces of their own, whose
names no role can know before. Secrets are not among them, nor anything of the nodes but reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness.labs.cluster.api import Api

Json = dict[str, Any]

NAME = "netpol-harness"


@dataclass(frozen=True, slots=True)
class Right:
    """``resource`` may have a subresource (``pods/exec``). ``optional``: some scenarios only;
    ``fan_out``: a fan-out by a Job only, and optional as well."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    optional: bool = False
    fan_out: bool = False


_RBAC = "rbac.authorization.k8s.io"
_CHANGE = ("create", "patch", "delete")

RIGHTS = (
    Right("", "namespaces", ("get", "list", *_CHANGE), "each scenario has namespaces of its own"),
    Right("", "nodes", ("list",), "addresses and pod CIDRs of nodes"),
    Right("", "pods", ("get", "list", "watch", *_CHANGE), "servers and clients"),
    Right("", "pods/exec", ("create", "get"), "a shell in each client"),
    Right("", "services", ("get", "list", *_CHANGE), "what pods are reached through"),
    Right("discovery.k8s.io", "endpointslices", ("list",), "whether Services know their pods"),
    Right(
        "networking.k8s.io", "networkpolicies", ("get", "list", *_CHANGE), "what is being tested"
    ),
    Right("", "pods/log", ("get",), "last words of pods that end", optional=True),
    Right("", "nodes", ("patch",), "scenarios that relabel nodes", optional=True),
    Right(
        "policy.networking.k8s.io",
        "clusternetworkpolicies",
        ("get", "list", *_CHANGE),
        "scenarios with ClusterNetworkPolicy",
        optional=True,
    ),
    # The API server lets nobody give away more than he has: a Role made with these can hold
    # nothing but what is in this list.
    *(
        Right(group, resource, verbs, why, optional=True, fan_out=True)
        for group, resource, verbs, why in (
            ("batch", "jobs", ("list", *_CHANGE), "the Job of the fan-out, and its growth"),
            ("", "serviceaccounts", ("create",), "the account of the fan-out's workers"),
            (_RBAC, "roles", ("create",), "a shell in each client, for that account"),
            (_RBAC, "rolebindings", ("create",), "a shell in each client, for that account"),
        )
    ),
    Right("", "events", ("list",), "why a Job has no pods", optional=True),
)

READER = "netpol-reader"

READING = (
    Right("", "namespaces", ("get", "list"), "labels that policies select by"),
    Right("", "pods", ("list",), "who there is"),
    Right("", "services", ("list",), "what pods are reached through"),
    Right("networking.k8s.io", "networkpolicies", ("list",), "the policies"),
    Right(
        "policy.networking.k8s.io",
        "clusternetworkpolicies",
        ("list",),
        "those of the cluster, where there are such",
        optional=True,
    ),
    Right("", "nodes", ("list",), "addresses of nodes", optional=True),
)
"""What is needed to read a cluster, and to change nothing there."""


def manifests(
    namespace: str,
    account: str = NAME,
    *,
    rights: Sequence[Right] = RIGHTS,
    optional: bool = True,
) -> list[Json]:
    """A service account with these rights: ServiceAccount, ClusterRole, ClusterRoleBinding."""
    rules = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        for right in rights
        if optional or not right.optional
    ]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace},
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": account},
            "rules": rules,
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": account},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": account},
            "subjects": [subject],
        },
    ]


def missing(api: Api) -> list[tuple[Right, str]]:
    """The rights that the user has not, with the verb, by asking the server (a
    SelfSubjectAccessReview for each). Raises LabError."""
    asked = [(right, verb) for right in RIGHTS for verb in right.verbs]
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda one: _may(api, *one), asked))
    return [one for one, may in zip(asked, allowed, strict=True) if not may]


def fan_out_lacks(lacks: Sequence[tuple[Right, str]]) -> list[tuple[Right, str]]:
    """Those of them without which there is no fan-out by a Job."""
    return [one for one in lacks if one[0].fan_out]


def told(lacks: Sequence[tuple[Right, str]]) -> str:
    """For people: a line for each right that lacks."""
    return "\n".join(
        f"  {verb} {right.resource}" + (f".{right.group}" if right.group else "") + f": {right.why}"
        for right, verb in lacks
    )


def _may(api: Api, right: Right, verb: str) -> bool:
    resource, _, subresource = right.resource.partition("/")
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "verb": verb,
            }
        },
    }
    answer = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer["status"].get("allowed"))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifests of an account with these rights, as YAML."""
    import argparse

    import yaml

    parser = argparse.ArgumentParser(
        prog="python -m harness.labs.cluster.rbac", description=main.__doc__
    )
    parser.add_argument("namespace", nargs="?", default="default", help="of the account (default)")
    parser.add_argument(
        "--least", action="store_true", help="without the rights that only some scenarios need"
    )
    parser.add_argument(
        "--read",
        action="store_true",
        help="for reading alone: the tools at the desk, --lab-manifests cluster:",
    )
    asked = parser.parse_args(argv)
    account, rights = (READER, READING) if asked.read else (NAME, RIGHTS)
    made = manifests(asked.namespace, account, rights=rights, optional=not asked.least)
    print(yaml.safe_dump_all(made, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
