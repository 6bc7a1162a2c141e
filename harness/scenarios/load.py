"""Scenarios as plain YAML files, read strictly and refused before any lab is started.

One document is one scenario::

    id: peers/namespace-and-pod          # default: the file's name
    title: Only b's of namespace y
    why: both selectors in one item have to match (API reference, NetworkPolicyPeer)
    features: [ingress, pods-by-label, namespaces-by-label, numbered-port, tcp]
    requires: []                         # lab features besides those that the labels imply
    world: three-by-three                # or a mapping, see _world
    probe: {ports: [80, 81/UDP], via: [pod-ip], families: [4], sources: [y/*], targets: [x/a]}
    steps:
      - title: the policy is created
        why: ...
        apply: [{metadata: ..., spec: ...}]          # kind: NetworkPolicy may be left out
        policies: [file.yaml]                        # manifests beside this file
        delete: [policy/x/old, pod/x/b, namespace/z]
        label: {pod/x/a: {pod: b, gone: null}, namespace/y: {ns: w}}
        create: {pods: {x/d: {labels: {pod: d}, ports: [80]}}}
        finish: {x/a: Succeeded}
        probe: {...}                                 # instead of the scenario's, for this step
        expect: {"y/b -> x/a:80": allow, "z/* -> x/a:80": deny}

The actions of a step are done in the order in which its keys are written; where that does not do,
``do:`` takes a list of them, ``[{apply: ...}, {label: ...}, {apply: ...}]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.model.actions import Action, Apply, Delete, Finish, Relabel
from harness.model.cluster_policy import ClusterNetworkPolicy
from harness.model.flow import Endpoint, Verdict, Via
from harness.model.manifest import Loaded, load_text
from harness.model.policy import NO_LABELS, NetworkPolicy, Protocol, Source
from harness.model.transition import ActionError, step
from harness.model.world import (
    ContainerPort,
    External,
    Namespace,
    Phase,
    Pod,
    Service,
    ServicePort,
    Workload,
    World,
)
from harness.scenarios import features, worlds
from harness.scenarios.cells import parse_cell
from harness.scenarios.check import check
from harness.scenarios.scenario import Expectation, Probes, Scenario, Step
from harness.scenarios.tree import ScenarioError, Tree, documents

_SCENARIO = ("id", "title", "why", "features", "requires", "world", "probe", "steps")
_ACTIONS = ("apply", "policies", "delete", "label", "create", "finish")
_STEP = ("title", "why", *_ACTIONS, "do", "probe", "expect")
_PROBE = ("ports", "via", "families", "sources", "targets", "also")
_ID = re.compile(r"[a-z0-9](?:[a-z0-9._/-]*[a-z0-9])?")
_KINDS = {
    "policy": "NetworkPolicy",
    "networkpolicy": "NetworkPolicy",
    "clusternetworkpolicy": "ClusterNetworkPolicy",
    "pod": "Pod",
    "service": "Service",
    "namespace": "Namespace",
}
T = TypeVar("T")
Policy = NetworkPolicy | ClusterNetworkPolicy


def load_file(path: Path | str) -> list[Scenario]:
    """The scenarios of one YAML file, each held against the model (see :mod:`.check`).

    Raises :class:`ScenarioError`, with file, line and a hint, at the first thing that is wrong:
    an unknown key, an unknown feature label, a policy that the API would refuse, an action that
    cannot be done, an expectation that the oracle does not share.
    """
    path = Path(path)
    found: list[Scenario] = []
    for tree in documents(path):
        scenario = _scenario(tree, path)
        if any(scenario.id == other.id for other in found):
            raise tree.wrong(
                f"the id {scenario.id!r} is taken by another scenario of this file",
                "give each document an id of its own",
            )
        found.append(scenario)
    if not found:
        raise ScenarioError(None, f"{path} holds no scenario", "write at least title and steps")
    for scenario in found:
        check(scenario)
    return found


def _scenario(tree: Tree, path: Path) -> Scenario:
    top = tree.mapping("a scenario", _SCENARIO, required=("title", "why", "features", "steps"))
    scenario_id = top["id"].text("id") if "id" in top else path.stem.replace("_", "-").lower()
    if not _ID.fullmatch(scenario_id):
        raise top.get("id", tree).wrong(
            f"{scenario_id!r} is no id", "use small letters, digits, '-', '.', '_' and '/'"
        )
    start = _world(top["world"]) if "world" in top else worlds.world("three-by-three")
    steps: list[Step] = []
    world = start
    for item in top["steps"].items("steps"):
        made, world = _step(item, world, path)
        steps.append(made)
    if not steps:
        raise top["steps"].wrong("steps is empty", "a scenario has at least one step to look at")
    return Scenario(
        id=scenario_id,
        title=top["title"].text("title"),
        why=top["why"].text("why"),
        world=start,
        steps=tuple(steps),
        features=_features(top["features"]),
        requires=frozenset(item.text("requires") for item in top["requires"].items("requires"))
        if "requires" in top
        else frozenset(),
        probes=_probes(top["probe"]) if "probe" in top else Probes(),
        source=tree.source,
    )


def _features(tree: Tree) -> frozenset[str]:
    labels: set[str] = set()
    for item in tree.items("features"):
        label = item.text("a feature label")
        if wrong := features.unknown((label,)):
            raise item.wrong(wrong, "the labels are listed in harness/scenarios/features.py")
        labels.add(label)
    if not labels:
        raise tree.wrong("features is empty", "say what the scenario is about")
    return frozenset(labels)


# -- steps -------------------------------------------------------------------------------------


def _step(tree: Tree, world: World, path: Path) -> tuple[Step, World]:
    entries = tree.mapping("a step", _STEP, required=("title",))
    actions: list[Action] = []
    for key, value in entries.items():
        for source, action in _actions(key, value, path):
            try:
                world = step(world, action)
            except ActionError as wrong:
                raise source.wrong(f"impossible action: {wrong}") from None
            actions.append(action)
    made = Step(
        title=entries["title"].text("title"),
        why=entries["why"].text("why") if "why" in entries else "",
        actions=tuple(actions),
        expect=tuple(_expect(entries["expect"])) if "expect" in entries else (),
        probes=_probes(entries["probe"]) if "probe" in entries else None,
        source=tree.source,
    )
    return made, world


def _actions(key: str, tree: Tree, path: Path) -> Iterator[tuple[Tree, Action]]:
    match key:
        case "do":
            for item in tree.items("do"):
                for inner, value in item.mapping("do", _ACTIONS).items():
                    yield from _actions(inner, value, path)
        case "apply":
            for item in [tree] if tree.is_mapping else tree.items("apply"):
                yield item, Apply(_policy(item))
        case "policies":
            for item in tree.items("policies"):
                for policy in _beside(item, path):
                    yield item, Apply(policy)
        case "delete":
            for item in tree.items("delete"):
                yield item, Delete(*_reference(item, item.text("delete")))
        case "label":
            for name, labels in tree.mapping("label").items():
                kind, namespace, own = _reference(labels, name)
                yield (
                    labels,
                    Relabel(
                        kind,
                        namespace,
                        own,
                        {k: v.optional_text(k) for k, v in labels.mapping(name).items()},
                    ),
                )
        case "create":
            made = _objects(tree, "create")
            for objects in (made.namespaces, made.pods, made.services):
                for thing in objects.values():
                    yield tree, Apply(thing)
        case "finish":
            yield from _finish(tree)


def _finish(tree: Tree) -> Iterator[tuple[Tree, Action]]:
    if tree.is_mapping:
        for name, value in tree.mapping("finish").items():
            phase = value.parsed("the phase", Phase)
            yield value, Finish(*_pair(value, name), phase)
    else:
        for item in tree.items("finish"):
            yield item, Finish(*_pair(item, item.text("finish")))


def _beside(item: Tree, path: Path) -> list[Policy]:
    """The policies of a file in the scenario's own directory."""
    name = item.text("policies")
    file = path.parent / name
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as wrong:
        raise item.wrong(
            f"{name!r} beside {path.name} cannot be read: {getattr(wrong, 'strerror', wrong)}",
            "the path is taken from the scenario's own directory",
        ) from None
    return _policies(load_text(text, str(file)), item)


