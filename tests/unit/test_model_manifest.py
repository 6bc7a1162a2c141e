"""The loader: what is taken, what is refused, and how it says so. Messages are in tests/golden."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from harness.model import yamltext
from harness.model.manifest import ManifestError, from_manifest, load, load_text, to_manifest
from harness.model.policy import EVERYTHING, Direction, Peer, PolicyPort, Rule, Source
from harness.model.world import External, NetworkPolicy, Phase, Pod, Workload

NP = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"


def spec_of(text: str, **options: Any) -> NetworkPolicy:
    loaded = load_text(f"{NP}spec: {text}", **options)
    assert not loaded.errors, [str(problem) for problem in loaded.errors]
    (policy,) = loaded.objects
    assert isinstance(policy, NetworkPolicy)
    return policy


def faults(text: str, **options: Any) -> list[str]:
    """``field`` of every error of a policy with this spec."""
    return [problem.field for problem in load_text(f"{NP}spec: {text}", **options).errors]


# -- what the API server takes ---------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{podSelector: {}}", "{podSelector: }", "{}", ""])
def test_a_missing_pod_selector_is_everything(text: str) -> None:
    policy = spec_of(text)
    assert policy.pod_selector == EVERYTHING
    assert (policy.namespace, policy.name, policy.policy_types) == ("default", "p", ())


@pytest.mark.parametrize(
    ("ingress", "rules"),
    [
        ("[]", ()),
        ("null", ()),
        ("[{}]", (Rule(),)),
        ("[null]", (Rule(),)),
        ("[{from: null, ports: []}]", (Rule(),)),
        ("[{ports: [null, {}]}]", (Rule((), (PolicyPort(), PolicyPort())),)),
        ("[{from: [{podSelector: {}, ipBlock: null}]}]", (Rule((Peer(EVERYTHING),)),)),
        (
            "[{ports: [{port: 80.0}, {port: 0x50}, {port: 8_0}]}]",
            (Rule((), (PolicyPort(port=80),) * 3),),
        ),
    ],
)
def test_nothing_and_empty_mean_what_the_server_takes_them_for(
    ingress: str, rules: tuple[Rule, ...]
) -> None:
    assert spec_of(f"{{ingress: {ingress}}}").ingress == rules


def test_policy_types_may_repeat_but_not_be_three() -> None:
    assert spec_of("{policyTypes: [Ingress, Ingress]}").policy_types == (Direction.INGRESS,) * 2
    assert faults("{policyTypes: [Ingress, Egress, Egress]}") == ["spec.policyTypes"]


def test_an_empty_peer_and_a_null_peer_are_refused() -> None:
    assert faults("{ingress: [{from: [null, {}]}]}") == [
        "spec.ingress[0].from[0]",
        "spec.ingress[0].from[1]",
    ]


def test_unknown_fields_are_refused_wherever_they_are() -> None:
    text = NP + "annotations: {}\nspec: {ingress: [{form: []}, {from: [{podSelektor: {}}]}]}"
    found = load_text(text).errors
    assert [problem.field for problem in found] == [
        "annotations",
        "spec.ingress[0].form",
        "spec.ingress[1].from[0].podSelektor",
        "spec.ingress[1].from[0]",
    ]
    assert found[1].hint == "do you mean from?"


@pytest.mark.parametrize(
    "cidr", ["10.0.0.1/8", "010.0.0.0/8", "10.0.0.0/08", "::ffff:10.0.0.0/104"]
)
def test_lax_ranges_by_server_version(cidr: str) -> None:
    spec = f"{{ingress: [{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]}}"
    field = "spec.ingress[0].from[0].ipBlock.cidr"
    assert faults(spec, server_version=(1, 36)) == [field]
    assert faults(spec, server_version=(1, 35)) == []
    (warning,) = load_text(f"{NP}spec: {spec}").warnings
    assert (warning.field, warning.severity) == (field, "warning")


@pytest.mark.parametrize(
    "cidr",
    [
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0/8",
        "10.0.0.0/255.0.0.0",
        "fe80::1%eth0/64",
        " 1.0.0.0/8",
        "",
    ],
)
def test_what_is_no_range(cidr: str) -> None:
    assert faults(f"{{ingress: [{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]}}") == [
        "spec.ingress[0].from[0].ipBlock.cidr"
    ]


def test_a_status_by_server_version() -> None:
    text = NP + "status: {}"
    assert [p.field for p in load_text(text, server_version=(1, 36)).errors] == ["status"]
    assert not load_text(text, server_version=(1, 27)).errors
    assert "status" in [p.field for p in load_text(text).warnings]


# -- YAML as Kubernetes reads it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True), ("Off", False), ("~", None), ("", None), ("017", 15), ("0o17", 15),
        ("0x1F", 31), ("0b11", 3), ("-7", -7), ("1_000", 1000), ("1e3", 1000), ("1.5", 1.5),
        ("12:30", "12:30"), ("2020-01-01", "2020-01-01"), ("1.2.3", "1.2.3"), ("=", "="),
        ("08", 8), ("-", "-"), (".", "."), ("0x", "0x"), ("yEs", "yEs"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    assert yamltext.plain(text) == value
    assert type(yamltext.plain(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("! 5", "5"),
        ("!own x", "x"),
        ("'5'", "5"),
        ("|\n  5", "5"),
    ],
)
def test_tags_and_quotes(text: str, value: object) -> None:
    (document,) = yamltext.documents(f"a: {text}")
    assert isinstance(document, yamltext.Document)
    assert document.value == {"a": value}


@pytest.mark.parametrize("text", ["~: a", "[a]: b", "{a: b}: c", "a: !!null b", "a: !!binary YQ=="])
def test_what_kubernetes_cannot_make_json_of(text: str) -> None:
    assert [type(found) for found in yamltext.documents(text)] == [yamltext.BadText]


def test_anchors_and_merges() -> None:
    text = """
base: &base {app: web, tier: front}
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {<<: *base, tier: back}}
spec: {containers: [{name: c}]}
"""
    (pod,) = load_text(text).objects
    assert pod.labels == {"app": "web", "tier": "back"}


def test_lines_are_right_in_every_document_and_list() -> None:
    text = (
        "# a comment\n---\n"
        + NP
        + "---\n\n"
        + NP.replace("{name: p}", "\n  name: q")
        + ("spec:\n  ingress:\n  - {}\n  - ports:\n    - port: 1\n")
    )
    first, second = load_text(text, "f").objects
    assert str(first.source) == "f:3"
    assert str(second.source) == "f:8"
    assert [str(rule.source) for rule in second.ingress] == ["f:14", "f:15"]


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + (NP + "---\n" + NP).replace("\n", "\r\n").encode())
    loaded = load([file])
    assert [thing.source.line for thing in loaded.objects] == [1, 5]


def test_a_bomb_is_told_in_no_time() -> None:
    layers = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    text = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *layers])
    begun = time.monotonic()
    (problem,) = load_text(text).problems
    assert "aliases stand for more than" in problem.message
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_told(opening: str) -> None:
    (problem,) = load_text(opening * 50_000).problems
    assert "levels deep" in problem.message or "not YAML" in problem.message


def test_a_control_character_is_told_with_its_line() -> None:
    (problem,) = load_text("a: b\nc: \x07\n").problems
    assert (problem.line, "U+0007" in problem.message) == (2, True)


def test_json_with_tabs_and_double_keys() -> None:
    manifest = json.loads(json.dumps(to_manifest(NetworkPolicy("x", "p"))))
    assert load_text(json.dumps(manifest, indent="\t")).objects == [NetworkPolicy("x", "p")]
    (problem,) = load_text('{"a": 1,\n "a": 2}').errors
    assert "twice" in problem.message


# -- files -----------------------------------------------------------------------------------------


def test_directories_are_read_in_order_and_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "sub/a.yml", ".hidden.yaml", ".git/c.yaml", "notes.txt", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {Path(name).stem}}}\n"
        if name == "c.json":
            text = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}'
        (tmp_path / name).write_text(text)
    assert [thing.name for thing in load([tmp_path]).objects] == ["b", "c", "a"]


def test_an_empty_directory_is_no_empty_cluster(tmp_path: Path) -> None:
    (problem,) = load([tmp_path]).errors
    assert "no manifests" in problem.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = load([tmp_path / "nothing.yaml"]).errors
    assert "No such file" in problem.message


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(NP.encode())))
    (policy,) = load(["-"]).objects
    assert policy.source == Source("<stdin>", 1)


def test_bad_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "latin1.yaml"
    file.write_bytes(b"a: b\n# \xe9t\xe9\n")
    (problem,) = load([file]).errors
    assert (problem.line, "0xe9" in problem.message) == (2, True)


def test_a_file_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltext, "MAX_BYTES", 1024 * 1024)
    file = tmp_path / "big.yaml"
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    (problem,) = load([file]).errors
    assert problem.message == "is bigger than 1 MiB"


def test_an_object_that_is_written_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(NP)
    (tmp_path / "b.yaml").write_text(NP + "spec: {ingress: [{}]}")
    loaded = load([tmp_path])
    twice = [problem for problem in loaded.warnings if "twice" in problem.message]
    assert len(twice) == 1
    assert "a.yaml:1" in twice[0].hint
    assert loaded.world().policies["default", "p"].ingress == (Rule(),)


def test_a_world_has_the_namespaces_that_are_only_named() -> None:
    world = load_text(NP.replace("{name: p}", "{name: p, namespace: shop}")).world()
    assert list(world.namespaces) == ["shop"]
    assert world.namespaces["shop"].labels == {"kubernetes.io/metadata.name": "shop"}


# -- pods and workloads ----------------------------------------------------------------------------

POD = """
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop, labels: {app: a}, uid: u1}
spec:
  nodeName: n1
  containers:
  - {name: web, image: nginx:1.27, ports: [{containerPort: 80, name: http, hostPort: 8080}]}
  initContainers:
  - {name: once, image: busybox, ports: [{containerPort: 1}]}
  - {name: proxy, image: nginx, restartPolicy: Always, ports: [{containerPort: 15, protocol: UDP}]}
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: fd00::1}]
  conditions: [{type: Ready, status: "False"}]