def _policy(tree: Tree) -> Policy:
    """One policy, written out inside of the scenario."""
    entries = tree.mapping("a policy")
    text = tree.written
    if "kind" not in entries and "apiVersion" not in entries:
        text = _with_kind(text)
    policies = _policies(load_text(text, tree.file), tree)
    if len(policies) != 1:
        raise tree.wrong("there is more than one policy in it", "write them as items of their own")
    return replace(policies[0], source=tree.source)


def _with_kind(text: str) -> str:
    """The manifest as a NetworkPolicy, its lines where they were."""
    before, rest = text[: -len(text.lstrip())], text.lstrip()
    version, kind = "apiVersion: networking.k8s.io/v1", "kind: NetworkPolicy"
    if rest.startswith("{"):
        return f"{before}{{{version}, {kind}, {rest[1:]}"
    indent = before.rpartition("\n")[2]
    # In the place of the two (blanked) lines above it; in a scenario there always are two.
    above = before.removesuffix("\n\n" + indent)
    return f"{above}{indent}{version}\n{indent}{kind}\n{indent}{rest}"


def _policies(loaded: Loaded, tree: Tree) -> list[Policy]:
    for problem in loaded.errors:
        what = f"{problem.field}: {problem.message}" if problem.field else problem.message
        source = Source(problem.file, problem.line) if problem.line else tree.source
        raise ScenarioError(source, f"the API would refuse this policy: {what}", problem.hint)
    for thing in loaded.objects:
        if not isinstance(thing, NetworkPolicy | ClusterNetworkPolicy):
            raise ScenarioError(
                thing.source,
                f"{type(thing).__name__} {thing.name} is no policy",
                "pods, namespaces and Services are made by 'create'",
            )
    if not loaded.objects:
        raise tree.wrong("there is no policy in it")
    return list(loaded.objects)


def _reference(tree: Tree, text: str) -> tuple[str, str, str]:
    """Kind, namespace and name out of ``pod/x/a`` or ``namespace/z``."""
    word, _, rest = text.partition("/")
    kind = _KINDS.get(word.lower())
    if kind is None:
        raise tree.wrong(
            f"{text!r} names nothing: {word!r} is no kind",
            f"write KIND/NAMESPACE/NAME; kinds: {', '.join(_KINDS)}",
        )
    if kind in ("Namespace", "ClusterNetworkPolicy"):
        if not rest or "/" in rest:
            raise tree.wrong(f"{text!r}: write {word}/NAME")
        return kind, "", rest
    return kind, *_pair(tree, rest)


def _pair(tree: Tree, text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise tree.wrong(f"{text!r} has to be NAMESPACE/NAME")
    return namespace, name


def _expect(tree: Tree) -> Iterator[Expectation]:
    for text, value in tree.mapping("expect").items():
        try:
            cell = parse_cell(text)
        except ValueError as wrong:
            raise value.wrong(f"expect: {wrong}") from None
        why = ""
        if value.is_mapping:
            entries = value.mapping("an expectation", ("verdict", "why"), required=("verdict",))
            why = entries["why"].text("why") if "why" in entries else ""
            value = entries["verdict"]
        yield Expectation(cell, _choice(value, "the verdict", Verdict), why, value.source)


def _choice(tree: Tree, what: str, kind: Callable[[str], T]) -> T:
    try:
        return kind(tree.text(what))
    except ValueError:
        raise tree.wrong(
            f"{what} cannot be {tree.text(what)!r}",
            f"it is one of {', '.join(str(v) for v in kind)}",  # type: ignore[attr-defined]
        ) from None


# -- probes ------------------------------------------------------------------------------------


def _probes(tree: Tree) -> Probes:
    entries = tree.mapping("probe", _PROBE)
    probes = Probes()
    for key, value in entries.items():
        match key:
            case "ports":
                probes = replace(
                    probes,
                    ports=tuple(_dialled(item) for item in value.items("ports")),
                )
            case "via":
                probes = replace(
                    probes, vias=tuple(_choice(i, "via", Via) for i in value.items("via"))
                )
            case "families":
                probes = replace(
                    probes, families=tuple(_family(i) for i in value.items("families"))
                )
            case "sources":
                probes = replace(probes, sources=_endpoints(value, "sources"))
            case "targets":
                probes = replace(probes, targets=_endpoints(value, "targets"))
            case "also":
                probes = replace(
                    probes,
                    extra=tuple(i.parsed("also", parse_cell) for i in value.items("also")),
                )
    return probes


def _endpoints(tree: Tree, what: str) -> tuple[Endpoint, ...]:
    found = tuple(item.parsed(what, Endpoint.parse) for item in tree.items(what))
    if not found:
        raise tree.wrong(f"{what} is empty: nothing would be asked")
    return found


def _family(tree: Tree) -> int:
    family = tree.number("a family")
    if family not in (4, 6):
        raise tree.wrong(f"there is no IPv{family}", "families are 4 and 6")
    return family


def _dialled(tree: Tree) -> tuple[int, Protocol]:
    name, number, protocol = _port(tree)
    if name or not isinstance(number, int):
        raise tree.wrong(f"{tree.text('ports')!r}: a client dials a number", "80 or 80/UDP")
    return number, protocol


def _port(tree: Tree) -> tuple[str | None, int | str, Protocol]:
    """``80``, ``80/UDP``, ``web=80/TCP``: name or None, number (or a name), protocol."""
    text = tree.text("a port")
    rest, _, protocol = text.partition("/")
    name, equals, number = rest.rpartition("=")
    try:
        kind = Protocol((protocol or "TCP").upper())
    except ValueError:
        raise tree.wrong(f"{text!r}: {protocol!r} is no protocol", "TCP, UDP or SCTP") from None
    if number.isdigit():
        if not 0 < int(number) < 65536:
            raise tree.wrong(f"{text!r}: ports are 1 to 65535")
        return (name if equals else None), int(number), kind
    return (name if equals else None), number, kind


# -- worlds ------------------------------------------------------------------------------------


def _world(tree: Tree) -> World:
    """``NAME``, or ``{like: NAME, namespaces, pods, services, externals, policies}``."""
    if not tree.is_mapping:
        name = tree.text("world")
        if name not in worlds.names():
            raise tree.wrong(
                f"there is no world {name!r}", f"named worlds: {', '.join(worlds.names())}"
            )
        return worlds.world(name)
    return _objects(tree, "world")


def _objects(tree: Tree, what: str) -> World:
    known = ("namespaces", "pods", "services") + (
        ("like", "externals", "policies") if what == "world" else ()
    )
    entries = tree.mapping(what, known)
    base = _world(entries["like"]) if "like" in entries else World()
    namespaces = dict(base.namespaces)
    pods = dict(base.pods)
    services = dict(base.services)
    externals = dict(base.externals)
    if "namespaces" in entries:
        for name, value in entries["namespaces"].mapping("namespaces").items():
            namespaces[name] = Namespace(name, value.texts("labels"), source=value.source)
    if "pods" in entries:
        for name, value in entries["pods"].mapping("pods").items():
            pod = _pod(value, *_pair(value, name))
            pods[pod.key] = pod
    if "services" in entries:
        for name, value in entries["services"].mapping("services").items():
            service = _service(value, *_pair(value, name))
            services[service.key] = service
    if "externals" in entries:
        for name, value in entries["externals"].mapping("externals").items():
            externals[name] = _external(value, name)
    if what == "world":
        for namespace, _ in (*pods, *services):
            namespaces.setdefault(namespace, Namespace(namespace))
    world = replace(base, namespaces=namespaces, pods=pods, services=services, externals=externals)
    if "policies" in entries:
        for item in entries["policies"].items("policies"):
            world = step(world, Apply(_policy(item)))
    return world


def _pod(tree: Tree, namespace: str, name: str) -> Pod:
    known = ("labels", "ports", "node", "ips", "hostNetwork", "workload", "ready")
    entries = tree.mapping(f"pod {namespace}/{name}", known)
    ports = entries["ports"].items("ports") if "ports" in entries else []
    return Pod(
        namespace,
        name,
        entries["labels"].texts("labels") if "labels" in entries else NO_LABELS,
        node=entries["node"].text("node") if "node" in entries else None,
        ips=tuple(i.text("ips") for i in entries["ips"].items("ips")) if "ips" in entries else (),
        ports=tuple(_container_port(item) for item in ports),
        host_network=entries["hostNetwork"].flag("hostNetwork")
        if "hostNetwork" in entries
        else False,
        ready=entries["ready"].flag("ready") if "ready" in entries else True,
        workload=_choice(entries["workload"], "workload", Workload)
        if "workload" in entries
        else Workload.BOTH,
        source=tree.source,
    )


def _container_port(tree: Tree) -> ContainerPort:
    """``web=80/TCP``, or ``{port: web=80/TCP, container: sidecar, hostPort: 8080}``."""
    container, host_port = "server", None
    if tree.is_mapping:
        entries = tree.mapping("a port", ("port", "container", "hostPort"), required=("port",))
        if "container" in entries:
            container = entries["container"].text("container")
        if "hostPort" in entries:
            host_port = entries["hostPort"].number("hostPort")
        tree = entries["port"]
    name, number, protocol = _port(tree)
    if not isinstance(number, int):
        raise tree.wrong(f"{tree.text('a port')!r}: a container's port needs a number", "web=80")
    return ContainerPort(number, protocol, name, container, host_port)


def _service(tree: Tree, namespace: str, name: str) -> Service:
    known = ("selector", "ports", "headless", "type", "externalTrafficPolicy")
    entries = tree.mapping(f"service {namespace}/{name}", known, required=("selector", "ports"))
    return Service(
        namespace,
        name,
        entries["selector"].texts("selector"),
        tuple(_service_port(item) for item in entries["ports"].items("ports")),
        type=entries["type"].text("type") if "type" in entries else "ClusterIP",
        headless=entries["headless"].flag("headless") if "headless" in entries else False,
        external_traffic_policy=entries["externalTrafficPolicy"].text("externalTrafficPolicy")
        if "externalTrafficPolicy" in entries
        else "Cluster",
        source=tree.source,
    )


def _service_port(tree: Tree) -> ServicePort:
    """``80``, ``80/UDP``, or ``{port: 80/TCP, target: 8080|web, name: http, nodePort: 30080}``."""
    if not tree.is_mapping:
        name, number, protocol = _port(tree)
        if not isinstance(number, int):
            raise tree.wrong("a Service's port has to be a number")
        return ServicePort(number, number, protocol, name)
    entries = tree.mapping("a port", ("port", "target", "name", "nodePort"), required=("port",))
    name, number, protocol = _port(entries["port"])
    if not isinstance(number, int):
        raise tree.wrong("a Service's port has to be a number")
    target: int | str = number
    if "target" in entries:
        text = entries["target"].text("target")
        target = int(text) if text.isdigit() else text
    return ServicePort(
        number,
        target,
        protocol,
        entries["name"].text("name") if "name" in entries else name,
        entries["nodePort"].number("nodePort") if "nodePort" in entries else None,
    )


def _external(tree: Tree, name: str) -> External:
    entries = tree.mapping(f"external {name}", ("ips", "ports"), required=("ips",))
    ports = entries["ports"].items("ports") if "ports" in entries else []
    return External(
        name,
        tuple(i.text("ips") for i in entries["ips"].items("ips")),
        tuple(_container_port(item) for item in ports),
    )