"""


def test_a_pod() -> None:
    (pod,) = load_text(POD).objects
    assert isinstance(pod, Pod)
    assert (pod.node, pod.ips, pod.uid) == ("n1", ("10.0.0.1", "fd00::1"), "u1")
    assert [(p.port, p.protocol, p.name, p.container, p.host_port) for p in pod.ports] == [
        (80, "TCP", "http", "web", 8080),
        (15, "UDP", None, "proxy", None),
    ]
    assert (pod.phase, pod.ready, pod.workload) == (Phase.RUNNING, False, Workload.SERVER)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("{}", (Phase.RUNNING, True)),
        ("{phase: Pending}", (Phase.PENDING, False)),
        ("{phase: Succeeded}", (Phase.SUCCEEDED, False)),
        ("{phase: Running, conditions: [{type: Ready, status: 'True'}]}", (Phase.RUNNING, True)),
    ],
)
def test_a_pods_status(status: str, expected: tuple[Phase, bool]) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n"
    (pod,) = load_text(f"{text}status: {status}").objects
    assert (pod.phase, pod.ready) == expected


@pytest.mark.parametrize(
    ("kind", "version", "count"),
    [
        ("Deployment", "apps/v1", 3),
        ("StatefulSet", "apps/v1", 3),
        ("ReplicaSet", "apps/v1", 3),
        ("DaemonSet", "apps/v1", 1),
        ("Job", "batch/v1", 1),
        ("CronJob", "batch/v1", 1),
    ],
)
def test_workloads_are_their_pods(kind: str, version: str, count: int) -> None:
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }
    spec: dict[str, Any] = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    elif kind != "Job":
        spec |= {"selector": {"matchLabels": {"app": "a"}}, "replicas": 3}
    data = {"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, "spec": spec}
    loaded = load_text(json.dumps(data))
    assert not loaded.problems
    assert [pod.name for pod in loaded.objects] == [f"w-{i}" for i in range(count)]
    assert {pod.workload for pod in loaded.objects} == {Workload.CLIENT}
    assert all(dict(pod.labels) == {"app": "a"} for pod in loaded.objects)


def test_a_workload_of_a_billion_pods_is_cut_with_a_warning() -> None:
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 1000000000
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c}]}}
"""
    loaded = load_text(text)
    assert len(loaded.objects) == 10_000
    assert [problem.field for problem in loaded.warnings] == ["spec.replicas"]


# -- objects of an API server ----------------------------------------------------------------------


def test_what_a_server_has_accepted_is_taken() -> None:
    """Fields of newer versions are left alone; peers of unknown kinds stay, and match nothing."""
    policy = from_manifest(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "n", "managedFields": [], "newField": 1},
            "spec": {
                "podSelector": {},
                "newField": True,
                "ingress": [{"from": [{"newPeer": {}}, {"ipBlock": {"cidr": "10.0.0.1/8"}}]}],
            },
            "status": {"conditions": []},
        },
        Source("cluster:kind", 0),
    )
    assert policy.ingress[0].peers[0] == Peer()
    assert policy.ingress[0].peers[1].ip_block.cidr == "10.0.0.1/8"
    assert policy.source == Source("cluster:kind", 0)


def test_what_cannot_be_read_names_the_object_and_the_field() -> None:
    data = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"podSelector": {"matchLabels": {"a": 1}}, "ingress": {}},
    }
    with pytest.raises(ManifestError, match="NetworkPolicy n/p cannot be read") as raised:
        from_manifest(data)
    assert [fault.field for fault in raised.value.faults] == [
        "spec.podSelector.matchLabels.a",
        "spec.ingress",
    ]


def test_what_is_no_kubernetes_object_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="External is no Kubernetes object"):
        to_manifest(External("e"))


def test_reading_one_object_needs_no_yaml() -> None:
    """Controllers import this at their start: YAML, addresses and files come in when needed."""
    import subprocess
    import sys

    code = (
        "import sys; from harness.model.manifest import from_manifest; "
        "from_manifest({'kind': 'NetworkPolicy', 'metadata': {'name': 'p'}}); "
        "late = ('yaml', 'json', 'pathlib', 'ipaddress', 'difflib'); "
        "print([name for name in late if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
